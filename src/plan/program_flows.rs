//! Which open flows of the host's programs have to end.
//!
//! Their source is the host's own and tells no program, so what is left is the exit: flows that were translated to one that no program has
//! any more. Where all who had it are still bound, only those without a connection, whose next packet begins anew, unless a binding of theirs
//! resets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::datapath::{names, programs};
use super::elements::{address_of, number_at, number_in, source_of};
use super::flows::Cut;
use crate::model::binding::ExistingFlows;
use crate::model::resolve::Outcome;
use crate::model::workload::Row;
use crate::nft::{Bytes, Data, Family, Key, Ruleset, Table};

/// The flows that end when `observed` becomes `desired`.
pub fn cuts(observed: &Ruleset, desired: &Ruleset, outcome: &Outcome) -> Vec<Cut> {
    let of = |family: Family, v6| {
        let before = observed.tables.get(&family)?;
        Some(cuts_of(before, desired.tables.get(&family), outcome, v6))
    };
    [of(Family::Ip, false), of(Family::Ip6, true)].into_iter().flatten().flatten().collect()
}

fn cuts_of(before: &Table, after: Option<&Table>, outcome: &Outcome, v6: bool) -> Vec<Cut> {
    let lost = exits(Some(before), v6);
    let left = exits(after, v6);
    let lost: Vec<IpAddr> = lost.difference(&left).copied().collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let still: BTreeSet<Key> = after.into_iter().flat_map(bound).map(|(key, _)| key).collect();
    let resets: BTreeSet<Key> = outcome.programs.rows.iter().filter(|row| resets(row)).filter_map(programs::key_of).collect();
    // Which of those that had an exit began a flow is not known: they all have to be bound still, and to keep what is open.
    let keeps = |exit: IpAddr| holders(before, exit, v6).iter().all(|key| still.contains(key) && !resets.contains(key));
    let own = before.sets.get(names::OWN).into_iter().flat_map(|set| set.elements.keys());
    let own: BTreeSet<IpAddr> = own.filter_map(|key| source_of(key, v6)).map(|(_, address)| address).collect();
    let cut = |source: IpAddr, exit: IpAddr, keeps_open| Cut { only: Some(exit), keeps_open, ..Cut::all(IpNet::from(source)) };
    // What had the address already was not translated.
    let of_exit = |exit: &IpAddr| {
        let (exit, keeps_open) = (*exit, keeps(*exit));
        own.iter().filter(move |source| **source != exit).map(move |source| cut(*source, exit, keeps_open))
    };
    lost.iter().flat_map(of_exit).collect()
}

/// The exits that programs leave by.
fn exits(table: Option<&Table>, v6: bool) -> BTreeSet<IpAddr> {
    let elements = table.and_then(|table| table.sets.get(names::PROGRAM_EXITS)).into_iter().flat_map(|set| set.elements.values());
    elements.filter_map(|data| address_of(data, v6)).collect()
}

/// Users and control groups that left by an exit.
fn holders(table: &Table, exit: IpAddr, v6: bool) -> BTreeSet<Key> {
    let elements = |set: &str| table.sets.get(set).into_iter().flat_map(|set| &*set.elements);
    let leads = elements(names::PROGRAM_EXITS).filter(|(_, data)| address_of(data, v6) == Some(exit));
    let marks: BTreeSet<u32> = leads.filter_map(|(key, _)| number_at(key, size_of::<u32>())).collect();
    let is_one = |data: &Data| number_in(data).is_some_and(|mark| marks.contains(&mark));
    let has = |policy: u32| {
        let own = Key::one(Bytes::of_number(policy));
        let chosen = table.sets.get(names::PROGRAM_MARKS).and_then(|set| set.elements.get(&own));
        chosen.is_some_and(is_one) || elements(&programs::slots(policy)).any(|(_, data)| is_one(data))
    };
    bound(table).filter(|(_, policy)| has(*policy)).map(|(key, _)| key).collect()
}

fn resets(row: &Row) -> bool {
    row.binding.as_ref().is_some_and(|binding| binding.existing_flows == ExistingFlows::Reset)
}

/// Users and control groups that are bound, each with its policy.
fn bound(table: &Table) -> impl Iterator<Item = (Key, u32)> {
    let sets = table.sets.iter().filter(|(name, set)| names::is_of_programs(name) && set.data.is_some());
    let elements = sets.flat_map(|(_, set)| &*set.elements);
    elements.filter_map(|(key, data)| Some((*key, number_in(data).filter(|policy| *policy != 0)?)))
}
