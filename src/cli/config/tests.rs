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
    let whole: Vec<_> = completed.arguments.iter().map(|one| one.to_string_lossy().into_owned()).collect();
    let added = &whole[2..2 + whole.len() - before];
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
    assert_eq!(completed("egressd run --no-metrics", "run: {metrics-address: '127.0.0.1:1'}").unwrap(), "");
}

#[test]
fn each_command_takes_those_that_it_has() {
    let text = "state-dir: /run/other\nno-docker: true";
    assert_eq!(completed("egressd status", text).unwrap(), "--state-dir=/run/other");
    assert_eq!(completed("egressd check", text).unwrap(), "--state-dir=/run/other");
}

#[test]
fn another_programs_arguments_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    fs::write(&file, "state-dir: /other\n").expect("written");
    for dashes in ["-- ", ""] {
        let line = format!("egressd exec --config {} --ip 172.31.0.14 {dashes}curl --config c", file.display());
        let completed = complete(&Cli::command(), line.split(' ').map(OsString::from).collect()).unwrap();
        let whole: Vec<_> = completed.arguments.iter().map(|one| one.to_string_lossy()).collect();
        assert_eq!(whole.join(" "), line.replacen("exec ", "exec --state-dir=/other ", 1));
    }
}

#[test]
fn an_option_below_a_commands_name_is_for_that_one() {
    let text = "proxy: {metrics-address: '127.0.0.1:2', drain-seconds: 5}\nrun:\n  metrics-address: 127.0.0.1:1\n  no-docker: true\n";
    assert_eq!(completed("egressd run", text).unwrap(), "--metrics-address=127.0.0.1:1 --no-docker");
    assert_eq!(completed("egressd proxies", text).unwrap(), "--metrics-address=127.0.0.1:2", "it asks the proxy");
    let shared = refused("metrics-address: 127.0.0.1:1");
    assert!(
        shared.ends_with(
            "metrics-address: commands differ in it; write it below a command's name, for example `run: { metrics-address: ... }`"
        ),
        "{shared}"
    );
    assert_eq!(completed("egressd proxy --manifests /m", text).unwrap(), "--drain-seconds=5 --metrics-address=127.0.0.1:2");
    let wrong = refused("proxy: {drain-second: 5}");
    assert!(wrong.ends_with("proxy: drain-second: no such option; see `egressd proxy --help`; did you mean drain-seconds?"), "{wrong}");
    assert!(refused("proxy: {no-docker: true}").contains("no such option"), "it is the daemon's");
}

#[test]
fn a_slip_keeps_nobody_from_commands_that_have_none_of_its_options() {
    for line in ["egressd version", "egressd completions bash", "egressd crd"] {
        assert_eq!(completed(line, "no-dokcer: [").unwrap(), "", "{line}");
    }
}

#[test]
fn what_is_no_file_of_options_ends_in_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let of = |file: &Path| {
        let line = ["egressd", "run", "--config"].map(OsString::from).into_iter().chain([file.into()]);
        complete(&Cli::command(), line.collect()).map(|completed| completed.added).map_err(|error| format!("{error:#}"))
    };
    for file in [folder.path(), &pipe] {
        assert_eq!(
            of(file),
            Err(format!("{} is not a regular file; write options into one, or name another file with --config", file.display()))
        );
    }
    assert!(of(Path::new("/dev/zero")).unwrap_err().contains("larger than 1 MiB"));
    assert_eq!(of(Path::new("/dev/null")), Ok(Vec::new()));
}

#[test]
fn what_cannot_be_read_is_named_with_its_cure() {
    assert!(refused("no-dokcer: true").contains("no-dokcer: no such option; see `egressd run --help`; did you mean no-docker?"));
    assert!(refused("no-docker: yes please").contains("no-docker: has to be true or false"));
    assert!(refused("manifests: [a, b]").contains("manifests: is one value"));
    assert!(refused("manifests: {a: b}").contains("manifests: has to be a text"));
    assert!(refused("- a").contains("has to name options"));
    assert!(refused("a: [").contains("line 1, column 4: cannot be read: unclosed bracket"));
    assert!(refused("state-dir: /a\nstate-dir: /b").contains("line 2, column 1: `state-dir` is given twice; keep one"));
    assert!(refused("no-docker: true\n---\nno-docker: false").contains("several documents"));
    assert!(refused("kind: EgressBinding").contains("file of another name"));
    assert!(refused("dry-run: true").contains("no such option"), "it is asked for each time");
    let missing = ["egressd", "run", "--config", "/nowhere/config.yaml"].map(OsString::from).to_vec();
    let missing = complete(&Cli::command(), missing).expect_err("it was named");
    assert!(missing.to_string().contains("does not exist"), "{missing}");
}

#[test]
fn a_value_that_cannot_be_read_is_one_line_with_the_file_the_option_and_the_cure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let fault = |text: &str, line: &str| {
        fs::write(&file, text).expect("written");
        let line = format!("egressd run --config {}{line}", file.display());
        let completed = complete(&Cli::command(), line.split(' ').map(OsString::from).collect()).expect("it names options");
        completed.fault(&Cli::command().try_get_matches_from(&completed.arguments).expect_err("it is wrong"))
    };
    let said = |option: &str, why: &str| Some(format!("{}: {option}: {why}; see `egressd run --help`", file.display()));
    assert_eq!(fault("inside: 10.0.0.0", ""), said("inside", "`10.0.0.0` is not a subnet; write `10.0.0.0/32` for this one address"));
    assert_eq!(fault("fast-path: on", ""), said("fast-path", "`on` cannot be read: has to be one of auto, off"));
    assert_eq!(fault("no-docker: true", " --inside 10.0.0.0"), None, "it is a flag's");
}
