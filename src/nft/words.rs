//! Changes as commands of `nft`, for people: `--dry-run` prints them. Most of them `nft` takes for the same. What it lists and does not read is
//! written as it lists it: a control group by its number, say, or a number from a map that is compared.

use std::fmt::Write as _;

mod rule;
mod value;

pub use value::NameOf;

use super::{Base, ChainKind, Change, Family, Hook, Key, Ruleset, Set};
use crate::contract::TABLE;
use value::{datatype, element};

impl Change {
    /// The change as a command. `ruleset` knows the sets whose elements come and go; `name` the interfaces.
    pub fn words(&self, ruleset: &Ruleset, name: NameOf<'_>) -> String {
        match self {
            Self::AddTable(family) => format!("add table {family} {TABLE}"),
            Self::DeleteTable(family) => format!("delete table {family} {TABLE}"),
            Self::AddSet(family, set, of) => format!("add {} {family} {TABLE} {set} {{ {} }}", noun(of), declared(of)),
            Self::DeleteSet(family, set) => format!("delete set {family} {TABLE} {set}"),
            Self::AddChain(family, chain, None) => format!("add chain {family} {TABLE} {chain}"),
            Self::AddChain(family, chain, Some(base)) => format!("add chain {family} {TABLE} {chain} {{ {} }}", entered(base)),
            Self::FlushChain(family, chain) => format!("flush chain {family} {TABLE} {chain}"),
            Self::DeleteChain(family, chain) => format!("delete chain {family} {TABLE} {chain}"),
            Self::AddRule(family, chain, rule) => {
                format!("add rule {family} {TABLE} {chain} {} comment \"{}\"", rule::words(rule, *family, name), rule.tag)
            }
            Self::AddElements(family, set, elements) => {
                let all = elements.iter().map(|(key, data)| element(of(ruleset, *family, set), key, Some(data), name));
                format!("add element {family} {TABLE} {set} {{ {} }}", joined(all))
            }
            Self::DeleteElements(family, set, keys) => {
                let all = keys.iter().map(|key: &Key| element(of(ruleset, *family, set), key, None, name));
                format!("delete element {family} {TABLE} {set} {{ {} }}", joined(all))
            }
            Self::AddFlowtable(family, flowtable, of) => {
                let devices = joined(of.devices.iter().map(|device| format!("\"{device}\"")));
                format!(
                    "add flowtable {family} {TABLE} {flowtable} {{ hook ingress priority {}; devices = {{ {devices} }}; }}",
                    of.priority
                )
            }
        }
    }
}

fn of<'a>(ruleset: &'a Ruleset, family: Family, set: &str) -> Option<&'a Set> {
    ruleset.tables.get(&family)?.sets.get(set)
}

fn joined(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

fn noun(set: &Set) -> &'static str {
    if set.data.is_some() { "map" } else { "set" }
}

fn declared(set: &Set) -> String {
    let mut words = format!("type {}", set.key.iter().map(|kind| datatype(*kind)).collect::<Vec<_>>().join(" . "));
    if let Some(data) = set.data {
        let _ = write!(words, " : {}", datatype(data));
    }
    words.push(';');
    if set.interval {
        words.push_str(" flags interval;");
    }
    if let Some(most) = set.by_rules {
        let _ = write!(words, " size {most}; flags dynamic,timeout;");
    }
    words
}

fn entered(base: &Base) -> String {
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    format!("type {kind} hook {hook} priority {}; policy accept;", base.priority)
}
