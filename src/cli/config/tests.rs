//! A file of options beside flags. (Variables are the process's own, and are not set here.)

use clap::CommandFactory;

use super::*;
use crate::cli::Cli;

/// What is asked for, with the file's options behind it.
fn completed(line: &str, text: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    fs::write(&file, text).expect("written");
    let named = format!("{line} --config {}", file.display());
    let arguments: Vec<OsString> = named.split(' ').map(OsString::from).collect();
    let before = arguments.len();
    let completed = complete(&Cli::command(), arguments)?;
    let added: Vec<_> = completed.arguments[before..].iter().map(|one| one.to_string_lossy().into_owned()).collect();
    assert_eq!(added.is_empty(), completed.added.is_empty());
    Ok(added.join(" "))
}

fn refused(text: &str) -> String {
    format!("{:#}", completed("egressd run", text).expect_err(text))
}

#[test]
fn options_of_the_file_are_taken_as_flags_are() {
    let text = "no-docker: true\nmanifests: /etc/egressd\ninside: [10.0.0.0/8, 10.1.0.0/16]\nlog-json: false\n";
    let expected = "--inside=10.0.0.0/8 --inside=10.1.0.0/16 --manifests=/etc/egressd --no-docker";
    let added = completed("egressd run", text).unwrap();
    let mut added: Vec<_> = added.split(' ').collect();
    added.sort_unstable();
    assert_eq!(added.join(" "), expected);
    assert_eq!(completed("egressd run", "# nothing yet\n").unwrap(), "");
    assert_eq!(completed("egressd run", "").unwrap(), "");
}

#[test]
fn a_flag_wins_over_the_file_and_over_what_does_not_go_with_it() {
    assert_eq!(completed("egressd run --manifests /other", "manifests: /etc/egressd").unwrap(), "");
    assert_eq!(completed("egressd run --docker-socket /other", "no-docker: true").unwrap(), "");
    assert_eq!(completed("egressd run --no-docker", "docker-socket: /other").unwrap(), "");
    assert_eq!(completed("egressd run --no-metrics", "metrics-address: 127.0.0.1:1").unwrap(), "");
}

#[test]
fn each_command_takes_those_that_it_has() {
    let text = "state-dir: /run/other\nno-docker: true";
    assert_eq!(completed("egressd status", text).unwrap(), "--state-dir=/run/other");
    assert_eq!(completed("egressd check", text).unwrap(), "--state-dir=/run/other");
}

#[test]
fn what_cannot_be_read_is_named_with_its_cure() {
    assert!(refused("no-dokcer: true").contains("no-dokcer: no such option; see `egressd run --help`; did you mean no-docker?"));
    assert!(refused("no-docker: yes please").contains("no-docker: has to be true or false"));
    assert!(refused("manifests: [a, b]").contains("manifests: is one value"));
    assert!(refused("manifests: {a: b}").contains("manifests: has to be a text"));
    assert!(refused("- a").contains("has to name options"));
    assert!(refused("a: [").contains("has to be YAML"));
    assert!(refused("kind: EgressBinding").contains("file of another name"));
    assert!(refused("dry-run: true").contains("no such option"), "it is asked for each time");
    let missing = ["egressd", "run", "--config", "/nowhere/config.yaml"].map(OsString::from).to_vec();
    let missing = complete(&Cli::command(), missing).expect_err("it was named");
    assert!(missing.to_string().contains("does not exist"), "{missing}");
}
