//! What a host's network is set to, in a form that can be compared: did somebody leave something behind?
//!
//! Taken out is what changes by itself: handles, counters, times, the lifetimes of addresses, and the random names and numbers
//! of interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{command, machine::Machine};

/// A host's rulesets, policy rules, routes, links with their groups, addresses and sysctls, as lines by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    lines: BTreeMap<&'static str, Vec<String>>,
    bridges: Vec<String>,
}

impl Machine {
    /// The host's present state.
    pub fn state(&self) -> State {
        self.enter(State::take)
    }
}

impl State {
    fn take() -> Self {
        await_addresses();
        let names = Names::read();
        let mut state = BTreeMap::new();
        state.insert("nftables", nftables(&names));
        for save in ["iptables-save", "ip6tables-save"] {
            state.insert(save, saved(&command::run(&[save]), &names));
        }
        for (kind, arguments) in [
            ("rules", ["-4", "rule", "show"].as_slice()),
            ("rules, IPv6", &["-6", "rule", "show"]),
            ("routes", &["-4", "route", "show", "table", "all"]),
            ("routes, IPv6", &["-6", "route", "show", "table", "all"]),
            ("addresses", &["address", "show"]),
        ] {
            let printed = command::run(&[&["ip", "-o", "-d"], arguments].concat());
            state.insert(kind, printed.lines().map(|line| names.replace(&without_times(line))).collect());
        }
        state.insert("links", links(&names));
        state.insert("sysctls", sysctls(&names));
        for kind in ["routes", "routes, IPv6", "sysctls", "links", "addresses"] {
            state.get_mut(kind).expect("it was inserted").sort_unstable();
        }
        let bridges = link_objects().into_iter().filter(|link| link["linkinfo"]["info_kind"] == "bridge");
        Self { lines: state, bridges: bridges.filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect() }
    }

    /// The same without what a Docker engine changes when it or its containers start again: its own tables and chains, but not
    /// `DOCKER-USER`, which is everybody's; hairpin rules; the containers' interfaces; routes of bridges in the kernel's own
    /// tables; and the order, because it puts its masquerade rules in anew.
    #[must_use]
    pub fn without_docker(mut self) -> Self {
        for (kind, lines) in &mut self.lines {
            let routes = kind.starts_with("routes");
            let of_bridge = |line: &String| {
                let dev = |bridge: &String| line.contains(&format!(" dev {bridge} "));
                self.bridges.iter().any(dev) && [" table main ", " table local "].iter().any(|table| line.contains(table))
            };
            lines.retain(|line| !is_dockers(line) && (!routes || !of_bridge(line)));
            lines.sort_unstable();
        }
        self
    }

    /// What `later` lacks (`-`) and what it has in addition (`+`), by kind.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let mut difference = Vec::new();
        for (kind, before) in &self.lines {
            let after = &later.lines[kind];
            let (mut gone, mut new) = (before.clone(), after.clone());
            new.retain(|line| take(&mut gone, line).is_none());
            if gone.is_empty() && new.is_empty() && before != after {
                difference.push(format!("{kind}: the same lines in another order"));
            }
            difference.extend(gone.iter().map(|line| format!("{kind}: - {line}")));
            difference.extend(new.iter().map(|line| format!("{kind}: + {line}")));
        }
        difference
    }

    /// Panics with the difference, if there is one.
    pub fn assert_same(&self, later: &Self, what: &str) {
        let difference = self.difference(later);
        assert!(difference.is_empty(), "{what}:\n{}", difference.join("\n"));
    }
}

fn is_dockers(line: &str) -> bool {
    let names = line.replace("DOCKER-USER", "");
    let own = names.contains("DOCKER") || names.contains("docker-bridges");
    let hairpin = names.contains("MASQUERADE")
        && (names.contains("-s ") && names.contains("-d ") || names.contains("\"saddr\"") && names.contains("\"daddr\""));
    own || hairpin || names.contains(CONTAINER_SIDE)
}

/// What stands for the random name of a container's interface, with the bridge that it is on.
const CONTAINER_SIDE: &str = "veth-on-";

/// Waits for the kernel's own IPv6 addresses, which come a second or two after their links are up.
fn await_addresses() {
    let start = Instant::now();
    loop {
        let printed = command::run(&["ip", "-6", "-j", "address", "show", "tentative"]);
        let links: Value = serde_json::from_str(&printed).expect("ip prints JSON");
        let waiting = links.as_array().into_iter().flatten().any(|link| link["operstate"] == "UP");
        if !waiting {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "still tentative: {links}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn take(lines: &mut Vec<String>, line: &str) -> Option<String> {
    let index = lines.iter().position(|other| other == line)?;
    Some(lines.remove(index))
}

/// Random names of interfaces (Docker's veths), each replaced by one that says where it is attached.
struct Names(Vec<(String, String)>);

impl Names {
    fn read() -> Self {
        let mut names: Vec<(String, String)> = link_objects()
            .iter()
            .filter_map(|link| {
                let name = link["ifname"].as_str()?;
                let master = link["master"].as_str().unwrap_or("nothing");
                name.starts_with("veth").then(|| (name.to_owned(), format!("{CONTAINER_SIDE}{master}")))
            })
            .collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self(names)
    }

    fn replace(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, place)| text.replace(name, place))
    }
}

