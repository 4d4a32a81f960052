//! What ARCHITECTURE.md says of the tree is so: layers, purity, sizes and numbers. And nothing is in the tree that does not belong there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use egressd::contract;

/// No file of Rust is longer.
const LONGEST: usize = 500;

/// Each layer, and the parts of this crate that it may use besides itself. (`effects` reads Docker's answers with the source's eyes.)
const LAYERS: [(&str, &[&str]); 9] = [
    ("api", &["model"]),
    ("model", &["contract", "fnv"]),
    ("wire", &[]),
    ("nft", &["contract", "fnv", "wire"]),
    ("plan", &["contract", "model", "nft"]),
    ("netlink", &["contract", "model", "wire"]),
    ("facts", &["api", "model", "netlink", "wire"]),
    ("effects", &["api", "contract", "facts", "model", "netlink", "nft", "plan", "report", "wire"]),
    ("report", &["api", "contract", "model"]),
];

/// Layers that touch nothing outside.
const PURE: [&str; 6] = ["api", "cloud/model", "model", "nft", "plan", "wire"];

/// What reaches out of a process, or differs from one run to the next. `std::net` is there for its addresses.
const IMPURE: [&str; 21] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "kube::Api",
    "kube::Client",
    "kube::client",
    "axum::",
    "bollard::",
    "netlink_sys::",
    "nix::",
    "notify::",
    "rtnetlink::",
    "tokio::",
];

/// Hosts that the tree may point at: all are public, and none is a mirror.
const HOSTS: [&str; 10] = [
    "docs.cilium.io",
    "docs.docker.com",
    "github.com",
    "go.dev",
    "ifconfig.me",
    "keepachangelog.com",
    "rustup.rs",
    "semver.org",
    "www.apache.org",
    "www.debian.org",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that is in the tree or could be added to it, but what git ignores, and pictures, which are no text.
fn files() -> Vec<PathBuf> {
    let git = Command::new("git")
        .current_dir(root())
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git is there: the tree came with it");
    assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
    let names = String::from_utf8(git.stdout).expect("names are UTF-8");
    let files: Vec<PathBuf> = names
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|name| root().join(name).is_file())
        .filter(|name| name.extension().is_none_or(|end| end != "png"))
        .collect();
    assert!(files.len() > 50, "the tree is here: {files:?}");
    files
}

fn text(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rust() -> impl Iterator<Item = PathBuf> {
    files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs"))
}

/// The lines of a layer that are built into the product: no tests, no comments.
fn product(layer: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new("src").join(layer);
    let tests = |file: &Path| file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
    let mut lines = Vec::new();
    for file in rust().filter(|file| file.starts_with(&folder) && !tests(file)) {
        let text = text(&file);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        lines.extend(code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| (file.clone(), line.to_owned())));
    }
    assert!(!lines.is_empty(), "there is a layer {layer}");
    lines
}

