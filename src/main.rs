//! Arguments to a command, errors to one line.

use std::env;
use std::process::ExitCode;

use egressd::cli;

fn main() -> ExitCode {
    cli::end("egressd", cli::parse(env::args_os()).and_then(cli::Cli::run).map(|()| ExitCode::SUCCESS))
}
