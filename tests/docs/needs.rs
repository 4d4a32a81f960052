//! What a build lacks is said ahead of it, in a line each, with the cure.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::page::root;

/// What `packaging/needs.sh` says of these programs where the folder has all that there is.
fn said(folder: &Path, protoc: Option<&Path>, programs: &[&str]) -> (bool, Vec<String>) {
    let mut command = Command::new("/bin/bash");
    command.arg(root().join("packaging/needs.sh")).args(programs).env("PATH", folder).env_remove("PROTOC");
    command.envs(protoc.map(|protoc| ("PROTOC", protoc)));
    let output = command.output().expect("bash runs");
    let lines = String::from_utf8(output.stderr).expect("text").lines().map(str::to_owned).collect();
    (output.status.success(), lines)
}

#[test]
fn what_a_build_lacks_is_said_in_a_line_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let build = ["cargo", "cc", "protoc"];
    let (well, lines) = said(folder.path(), None, &build);
    assert!(!well);
    assert_eq!(lines[2], "needs protoc: apt install protobuf-compiler");
    assert_eq!(lines.len(), build.len(), "{lines:?}");
    assert!(said(folder.path(), None, &[]).1.len() > build.len(), "packages need more");
    for program in ["cargo", "cc"] {
        symlink("/bin/true", folder.path().join(program)).expect("a link");
    }
    assert_eq!(said(folder.path(), None, &build).1, lines[2..]);
    // The build takes the one that is named.
    let other = folder.path().join("another");
    assert_eq!(said(folder.path(), Some(&other), &build).1, lines[2..], "it is not there");
    fs::copy("/bin/true", &other).expect("a program");
    assert_eq!(said(folder.path(), Some(&other), &build), (true, Vec::new()));
}
