//! Arguments to a command, errors to one line.

use std::env;
use std::io;
use std::process::ExitCode;

use egressd::cli;

fn main() -> ExitCode {
    match cli::parse(env::args_os()).and_then(cli::Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        // As in `egressd crd | head`: who reads has enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egressd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
