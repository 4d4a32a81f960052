//! How answers are printed.

use clap::ValueEnum;
use serde::Serialize;

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
