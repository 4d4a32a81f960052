//! Rulesets for the tests of properties.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::build::{iif, rule};
use super::{Base, Bytes, Chain, ChainKind, Data, Datatype, Family, Hook, Key, Rule, Ruleset, Set, Table, Verdict};

fn a_base() -> impl Strategy<Value = Option<Base>> {
    let base = |priority| Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority });
    prop_oneof![6 => Just(None), 1 => Just(base(0)), 1 => Just(base(1))]
}

fn a_set() -> impl Strategy<Value = Set> {
    let elements = btree_map(0_u32..12, 0_u32..4, 0..10);
    (elements, prop_oneof![8 => Just(Datatype::Mark), 1 => Just(Datatype::IfIndex)]).prop_map(|(elements, key)| {
        let elements = elements.into_iter().map(|(key, value)| (Key::one(Bytes::of_number(key)), Data::mark(value)));
        Set { elements: elements.collect(), ..Set::map([key], Datatype::Mark) }
    })
}

/// A table that the kernel could have: rules and verdicts name only what is there.
fn a_table() -> impl Strategy<Value = Table> {
    let names = btree_set("[abcd]", 1..4);
    let sets = btree_map("[pqr]", a_set(), 0..3);
    (names, sets, a_base()).prop_flat_map(|(names, sets, base)| {
        let names: Vec<String> = names.into_iter().collect();
        let set_names: Vec<String> = sets.keys().cloned().collect();
        let rules = vec(vec(a_rule(names.clone(), set_names), 0..4), names.len());
        let verdicts = proptest::option::of(btree_map(0_u32..8, proptest::sample::select(names.clone()), 0..6));
        (rules, verdicts).prop_map(move |(rules, verdicts)| {
            let mut table = Table { chains: BTreeMap::new(), sets: sets.clone() };
            for (name, rules) in names.iter().zip(rules) {
                table.chains.insert(name.clone(), Chain { base: None, rules });
            }
            table.chains.insert("hook".into(), Chain { base, rules: Vec::new() });
            if let Some(verdicts) = verdicts {
                let data = |chain| Data::Verdict(Verdict::Goto(chain));
                let elements = verdicts.into_iter().map(|(key, chain)| (Key::one(Bytes::of_number(key)), data(chain)));
                let map = Set { elements: elements.collect(), ..Set::map([Datatype::IfIndex], Datatype::Verdict) };
                table.sets.insert("verdicts".into(), map);
            }
            table
        })
    })
}

fn a_rule(chains: Vec<String>, sets: Vec<String>) -> impl Strategy<Value = Rule> {
    (any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(index, jump)| match sets.is_empty() {
        false if !jump => rule().found(index.get(&sets[..]).as_str(), [iif()]).accept(),
        _ => rule().jump(index.get(&chains[..]).as_str()),
    })
}

pub fn a_ruleset() -> impl Strategy<Value = Ruleset> {
    let family = prop_oneof![Just(Family::Ip), Just(Family::Bridge)];
    btree_map(family, a_table(), 0..3).prop_map(|tables| Ruleset { tables })
}
