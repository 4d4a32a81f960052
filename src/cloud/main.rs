//! Arguments to a command, errors to one line.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use egressd_cloud::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // As in `egressd-cloud status | head`: who reads has enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egressd-cloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}
