//! How the program logs.

use std::io::IsTerminal;

/// Logs go to stderr, coloured for people only; `RUST_LOG` says how much.
pub fn log(json: bool) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = tracing_subscriber::EnvFilter::try_new(if wanted.is_empty() { "info" } else { wanted.as_str() });
    let refused = filter.as_ref().err().map(ToString::to_string);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
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
        tracing::warn!("failed to read RUST_LOG={wanted}: {error}; it is taken for info");
    }
}
