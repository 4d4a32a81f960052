//! Arguments to a command, errors to one line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match egressd::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egressd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