fn link_objects() -> Vec<Value> {
    let printed = command::run(&["ip", "-j", "-d", "link", "show"]);
    serde_json::from_str(&printed).expect("ip prints JSON")
}

fn links(names: &Names) -> Vec<String> {
    let kept = ["ifname", "flags", "mtu", "qdisc", "operstate", "group", "link_type", "master", "promiscuity", "linkinfo"];
    let lines = link_objects().into_iter().map(|link| {
        let link: BTreeMap<&str, &Value> = kept.iter().map(|key| (*key, &link[*key])).collect();
        let mut link = serde_json::to_value(link).expect("it came from JSON");
        // Timers and identities of bridges and their ports.
        if let Some(info) = link["linkinfo"].as_object_mut() {
            info.retain(|key, _| key == "info_kind" || key == "info_slave_kind");
        }
        names.replace(&link.to_string())
    });
    lines.collect()
}

fn nftables(names: &Names) -> Vec<String> {
    let printed = command::run(&["nft", "-j", "list", "ruleset"]);
    let mut ruleset: Value = serde_json::from_str(&printed).expect("nft prints JSON");
    let objects = ruleset["nftables"].as_array_mut().expect("nft lists objects");
    objects.retain(|object| object.get("metainfo").is_none());
    objects.iter_mut().for_each(without_counters);
    objects.iter_mut().for_each(without_flags);
    objects.iter().map(|object| names.replace(&object.to_string())).chain(dormant()).collect()
}

/// Handles tell the order of creation, counters the traffic, and elements that rules put into a set come and go by themselves.
fn without_counters(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("handle");
            fields.remove("expires");
            if let Some(counter) = fields.get_mut("counter")
                && counter.get("packets").is_some()
            {
                *counter = Value::Null;
            }
            // nft 1.0.6 leaves the flag "dynamic" out; whatever rules put in has a timeout.
            if fields.get("flags").is_some_and(|flags| flags.to_string().contains("\"timeout\"")) {
                fields.remove("elem");
            }
            if let Some(Value::Array(elements)) = fields.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
            fields.values_mut().for_each(without_counters);
        }
        Value::Array(values) => values.iter_mut().for_each(without_counters),
        _ => {}
    }
}

/// The flags of tables are taken out: nft 1.0.6 prints wrong ones as JSON, and `owner` only tells whether the program that
/// holds the table lives. The one that is a setting is read by [`dormant`].
fn without_flags(object: &mut Value) {
    if let Some(table) = object.get_mut("table").and_then(Value::as_object_mut) {
        table.remove("flags");
    }
}

/// The tables that are switched off.
fn dormant() -> Vec<String> {
    let (mut table, mut dormant) = (String::new(), Vec::new());
    for line in command::run(&["nft", "-t", "list", "ruleset"]).lines() {
        if line.starts_with("table ") {
            line.clone_into(&mut table);
        } else if line.trim_start().starts_with("flags ") && line.contains("dormant") {
            dormant.push(format!("dormant: {table}"));
        }
    }
    dormant
}

fn saved(printed: &str, names: &Names) -> Vec<String> {
    let rules = printed.lines().filter(|line| !line.starts_with('#'));
    rules.map(|line| names.replace(line.split(" [").next().unwrap_or(line))).collect()
}

/// Numbers that count down, and interface numbers, which are never the same twice.
fn without_times(line: &str) -> String {
    let mut kept = String::new();
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let number = word.strip_suffix(':').is_some_and(|number| number.parse::<u32>().is_ok()) && kept.is_empty();
        let rule = number && matches!(words.peek(), Some(&"from" | &"not"));
        if matches!(word, "valid_lft" | "preferred_lft" | "expires") {
            words.next();
        } else if !number || rule {
            let _ = write!(kept, "{word} ");
        }
    }
    kept.trim_end().to_owned()
}

fn sysctls(names: &Names) -> Vec<String> {
    let mut found = BTreeSet::new();
    read_sysctls(Path::new("/proc/sys/net"), &mut found);
    found.into_iter().map(|(path, value)| names.replace(&format!("{path} = {value}"))).collect()
}

fn read_sysctls(folder: &Path, found: &mut BTreeSet<(String, String)>) {
    // Counts of what is there now, and a random secret.
    const MOVING: [&str; 3] = ["nf_conntrack_count", "stable_secret", "nf_conntrack_buckets"];
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder that can be opened can be read").path();
        if path.is_dir() {
            read_sysctls(&path, found);
        } else if !MOVING.iter().any(|name| path.ends_with(name)) {
            // Some can only be written.
            if let Ok(value) = fs::read_to_string(&path) {
                found.insert((path.to_string_lossy().into_owned(), value.trim().to_owned()));
            }
        }
    }
}
