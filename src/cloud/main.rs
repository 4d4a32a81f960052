//! Arguments to a command, errors to one line.

use std::process::ExitCode;

use clap::Parser;
use egressd_cloud::cli::Cli;

fn main() -> ExitCode {
    let code = |done| if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    egressd::cli::end("egressd-cloud", Cli::parse().run().map(code))
}
