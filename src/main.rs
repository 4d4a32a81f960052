//! Arguments to a command, errors to one line.

use std::env;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use egressd::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse_from(cli::behind_the_command(env::args_os())).run() {
        Ok(()) => ExitCode::SUCCESS,
        // As in `egressd crd | head`: who reads has enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egressd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
