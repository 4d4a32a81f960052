//! The program of containers that send before they do anything else.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{CGROUP, FOLDER, built, command, layout::SERVER};

/// Where a container has it.
pub const PATH: &str = "/sender";

const SOURCE: &str = include_str!("sender.c");

/// Puts the static program `sender.c` where the scenario has its files, and returns its path. It is compiled once for all scenarios.
pub fn build() -> String {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let kept = built(&format!("tmp/sender-{:x}", hasher.finish()));
    let (source, program) = (format!("{FOLDER}/sender.c"), format!("{FOLDER}/sender"));
    if fs::copy(&kept, &program).is_err() {
        fs::write(&source, SOURCE).expect("/run is ours");
        command::run(&["cc", "-static", "-O1", "-Wall", "-Werror", "-o", &program, &source]);
        // Whole or not at all: others may be looking for it.
        let partial = kept.with_extension(env::var(CGROUP).expect("a scenario has a name of its own"));
        fs::copy(&program, &partial).and_then(|_| fs::rename(&partial, &kept)).expect("the target folder is ours");
    }
    program
}

/// The command that makes a container a sender to a server on the internet: `once`, `always`, or with a source that is not its own.
pub fn sends(how: &str, port: u16) -> [String; 4] {
    [PATH.to_owned(), how.to_owned(), SERVER.to_string(), port.to_string()]
}
