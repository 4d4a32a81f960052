//! What has to change so that an observed ruleset becomes the desired one.
//!
//! The changes of a table stand in an order that the kernel accepts as one batch: nothing is named before it is there, and nothing goes
//! while something names it.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Chain, Change, Data, Elements, Family, Key, Ruleset, Set, Table};

/// The changes that make `observed` into `desired`: none when they are equal. To be committed as one batch.
pub fn diff(desired: &Ruleset, observed: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let empty = Table::default();
    for step in walk(&desired.tables, &observed.tables) {
        match step {
            Step::Surplus(family, _) => changes.push(Change::DeleteTable(*family)),
            Step::Missing(family, wanted) => {
                changes.push(Change::AddTable(*family));
                diff_table(*family, wanted, &empty, &mut changes);
            }
            Step::Both(family, wanted, present) if can_become(wanted, present) => {
                diff_table(*family, wanted, present, &mut changes);
            }
            Step::Both(family, wanted, _) => {
                changes.push(Change::DeleteTable(*family));
                changes.push(Change::AddTable(*family));
                diff_table(*family, wanted, &empty, &mut changes);
            }
        }
    }
    changes
}

/// A chain's hook and a set's type are for its lifetime. When one differs the whole table is made anew, which is one batch as well and
/// spares finding out what hangs on it.
fn can_become(wanted: &Table, present: &Table) -> bool {
    let chains = walk(&wanted.chains, &present.chains).all(|step| match step {
        Step::Both(_, wanted, present) => wanted.base == present.base,
        _ => true,
    });
    let sets = walk(&wanted.sets, &present.sets).all(|step| match step {
        Step::Both(_, wanted, present) => same_type(wanted, present),
        _ => true,
    });
    chains && sets
}

fn same_type(a: &Set, b: &Set) -> bool {
    (&a.key, a.data, a.interval, a.by_rules) == (&b.key, b.data, b.interval, b.by_rules)
}

fn diff_table(family: Family, wanted: &Table, present: &Table, changes: &mut Vec<Change>) {
    for step in walk(&wanted.sets, &present.sets) {
        if let Step::Missing(name, set) = step {
            changes.push(Change::AddSet(family, name.clone(), typed(set)));
        }
    }
    for step in walk(&wanted.chains, &present.chains) {
        match step {
            Step::Missing(name, chain) => changes.push(Change::AddChain(family, name.clone(), chain.base)),
            // A surplus chain is emptied too: its rules may name other things that go.
            Step::Surplus(name, chain) if !chain.rules.is_empty() => {
                changes.push(Change::FlushChain(family, name.clone()));
            }
            Step::Both(name, wanted, present) if must_flush(wanted, present) => {
                changes.push(Change::FlushChain(family, name.clone()));
            }
            Step::Surplus(..) | Step::Both(..) => {}
        }
    }
    diff_elements(family, wanted, present, changes);
    for step in walk(&wanted.chains, &present.chains) {
        let (name, rules) = match step {
            Step::Missing(name, chain) => (name, &chain.rules),
            Step::Both(name, wanted, present) if wanted.rules != present.rules => (name, &wanted.rules),
            Step::Surplus(..) | Step::Both(..) => continue,
        };
        for rule in rules {
            changes.push(Change::AddRule(family, name.clone(), rule.clone()));
        }
    }
    for step in walk(&wanted.sets, &present.sets) {
        if let Step::Surplus(name, _) = step {
            changes.push(Change::DeleteSet(family, name.clone()));
        }
    }
    for step in walk(&wanted.chains, &present.chains) {
        if let Step::Surplus(name, _) = step {
            changes.push(Change::DeleteChain(family, name.clone()));
        }
    }
}

fn must_flush(wanted: &Chain, present: &Chain) -> bool {
    wanted.rules != present.rules && !present.rules.is_empty()
}

/// Everything that goes ahead of everything that comes: a new range may overlap an old one.
fn diff_elements(family: Family, wanted: &Table, present: &Table, changes: &mut Vec<Change>) {
    let none = Elements::default();
    let mut additions = Vec::new();
    for step in walk(&wanted.sets, &present.sets) {
        let (name, wanted, present) = match step {
            Step::Missing(name, set) => (name, &set.elements, &none),
            Step::Both(name, wanted, present) => (name, &wanted.elements, &present.elements),
            // Taken out one by one, for kernels that let a set go only when its verdicts name no chain.
            Step::Surplus(name, set) => (name, &none, &set.elements),
        };
        let (gone, new) = elements(wanted, present);
        if !gone.is_empty() {
            changes.push(Change::DeleteElements(family, name.clone(), gone));
        }
        if !new.is_empty() {
            additions.push(Change::AddElements(family, name.clone(), new));
        }
    }
    changes.append(&mut additions);
}

fn elements(wanted: &Elements, present: &Elements) -> (Vec<Key>, Vec<(Key, Data)>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    if wanted.is_shared_with(present) {
        return (gone, new);
    }
    for step in walk(wanted, present) {
        match step {
            Step::Missing(key, data) => new.push((*key, data.clone())),
            Step::Surplus(key, _) => gone.push(*key),
            Step::Both(key, wanted, present) if wanted != present => {
                gone.push(*key);
                new.push((*key, wanted.clone()));
            }
            Step::Both(..) => {}
        }
    }
    (gone, new)
}

fn typed(set: &Set) -> Set {
    Set { elements: Elements::default(), ..set.clone() }
}

enum Step<'a, K, V> {
    Missing(&'a K, &'a V),
    Surplus(&'a K, &'a V),
    Both(&'a K, &'a V, &'a V),
}

/// Goes through two maps side by side, in the order of their keys.
fn walk<'a, K: Ord, V>(wanted: &'a BTreeMap<K, V>, present: &'a BTreeMap<K, V>) -> impl Iterator<Item = Step<'a, K, V>> {
    let (mut left, mut right) = (wanted.iter().peekable(), present.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => left.next().map(|(key, value)| Step::Missing(key, value)),
            Ordering::Greater => right.next().map(|(key, value)| Step::Surplus(key, value)),
            Ordering::Equal => {
                let (key, wanted) = left.next()?;
                let (_, present) = right.next()?;
                Some(Step::Both(key, wanted, present))
            }
        }
    })
}
