//! Which open flows of the host's programs have to end.
//!
//! Their source is the host's own and tells no program, so what is left is the exit: flows that were translated to one that no program has
//! any more. Where all who had it are still bound, only those without a connection, whose next packet begins anew, unless a binding of theirs
//! resets. Where programs are bound anew, what has no connection and was not translated begins anew, too. Which connections a binding resets
//! is asked of their sockets ([`Resets`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::datapath::names;
use super::datapath::programs::{self, Who};
use super::elements::{address_of, number_at, number_in, source_of};
use super::flows::Cut;
use super::resets::{Resets, is_reset};
use crate::model::resolve::Outcome;
use crate::nft::{Bytes, Family, Key, Ruleset, Table};

/// Users, control groups or all programs that are bound, each with its exits.
type Leads = BTreeMap<Who, BTreeSet<IpAddr>>;

/// The flows that end when `observed` becomes `desired`.
pub fn cuts(observed: &Ruleset, desired: &Ruleset, outcome: &Outcome) -> Vec<Cut> {
    let of = |v6| {
        let [before, after] = tables(observed, desired, v6);
        cuts_of(before, after, outcome, v6)
    };
    [of(false), of(true)].concat()
}

/// The connections that end with that: where the rules end those of others than before, or let others go on.
pub fn resets(observed: &Ruleset, desired: &Ruleset, outcome: &Outcome) -> Option<Resets> {
    let changes = |v6| {
        let [before, after] = tables(observed, desired, v6).map(|table| {
            let sets = table.into_iter().flat_map(|table| &table.sets).filter(|(name, _)| programs::is_of_resets(name));
            sets.map(|(name, set)| (name, &set.elements)).collect::<BTreeMap<_, _>>()
        });
        before != after
    };
    [false, true].into_iter().any(changes).then(|| Resets::of(outcome)).flatten()
}

fn tables<'a>(observed: &'a Ruleset, desired: &'a Ruleset, v6: bool) -> [Option<&'a Table>; 2] {
    [observed, desired].map(|ruleset| ruleset.tables.get(&Family::ip(v6)))
}

fn cuts_of(before: Option<&Table>, after: Option<&Table>, outcome: &Outcome, v6: bool) -> Vec<Cut> {
    let (had, have) = (leads(before, v6), leads(after, v6));
    let (lost, left) = (exits(before, v6), exits(after, v6));
    let lost: Vec<IpAddr> = lost.difference(&left).copied().collect();
    let resets: BTreeSet<Who> = outcome.programs.rows.iter().filter(|row| is_reset(row)).filter_map(programs::who).collect();
    // Which of those that had an exit began a flow is not known: they all have to be bound still, and to keep what is open.
    let keeps = |exit: IpAddr| {
        let mut holders = had.iter().filter(|(_, exits)| exits.contains(&exit)).map(|(who, _)| who);
        holders.all(|who| have.contains_key(who) && !resets.contains(who))
    };
    let own = [before, after].into_iter().flatten().filter_map(|table| table.sets.get(names::OWN));
    let own = own.flat_map(|set| set.elements.keys().filter_map(|key| source_of(key, v6)));
    let own: BTreeSet<IpAddr> = own.map(|(_, address)| address).collect();
    let cut = |source: IpAddr, exit: IpAddr, keeps_open| Cut { only: Some(exit), keeps_open, ..Cut::all(IpNet::from(source)) };
    // What had the address already was not translated.
    let of_exit = |exit: &IpAddr| {
        let (exit, keeps_open) = (*exit, keeps(*exit));
        own.iter().filter(move |source| **source != exit).map(move |source| cut(*source, exit, keeps_open))
    };
    let anew = have.keys().any(|who| !had.contains_key(who));
    let untranslated = own.iter().filter(|_| anew).map(|source| cut(*source, *source, true));
    lost.iter().flat_map(of_exit).chain(untranslated).collect()
}

/// The exits that programs leave by.
fn exits(table: Option<&Table>, v6: bool) -> BTreeSet<IpAddr> {
    let elements = table.and_then(|table| table.sets.get(names::PROGRAM_EXITS)).into_iter().flat_map(|set| set.elements.values());
    elements.filter_map(|data| address_of(data, v6)).collect()
}

fn leads(table: Option<&Table>, v6: bool) -> Leads {
    let Some(table) = table else { return Leads::new() };
    let bound = table.sets.iter().filter(|(name, set)| names::is_of_programs(name) && set.data.is_some());
    let bound = bound.flat_map(|(name, set)| set.elements.iter().map(move |(key, data)| (programs::who_in(name, *key), data)));
    let bound = bound.filter_map(|(who, data)| Some((who, number_in(data).filter(|policy| *policy != 0)?)));
    let mut of: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    bound.map(|(who, policy)| (who, of.entry(policy).or_insert_with(|| exits_of(table, policy, v6)).clone())).collect()
}

/// The exits of a policy.
fn exits_of(table: &Table, policy: u32, v6: bool) -> BTreeSet<IpAddr> {
    let elements = |set: &str| table.sets.get(set).into_iter().flat_map(|set| &*set.elements);
    let chosen = table.sets.get(names::PROGRAM_MARKS).and_then(|set| set.elements.get(&Key::one(Bytes::of_number(policy))));
    let slots = programs::slots(policy);
    let marks: BTreeSet<u32> = chosen.into_iter().chain(elements(&slots).map(|(_, data)| data)).filter_map(number_in).collect();
    let has = |key: &Key| number_at(key, size_of::<u32>()).is_some_and(|mark| marks.contains(&mark));
    elements(names::PROGRAM_EXITS).filter(|(key, _)| has(key)).filter_map(|(_, data)| address_of(data, v6)).collect()
}
