//! How the program logs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::api::nearest::nearest;

/// What alone means all parts of the program.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Logs go to stderr, coloured for people only; `RUST_LOG` says how much.
pub fn log(json: bool) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, refused) = match filter(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => ("info".into(), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // It would be told on stderr, and end the process where that cannot be written to either.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    if json {
        builder.json().init()
    } else {
        builder.init()
    }
    if let Some(error) = refused {
        tracing::warn!("failed to read RUST_LOG={wanted}: {error}; using info");
    }
}

/// A word that is no level is the name of a part of the program: one that looks like a level is a slip.
fn filter(wanted: &str) -> Result<EnvFilter, String> {
    let word = wanted.trim().to_lowercase();
    if let Some(level) = nearest(&word, LEVELS).filter(|_| !LEVELS.contains(&word.as_str())) {
        return Err(format!("it is no level; did you mean {level}?"));
    }
    EnvFilter::try_new(if wanted.is_empty() { "info" } else { wanted }).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_told_and_other_words_are_parts_of_the_program() {
        assert_eq!(filter("infos").map(|_| ()), Err("it is no level; did you mean info?".to_owned()));
        for good in ["", "info", "WARN", "hyper", "egressd=debug,kube=off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("egressd=loud").is_err());
    }
}
