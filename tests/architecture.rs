//! What ARCHITECTURE.md says of the tree is so: layers, purity, sizes and numbers. And nothing is in the tree that does not belong there.

use std::collections::{BTreeMap, BTreeSet};
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
    ("facts", &["api", "fnv", "model", "netlink", "own_mark", "wire"]),
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
const HOSTS: [&str; 11] = [
    "docs.cilium.io",
    "docs.docker.com",
    "github.com",
    "go.dev",
    "ifconfig.me",
    "keepachangelog.com",
    "krew.sigs.k8s.io",
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
    assert_eq!(parts("fn f(a: &crate::model::ports::Ports) -> crate::nft::Rule"), ["model", "nft"]);
}

/// The modules of a crate that one of its files names, as paths below the crate: `crate::a::b`, `super::c`, `{d, e::f}` among them.
fn named(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(begin) {
            let whole = !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
            if whole {
                let base = if begin == "crate::" { &[] } else { module };
                follow(if begin == "crate::" { &code[at + 7..] } else { &code[at..] }, base.to_vec(), &mut all);
            }
        }
    }
    all
}

/// One path, or each of a list of them, from its beginning on.
fn follow(text: &str, mut path: Vec<String>, all: &mut Vec<Vec<String>>) {
    let mut rest = text;
    loop {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begin = 0;
            for (at, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        follow(list[begin..at].trim(), path.clone(), all);
                        begin = at + 1;
                        if c == '}' {
                            return;
                        }
                    }
                    _ => {}
                }
            }
            return;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        match &rest[..end] {
            "super" => _ = path.pop(),
            "self" | "" => {}
            name => path.push(name.to_owned()),
        }
        match rest[end..].strip_prefix("::") {
            Some(more) => rest = more,
            None => return all.push(path),
        }
    }
}

/// Each file of a crate by its module, with the files that it imports from: neither those above it nor those below, which are one with it.
fn imports(folder: &str) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let module = |file: &Path| {
        let below = file.strip_prefix(Path::new("src").join(folder)).expect("it is in there").with_extension("");
        let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
        parts
    };
    let mut code: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (file, line) in product(folder).into_iter().filter(|(file, _)| !folder.is_empty() || !file.starts_with("src/cloud")) {
        let code = code.entry(module(&file)).or_default();
        code.push_str(line.trim());
        code.push(' ');
    }
    let of = |module: &Vec<String>, code_of: &str| {
        let files = named(module, code_of)
            .into_iter()
            .filter_map(|path| (1..=path.len()).rev().map(|to| path[..to].to_vec()).find(|path| code.contains_key(path)));
        files.filter(|other| !other.starts_with(module) && !module.starts_with(other)).collect()
    };
    code.iter().map(|(module, text)| (module.clone(), of(module, text))).collect()
}

#[test]
fn no_file_imports_from_one_that_imports_from_it() {
    let mut left = imports("");
    assert!(left[&["plan".to_owned(), "tables".to_owned()].to_vec()].len() > 5, "imports are seen");
    // Whoever imports from nobody that is left is in no circle, and neither is who is imported by nobody.
    loop {
        let imported: BTreeSet<&Vec<String>> = left.values().flatten().collect();
        let is_between =
            |module: &Vec<String>, of: &BTreeSet<Vec<String>>| of.iter().any(|other| left.contains_key(other)) && imported.contains(module);
        let between: BTreeMap<_, _> =
            left.iter().filter(|(module, of)| is_between(module, of)).map(|(module, of)| (module.clone(), of.clone())).collect();
        if between.len() == left.len() {
            break;
        }
        left = between;
    }
    let found: Vec<String> = left
        .iter()
        .map(|(module, of)| {
            let of: Vec<String> = of.iter().filter(|other| left.contains_key(*other)).map(|other| other.join("::")).collect();
            format!("{} imports from {}", module.join("::"), of.join(", "))
        })
        .collect();
    assert_none(&found);
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let module = ["a".to_owned(), "b".to_owned()];
    let of = |code: &str| named(&module, code).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(of("use super::c::{D, e::{F, self}}; use crate::g;"), ["g", "a::c::D", "a::c::e::F", "a::c::e"]);
    assert_eq!(of("fn f(a: &super::super::h::I) -> crate::j::K"), ["j::K", "h::I"]);
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
        PRIORITY_BEHIND_OUTPUT "{}", PRIORITY_ZONES "{}", FAST_TABLE "{}", PRIORITY_FAST "{}", PRIORITY_FLOWTABLE "{}",
        OWN_MARK "{:#010x}", FORWARDED_MARK "{:#010x}", FORWARDED_MASK "{:#010x}",
        PREFERENCE_LOCAL "{}", PREFERENCE_INSIDE "{}", PREFERENCE_WAY "{}", PREFERENCE_FROM "{}", PREFERENCE_FROM_INSIDE "{}", PREFERENCE_FROM_NODES "{}", PREFERENCE_FROM_OWN "{}", PREFERENCE_FROM_WAY "{}",
        PREFERENCE_FROM_MAIN "{}", PREFERENCE_FROM_DEFAULT "{}", PREFERENCE_ROUTE_BACK "{}",
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
