//! The sets of a table of an ip family, and how they are filled.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::names;
use crate::nft::{Bytes, Chain, Data, Datatype, Key, Set, Table};

/// The empty sets of a table of an ip family.
pub fn sets(v6: bool) -> Sets {
    let address = Datatype::address(v6);
    let source = [Datatype::IfIndex, address];
    let left = [Datatype::IfIndex, Datatype::IfIndex, address];
    Sets::new([
        (names::POLICIES, Set::map(source, Datatype::Mark)),
        (names::POLICIES_NETS, Set::map(source, Datatype::Mark).with_ranges()),
        (names::POLICY_WAYS, Set::map([Datatype::Mark], Datatype::Mark)),
        (names::SPREADS, Set::map([Datatype::Mark], Datatype::Verdict)),
        (names::SOCKET_SPREADS, Set::map([Datatype::Mark], Datatype::Verdict)),
        (names::SPREAD_EXITS, Set::map(left, Datatype::Verdict)),
        (names::SPREAD_EXITS_NETS, Set::map(left, Datatype::Verdict).with_ranges()),
        (names::EXITS, Set::map(left, address)),
        (names::EXITS_NETS, Set::map(left, address).with_ranges()),
        (names::SOURCE_PORTS, Set::map(left, Datatype::Verdict)),
        (names::SOURCE_PORTS_NETS, Set::map(left, Datatype::Verdict).with_ranges()),
        (names::WAYS, Set::map([address], Datatype::Mark)),
        (names::CALLED, Set::map([address], Datatype::Mark)),
        (names::ANSWERED, Set::map([address], Datatype::Mark)),
        (names::OWN, Set::of(source)),
        (names::LIMITED, Set::map(source, Datatype::Verdict)),
        (names::LIMITED_NETS, Set::map(source, Datatype::Verdict).with_ranges()),
        (names::GUARDS, Set::of([Datatype::IfIndex])),
        (names::KNOWN, Set::of(source)),
        (names::CLAIMED, Set::of(source).with_ranges()),
        (names::DEPARTED, Set::of(source)),
        (names::FELL_BACK, Set::of(source)),
        (names::FELL_BACK_NETS, Set::of(source).with_ranges()),
        (names::PROGRAM_MARKS, Set::map([Datatype::Mark], Datatype::Mark)),
        (names::PROGRAM_EXITS, Set::map([Datatype::IfIndex, Datatype::Mark], address)),
        (names::PROGRAM_PORTS, Set::map([Datatype::IfIndex, Datatype::Mark], Datatype::Verdict)),
        (names::PROGRAM_SPREADS, Set::map([Datatype::Mark], Datatype::Verdict)),
        (names::TUNNELLED, Set::of(source).with_ranges()),
        (names::INSIDE_LINKS, Set::of([Datatype::IfIndex])),
        (names::INSIDE_HOSTS, Set::of(source)),
        (names::INSIDE_ROUTES, Set::of(source).with_ranges()),
        (names::INSIDE, Set::of(source).with_ranges()),
    ])
}

/// The sets of one table while they are filled. Their elements are put in order at the end, which takes less time than one by one.
#[derive(Debug)]
pub struct Sets(HashMap<&'static str, Filled>);

/// A set, and its elements as they came.
#[derive(Debug)]
struct Filled {
    set: Set,
    elements: Vec<(Key, Data)>,
}

impl Sets {
    pub fn new<const N: usize>(sets: [(&'static str, Set); N]) -> Self {
        Self(sets.into_iter().map(|(name, set)| (name, Filled { set, elements: Vec::new() })).collect())
    }

    /// Adds an element. What is there already stays: two that differ are a mistake of the plan, and the first is the one that was asked for.
    pub fn put(&mut self, set: &str, key: Key, data: Data) {
        self.0.get_mut(set).expect("one of the table's sets").elements.push((key, data));
    }

    /// Adds an element whose key is a single value.
    pub fn one(&mut self, set: &str, key: Bytes, data: Data) {
        self.put(set, Key::one(key), data);
    }

    /// The table of these sets.
    pub fn with(self, chains: BTreeMap<String, Chain>) -> Table {
        let ordered = |(name, Filled { set, mut elements }): (&str, Filled)| {
            elements.sort_by_key(|(key, _)| *key);
            elements.dedup_by_key(|(key, _)| *key);
            (name.to_owned(), Set { elements: elements.into_iter().collect(), ..set })
        };
        Table { chains, sets: self.0.into_iter().map(ordered).collect() }
    }
}
