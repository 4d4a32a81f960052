//! What changes for some containers, where everybody else's part of the tables stays as it is.

use std::collections::BTreeMap;

use super::datapath::{self, Shape, names};
use super::tables::{self, Departed};
use super::{Plan, flows};
use crate::model::facts::KernelFacts;
use crate::model::resolve::Outcome;
use crate::model::resolve::few::Changed;
use crate::nft::{Change, Data, Family, Ruleset, Table, diff};

/// The plan for what has changed of an outcome. `ruleset` is what the kernel has, and is what it will have once the plan is carried out.
pub fn plan_few(outcome: &Outcome, kernel: &KernelFacts, ruleset: &mut Ruleset, changed: &Changed, departed: &Departed) -> Plan {
    let before = as_they_were(outcome, kernel, ruleset, changed);
    let mut after = tables::of_rows(outcome, &changed.after, kernel);
    let mut departed = departed.clone();
    departed.extend(flows::departures(&before, &after));
    // Without tables nobody is held.
    after.tables.retain(|family, _| ruleset.tables.contains_key(family));
    tables::hold(&mut after, &departed);
    let mut changes = diff(&after, &before);
    let cuts = flows::cuts(changes.iter(), (&before, &after), outcome, &changed.after);
    let shapes = shapes(ruleset);
    ruleset.apply(&changes);
    let chains = chains(&shapes, ruleset);
    ruleset.apply(&chains);
    changes.extend(chains);
    Plan { ruleset: changes, cuts, departed, ..Plan::default() }
}

/// What the tables have of rows until now. Who owns which address may have been decided by links that are gone, so it is looked up.
fn as_they_were(outcome: &Outcome, kernel: &KernelFacts, ruleset: &Ruleset, changed: &Changed) -> Ruleset {
    let mut before = tables::of_rows(outcome, &changed.before, kernel);
    before.tables.retain(|family, _| ruleset.tables.contains_key(family));
    for (family, table) in &mut before.tables {
        let there = &ruleset.tables[family];
        if *family != Family::Bridge {
            table.sets.extend(there.sets.get(names::DEPARTED).map(|set| (names::DEPARTED.to_owned(), set.clone())));
            continue;
        }
        table.sets.values_mut().for_each(|set| set.elements.clear());
        for address in &changed.addresses {
            let near = kernel.near_ends_of(*address).map(|link| link.index);
            let ports = near.chain(changed.ports.iter().copied()).collect();
            for (name, keys) in tables::owner_keys(&ports, *address) {
                let (Some(there), Some(set)) = (there.sets.get(name), table.sets.get_mut(name)) else { continue };
                set.elements.extend(keys.into_iter().filter(|key| there.elements.contains_key(key)).map(|key| (key, Data::None)));
            }
        }
    }
    before
}

fn shapes(ruleset: &Ruleset) -> BTreeMap<Family, Shape> {
    let ip = ruleset.tables.iter().filter(|(family, _)| matches!(family, Family::Ip | Family::Ip6));
    ip.map(|(family, table)| (*family, Shape::of(&table.sets, *family == Family::Ip6))).collect()
}

/// The chains that change because a set is empty now, or is not any more.
fn chains(before: &BTreeMap<Family, Shape>, ruleset: &Ruleset) -> Vec<Change> {
    let after = shapes(ruleset);
    let of = |shapes: &BTreeMap<Family, Shape>| {
        let other = shapes.iter().filter(|(family, _)| before.get(family) != after.get(family));
        let table = |shape: &Shape| Table { chains: datapath::chains(*shape), sets: BTreeMap::new() };
        Ruleset { tables: other.map(|(family, shape)| (*family, table(shape))).collect() }
    };
    diff(&of(&after), &of(before))
}
