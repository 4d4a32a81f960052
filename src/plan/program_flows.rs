//! Which open flows of the host's programs have to end.
//!
//! Their source is the host's own and tells no program, so what is left is the exit: flows that were translated to one that no program has
//! any more. Of programs that are still bound only those without a connection, whose next packet begins anew, unless their binding resets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::datapath::names;
use super::elements::{address_in, number_in, source_of};
use super::flows::Cut;
use crate::model::binding::ExistingFlows;
use crate::model::resolve::Outcome;
use crate::nft::{Data, Family, Key, Ruleset, Table};

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
    let still: BTreeSet<Key> = after.into_iter().flat_map(bound).collect();
    // Which program had which exit is not looked at: they all have to be as before.
    let bound = bound(before).is_subset(&still);
    let resets = |row: &crate::model::workload::Row| row.binding.as_ref().is_some_and(|b| b.existing_flows == ExistingFlows::Reset);
    let keeps_open = bound && !outcome.programs.rows.iter().any(resets);
    let own = before.sets.get(names::OWN).into_iter().flat_map(|set| set.elements.keys());
    let own: BTreeSet<IpAddr> = own.filter_map(|key| source_of(key, v6)).map(|(_, address)| address).collect();
    let cut = |source: IpAddr, exit: IpAddr| Cut { only: Some(exit), keeps_open, ..Cut::all(IpNet::from(source)) };
    // What had the address already was not translated.
    lost.iter().flat_map(|exit| own.iter().filter(move |source| *source != exit).map(move |source| cut(*source, *exit))).collect()
}

/// The exits that programs leave by.
fn exits(table: Option<&Table>, v6: bool) -> BTreeSet<IpAddr> {
    let elements = table.and_then(|table| table.sets.get(names::PROGRAM_EXITS)).into_iter().flat_map(|set| set.elements.values());
    elements.filter_map(|data| if let Data::Value(value) = data { address_in(value.as_slice(), v6) } else { None }).collect()
}

/// Users and control groups that are bound.
fn bound(table: &Table) -> BTreeSet<Key> {
    let sets = table.sets.iter().filter(|(name, set)| names::is_of_programs(name) && set.data.is_some());
    sets.flat_map(|(_, set)| &*set.elements)
        .filter(|(_, data)| number_in(data).is_some_and(|policy| policy != 0))
        .map(|(key, _)| *key)
        .collect()
}
