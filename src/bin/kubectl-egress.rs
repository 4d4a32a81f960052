//! `kubectl egress`: kubectl finds this program by its name.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match egressd::cli::kubectl::Kubectl::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl egress: {error:#}");
            ExitCode::FAILURE
        }
    }
}