/// The parts of this crate that a line names: `crate::a::b`, `crate::{a, b}`, `egressd::a`.
fn parts(line: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut all = Vec::new();
    for after in line.split("crate::").skip(1) {
        match after.strip_prefix('{').and_then(|list| list.split('}').next()) {
            Some(list) => all.extend(list.split(',').map(str::trim).map(|item| &item[..word(item)])),
            None => all.push(&after[..word(after)]),
        }
    }
    all
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn pure_layers_touch_nothing_outside() {
    let mut found = Vec::new();
    for layer in PURE {
        for (file, line) in product(layer) {
            // `std::{fs, net}` is `std::fs` as well.
            let spread = line.replace("std::{", "std::").replace(", ", " std::");
            found.extend(
                IMPURE
                    .iter()
                    .filter(|what| line.contains(**what) || (line.contains("std::{") && spread.contains(**what)))
                    .map(|what| format!("{}: {what}: {}", file.display(), line.trim())),
            );
        }
    }
    assert_none(&found);
}

#[test]
fn layers_use_only_what_lies_before_them() {
    let mut found = Vec::new();
    for (layer, may) in LAYERS {
        for (file, line) in product(layer) {
            let wrong = parts(&line).into_iter().filter(|part| *part != layer && !may.contains(part));
            found.extend(wrong.map(|part| format!("{}: {layer} uses {part}: {}", file.display(), line.trim())));
        }
    }
    assert_none(&found);
}

#[test]
fn a_use_of_another_layer_is_seen_however_it_is_written() {
    assert_eq!(parts("use crate::facts::docker;"), ["facts"]);
    assert_eq!(parts("use crate::{model, effects::nft};"), ["model", "effects"]);
    assert_eq!(parts("fn f(a: &crate::model::binding::Ports) -> crate::nft::Rule"), ["model", "nft"]);
}

#[test]
fn every_file_of_rust_says_first_what_it_is_for_and_is_short() {
    let mut found = Vec::new();
    for file in rust() {
        let text = text(&file);
        let length = text.lines().count();
        if !text.starts_with("//! ") {
            found.push(format!("{} does not begin with //!", file.display()));
        }
        if length >= LONGEST {
            found.push(format!("{} has {length} lines; split it", file.display()));
        }
    }
    assert_none(&found);
}

#[test]
fn nothing_unfinished_and_nothing_of_a_machine_is_in_the_tree() {
    // Written in two halves, or they would find themselves.
    let never = [("TO", "DO"), ("FIX", "ME"), ("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("/Us", "ers/"), ("BEGIN ", "PRIVATE")];
    let mut found = Vec::new();
    // go.sum is hashes, which may say anything.
    for file in files().into_iter().filter(|file| !file.ends_with("go.sum")) {
        for (at, line) in text(&file).lines().enumerate() {
            let bad = never.iter().map(|(a, b)| format!("{a}{b}")).find(|word| line.contains(word.as_str()));
            found.extend(bad.map(|word| format!("{}:{}: {word}: {line}", file.display(), at + 1)));
        }
    }
    assert_none(&found);
}

#[test]
fn the_tree_points_only_at_public_places() {
    let mut found = Vec::new();
    for file in files() {
        for (at, line) in text(&file).lines().enumerate() {
            for after in line.split("://").skip(1).filter(|_| line.contains("http://") || line.contains("https://")) {
                let host = after.split(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c)).next().unwrap_or_default();
                // An address, a hole to fill in (`{address}`, `localhost`) or a name for examples (RFC 2606) is no place on the internet.
                let is_place = host.contains(|c: char| c.is_ascii_alphabetic()) && host.contains('.') && !host.ends_with(".example");
                if is_place && !HOSTS.contains(&host) {
                    found.push(format!("{}:{}: {host}", file.display(), at + 1));
                }
            }
        }
    }
    assert_none(&found);
}

/// Name and value of every number, as ARCHITECTURE.md writes them.
macro_rules! numbers {
    ($($name:ident $form:literal),* $(,)?) => { vec![$((stringify!($name), format!($form, contract::$name))),*] };
}

fn numbers() -> Vec<(&'static str, String)> {
    numbers![
        TABLE "{}", FLAG "{:#010x}", WAY "{:#010x}", WAY_MAX "{}", NEIGHBOUR_MASK "{:#010x}", MARK_MASK "{:#010x}", FLAG_MASK "{:#010x}",
        PRIORITY_BRIDGE "{}", PRIORITY_PREROUTING "{}", PRIORITY_OUTPUT "{}", PRIORITY_SNAT "{}", PRIORITY_SEAL "{}", PRIORITY_BOOT_GUARD "{}",
        PRIORITY_DNAT "{}", PRIORITY_INBOUND_SNAT "{}", PRIORITY_BEFORE_FORWARD "{}", PRIORITY_BEHIND_FORWARD "{}", PRIORITY_RATE "{}",
        PRIORITY_BEHIND_OUTPUT "{}", PRIORITY_ZONES "{}",
        FORWARDED_MARK "{:#010x}", FORWARDED_MASK "{:#010x}",
        PREFERENCE_INSIDE "{}", PREFERENCE_WAY "{}", PREFERENCE_FROM_INSIDE "{}", PREFERENCE_FROM_NODES "{}", PREFERENCE_FROM "{}",
        TABLE_BASE "{}", TABLE_NODES "{}", TABLE_ROUTE_BACK "{}", METRIC_LAST "{}", ADDRESS_METRIC "{}", UPLINK_GROUP "{}", HASH_SEED "{:#010x}", PROTOCOL "{}",
    ]
}

#[test]
fn the_table_of_numbers_is_what_the_program_uses() {
    let page = text(Path::new("ARCHITECTURE.md"));
    let mut found = Vec::new();
    for (name, value) in numbers() {
        let row = format!("| `{name}` | `{value}` |");
        if !page.lines().any(|line| line.starts_with(&row)) {
            found.push(format!("ARCHITECTURE.md has no row that begins with {row}"));
        }
    }
    assert_none(&found);
}

#[test]
fn every_number_of_the_contract_is_in_the_table() {
    let known: Vec<&str> = numbers().into_iter().map(|(name, _)| name).collect();
    let contract = text(Path::new("src/contract.rs"));
    let names = contract.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let missing: Vec<String> = names.filter(|name| !known.contains(name)).map(|name| format!("{name} is not in the table")).collect();
    assert_none(&missing);
}

#[test]
fn marks_of_ours_do_not_overlap_those_of_others_that_the_table_calls_clear() {
    let others = [0x4000, 0x8000, 0x2000, 0x0f00, 0x80, 0x00ff_0000, 0xffff_0000];
    assert_eq!((contract::FLAG | contract::WAY) & others.iter().fold(0, |all, one| all | one), 0);
}
