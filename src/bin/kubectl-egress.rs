//! `kubectl egress`: kubectl finds this program by its name.

use std::io;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match egressd::cli::kubectl::Kubectl::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // As in `egressd crd | head`: who reads has enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl egress: {error:#}");
            ExitCode::FAILURE
        }
    }
}
