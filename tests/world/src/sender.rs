//! The program of containers that send before they do anything else.

use std::fs;

use crate::{FOLDER, command, layout::SERVER};

/// Where a container has it.
pub const PATH: &str = "/sender";

/// Makes the static program `sender.c`, and returns its path.
pub fn build() -> String {
    let (source, program) = (format!("{FOLDER}/sender.c"), format!("{FOLDER}/sender"));
    fs::write(&source, include_str!("sender.c")).expect("/run is ours");
    command::run(&["cc", "-static", "-O1", "-Wall", "-Werror", "-o", &program, &source]);
    program
}

/// The command that makes a container a sender to a server on the internet: `once`, `always`, or with a source that is not its own.
pub fn sends(how: &str, port: u16) -> [String; 4] {
    [PATH.to_owned(), how.to_owned(), SERVER.to_string(), port.to_string()]
}
