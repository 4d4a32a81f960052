//! How answers are printed.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

/// Writes a line for people. That nobody reads it is no fault.
pub(super) fn tell(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Ends a command of this name: what went wrong is told in one line.
pub fn end(name: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        // As in `egressd crd | head`: who reads has enough.
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        tell(format_args!("{name}: {error:#}"));
        ExitCode::FAILURE
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
    Yaml,
}

impl Output {
    /// The answer as a text; `table` makes the one for people.
    ///
    /// # Errors
    /// When it cannot be written in that form.
    pub fn print(self, answer: &impl Serialize, table: impl FnOnce() -> String) -> anyhow::Result<String> {
        Ok(match self {
            Self::Table => table(),
            Self::Json => serde_json::to_string_pretty(answer)? + "\n",
            Self::Yaml => serde_saphyr::to_string(answer)?,
        })
    }
}
