//! Commands (`ip`, `nft`, ...) that have to succeed, and say how when they do not.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Runs it and returns what it prints to standard output.
///
/// # Panics
/// When it does not succeed.
pub fn run(arguments: &[&str]) -> String {
    try_run(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs it and returns what it prints to standard output, or its failure with what it prints to standard error.
pub fn try_run(arguments: &[&str]) -> Result<String, String> {
    finish(command(arguments), arguments, "")
}

/// Runs it with `input` as its standard input.
///
/// # Panics
/// When it does not succeed.
pub fn feed(arguments: &[&str], input: &str) -> String {
    finish(command(arguments), arguments, input).unwrap_or_else(|error| panic!("{error}\n{input}"))
}

/// Runs a command that was made elsewhere, as [`try_run`].
pub fn finish(mut command: Command, name: &[&str], input: &str) -> Result<String, String> {
    let name = name.join(" ");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("failed to run `{name}`: {error}"))?;
    // A program that ends without reading all of it says so by its status.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| format!("failed to wait for `{name}`: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{name}` failed ({}): {}", output.status, error.trim()))
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]);
    command
}
