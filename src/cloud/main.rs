//! Arguments to a command, errors to one line.

use std::process::ExitCode;

use clap::Parser;
use egressd_cloud::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("egressd-cloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}
