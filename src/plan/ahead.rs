//! What policies leave by, changed ahead of all else that follows from a NIC: whoever has a policy, it is one element.
//!
//! A round for all takes as long as there are workloads. Nobody's new connection waits for that when an exit is lost: its policies go to the next
//! exit that the tables lead to already, or nowhere, and the round decides everything else after that, programs of the host among it.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use super::datapath::names;
use crate::model::policy::{Standing, standing};
use crate::model::resolve::Outcome;
use crate::model::uplinks::{Exit, Uplinks};
use crate::model::ways;
use crate::model::workload::{State, choose};
use crate::nft::{Bytes, Change, Data, Family, Key, Ruleset};

/// The plan for policies whose exits are lost. `outcome` is that of the last round, `uplinks` are those of now; `ruleset` is what the kernel has,
/// and is what it will have once the plan is carried out.
pub fn plan_ahead(outcome: &Outcome, uplinks: &Uplinks, ruleset: &mut Ruleset) -> Plan {
    let lost: BTreeSet<&Exit> = outcome.uplinks.lost(uplinks).collect();
    if lost.is_empty() {
        return Plan::default();
    }
    let before: BTreeSet<&Exit> = outcome.uplinks.exits().collect();
    let is_programmed = |exit: &Exit| before.contains(exit) && outcome.uplinks.ways.get(&exit.way) == uplinks.ways.get(&exit.way);
    let mut moved: BTreeMap<(Family, u32), Option<u8>> = BTreeMap::new();
    for row in &outcome.rows {
        let (State::Bound(exit), Some(binding), Some(net)) = (&row.state, &row.binding, row.address) else { continue };
        if !lost.contains(exit) {
            continue;
        }
        // Which exit of several a flow has is decided beside its policy's way.
        let Standing::Bound(policy) = standing(row) else { continue };
        if outcome.spreads.contains_key(&policy) {
            continue;
        }
        moved.entry((Family::ip(net.addr().is_ipv6()), policy)).or_insert_with(|| match choose(uplinks, binding, net.addr()) {
            State::Bound(next) if is_programmed(&next) => Some(next.way),
            _ => None,
        });
    }
    let mut changes = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let Some(there) = ruleset.tables.get(&family).and_then(|table| table.sets.get(names::POLICY_WAYS)) else { continue };
        let of_family = moved.iter().filter(|((of, _), _)| *of == family);
        let keyed = of_family.map(|((_, policy), way)| (Key::one(Bytes::of_number(*policy)), *way));
        let keyed: Vec<(Key, Option<u8>)> = keyed.filter(|(key, _)| there.elements.contains_key(key)).collect();
        if keyed.is_empty() {
            continue;
        }
        changes.push(Change::DeleteElements(family, names::POLICY_WAYS.to_owned(), keyed.iter().map(|(key, _)| *key).collect()));
        let next: Vec<(Key, Data)> = keyed.into_iter().filter_map(|(key, way)| Some((key, Data::mark(ways::mark(way?))))).collect();
        if !next.is_empty() {
            changes.push(Change::AddElements(family, names::POLICY_WAYS.to_owned(), next));
        }
    }
    ruleset.apply(&changes);
    Plan { ruleset: changes, ..Plan::default() }
}
