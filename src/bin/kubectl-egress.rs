//! `kubectl egress`: kubectl finds this program by its name.

use std::process::ExitCode;

use clap::Parser;
use egressd::cli;

fn main() -> ExitCode {
    cli::end("kubectl egress", cli::kubectl::Kubectl::parse().run().map(|()| ExitCode::SUCCESS))
}
