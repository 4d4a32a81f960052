//! Each command line in the documents can be typed: egressd's own by its definition of arguments, others as far as they name what is ours.

use std::collections::BTreeMap;

use clap::{Command, CommandFactory, error::ErrorKind};
use egressd::{
    api::definitions,
    cli::{Cli, kubectl::Kubectl},
};
use serde_json::Value;

use crate::{
    in_all_pages, manifests,
    page::{Block, root, text_of},
};

#[test]
fn every_command_line_can_be_typed() {
    in_all_pages(60, |page, found| {
        for block in page.blocks().iter().filter(|block| ["sh", "console"].contains(&block.language.as_str())) {
            for command in lines(block).iter().flat_map(|line| commands(line)) {
                found(block.line, typed(&command).map_err(|error| format!("{}: {error}", command.join(" "))));
            }
        }
    });
}

/// The lines that are typed: in a `console` block those behind `$`; a line that ends with a backslash goes on.
fn lines(block: &Block) -> Vec<String> {
    let joined = block.text.replace("\\\n", " ");
    let typed = joined.lines().filter_map(|line| if block.language == "console" { line.strip_prefix("$ ") } else { Some(line) });
    typed.map(str::to_owned).collect()
}

/// The commands of a line, as words: apart where a shell separates them, without comments, quotes and variables ahead.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut quoted) = (vec![Vec::<String>::new()], None);
    let (mut word, mut begun) = (String::new(), false);
    for c in line.chars().chain([' ']) {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quoted, begun) = (Some(c), true),
            (None, '#') if !begun => break,
            (None, ';' | '|' | '&' | ' ') => {
                if std::mem::take(&mut begun) {
                    all.last_mut().expect("there is one always").push(std::mem::take(&mut word));
                }
                if c != ' ' {
                    all.push(Vec::new());
                }
            }
            (None, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    let is_ahead =
        |word: &String| ["do", "sudo", "then"].contains(&word.as_str()) || word.split_once('=').is_some_and(|(name, _)| is_name(name));
    let bare = all.into_iter().map(|words| words.into_iter().skip_while(is_ahead).collect::<Vec<_>>());
    bare.filter(|words| !words.is_empty()).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn typed(words: &[String]) -> Result<(), String> {
    // Where its output goes is the shell's.
    let words: Vec<&str> = words.iter().map(String::as_str).take_while(|word| *word != ">").collect();
    files(&words)?;
    match *words {
        ["egressd" | "target/release/egressd", ..] => clap(Cli::command(), "egressd", &words[1..]),
        ["kubectl", "egress", ref rest @ ..] => clap(Kubectl::command(), "kubectl egress", rest),
        ["kubectl", ref rest @ ..] => resources(rest),
        ["docker" | "nerdctl", "run" | "create", ref rest @ ..] => container(rest),
        ["egressd-cloud" | "target/release/egressd-cloud", ..] => clap(egressd_cloud::cli::Cli::command(), "egressd-cloud", &words[1..]),
        ["docker", "exec", _, ref rest @ ..] if rest.first() == Some(&"egressd") => clap(Cli::command(), "egressd", &rest[1..]),
        ["make", ref rest @ ..] => rest.iter().filter(|word| !word.contains('=')).try_for_each(|target| make(target)),
        ["helm", "install" | "upgrade", ref rest @ ..] => helm(rest),
        ["cargo", "test", "--test", program, ..] => test(program),
        ["systemctl", ref rest @ ..] | ["systemd-analyze", "security", ref rest @ ..] => rest.iter().try_for_each(|word| unit(word)),
        _ => Ok(()),
    }
}

/// By the definition of the arguments. A request for help is right, too.
fn clap(command: Command, name: &'static str, rest: &[&str]) -> Result<(), String> {
    match command.no_binary_name(true).name(name).try_get_matches_from(rest) {
        Err(error) if ![ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Files of the tree are there.
fn files(words: &[&str]) -> Result<(), String> {
    let of_tree = |word: &&&str| ["examples/", "charts/", "docs/", "tests/"].iter().any(|folder| word.starts_with(folder));
    match words.iter().find(|word| of_tree(word) && !root().join(word).exists()) {
        Some(missing) => Err(format!("there is no {missing}")),
        None => Ok(()),
    }
}

/// Names of the API's resources are those of the definitions.
fn resources(words: &[&str]) -> Result<(), String> {
    let definitions = definitions::all().map(|(_, text)| serde_saphyr::from_str::<Value>(&text).expect("YAML"));
    let known = |word: &str| {
        let name = word.split(['.', '/']).next().unwrap_or(word);
        definitions.iter().any(|one| [&one["spec"]["names"]["plural"], &one["spec"]["names"]["singular"]].contains(&&Value::from(name)))
    };
    let mut listed =
        words.iter().flat_map(|word| word.split(',')).filter(|word| word.starts_with("egress") && !word.starts_with("egressd"));
    match listed.find(|word| !known(word)) {
        Some(word) => Err(format!("there is no resource {word}")),
        None => Ok(()),
    }
}

/// Labels are right; a container of egressd's own image has arguments of egressd's.
fn container(words: &[&str]) -> Result<(), String> {
    if let Some(image) = words.iter().position(|word| word.starts_with("egressd:")) {
        return clap(Cli::command(), "egressd", &words[image + 1..]);
    }
    let pairs = words.iter().zip(words.iter().skip(1).chain([&""]));
    let labels = pairs.filter_map(|(word, next)| word.strip_prefix("--label=").or((*word == "--label").then_some(*next)));
    let labels: BTreeMap<_, _> =
        labels.filter_map(|label| label.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if labels.is_empty() { Ok(()) } else { manifests::container(labels) }
}

fn make(target: &str) -> Result<(), String> {
    let begins = format!("\n{target}:");
    if target.starts_with('-') || text_of("Makefile").contains(&begins) { Ok(()) } else { Err(format!("there is no target {target}")) }
}

/// What is set is a value of the chart.
fn helm(words: &[&str]) -> Result<(), String> {
    let values: Value = serde_saphyr::from_str(&text_of("charts/egressd/values.yaml")).expect("YAML");
    let mut set = words.iter().zip(&words[1..]).filter(|(word, _)| **word == "--set").filter_map(|(_, set)| set.split_once('='));
    set.try_for_each(|(path, _)| match values.pointer(&format!("/{}", path.replace('.', "/"))) {
        Some(_) => Ok(()),
        None => Err(format!("the chart has no value {path}")),
    })
}

fn test(program: &str) -> Result<(), String> {
    let there = [format!("tests/{program}.rs"), format!("tests/{program}/main.rs")].iter().any(|file| root().join(file).exists());
    if there { Ok(()) } else { Err(format!("there is no test program {program}")) }
}

/// Units of ours are among the examples, which packages install.
fn unit(word: &str) -> Result<(), String> {
    let name = word.trim_end_matches(".service");
    let there = !name.starts_with("egressd") || root().join(format!("examples/systemd/{name}.service")).exists();
    if there { Ok(()) } else { Err(format!("there is no unit {name}")) }
}

#[test]
fn a_line_is_taken_apart_as_a_shell_does() {
    let apart = |line: &str| commands(line).iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(apart("A=1 sudo egressd run --x 'a b'&& y; z | q # c; d"), ["egressd|run|--x|a b", "y", "z", "q"]);
    assert_eq!(apart("for i in 1 2; do curl -s x; done"), ["for|i|in|1|2", "curl|-s|x", "done"]);
    assert_eq!(apart("# all of it"), [""; 0]);
}

#[test]
fn what_cannot_be_typed_is_found() {
    for wrong in [
        "egressd statsu",
        "egressd run --manifest /etc/egressd",
        "kubectl egress statuss",
        "kubectl get egressbinding,egresspoolz",
        "docker run --label egress.ip=172.31.0.14 --label egress.gatway=1.2.3.4 x",
        "docker run egressd:0.1.0 run --docker",
        "make paakages",
        "helm install egressd charts/egressd --set imag.repository=x",
        "cargo test --test nothing",
        "systemctl enable egressd-gard",
        "cat examples/none.yaml",
    ] {
        let refused = commands(wrong).iter().try_for_each(|command| typed(command));
        assert!(refused.is_err(), "{wrong}");
    }
}
