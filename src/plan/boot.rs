//! The guard from boot on: what is closed before the daemon knows who is who.
//!
//! Nothing of the kernel's survives a reboot, and container engines start containers before anybody can tell whose they are. So names are
//! remembered, which are the same after it: on bridges that were guarded nothing begins a flow out by an uplink.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::datapath::{REPLY, drops, names};
use super::tables::inside_set;
use crate::contract::{FLAG, FLAG_MASK, PRIORITY_BOOT_GUARD};
use crate::model::facts::{IfIndex, KernelFacts, LinkKind};
use crate::model::resolve::{Guard, Outcome};
use crate::nft::build::{ct_direction, daddr, iif, iif_name, mark, oif_name, ranges, rule, saddr};
use crate::nft::{Chain, ChainKind, Family, Hook, Ruleset, Table};

/// Names that outlive a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Guarded bridges.
    pub bridges: BTreeSet<String>,
    /// Interfaces that lead to what is inside.
    #[serde(default)]
    pub links: BTreeSet<String>,
    /// Subnets that are inside, though an uplink leads to them.
    pub inside: BTreeSet<IpNet>,
}

/// What has to be remembered of an outcome.
pub fn remember(outcome: &Outcome, kernel: &KernelFacts) -> Remembered {
    let name = |index: &IfIndex| kernel.links.get(index).map(|link| link.name.clone());
    // A workload's link has another name after a reboot, and no workload.
    let outlives = |index: &&IfIndex| kernel.links.get(index).is_some_and(|link| link.kind != LinkKind::Veth);
    let faces = |bridge| outcome.faces.get(bridge).into_iter().flatten().filter(outlives);
    let closed = outcome.guards.iter().filter(|(_, guard)| **guard == Guard::Closed);
    Remembered {
        // What is above a bridge, a VLAN for instance, is what a packet comes in by.
        bridges: closed.flat_map(|(bridge, _)| [bridge].into_iter().chain(faces(bridge))).filter_map(name).collect(),
        links: outcome.uplinks.inside.links.iter().filter(|index| outlives(index)).filter_map(name).collect(),
        inside: BTreeSet::clone(&outcome.inside),
    }
}

/// The tables that stand until the daemon has made its own.
pub fn ruleset(remembered: &Remembered) -> Ruleset {
    if remembered.bridges.is_empty() {
        return Ruleset::default();
    }
    Ruleset { tables: BTreeMap::from([(Family::Ip, table(remembered, false)), (Family::Ip6, table(remembered, true))]) }
}

fn table(remembered: &Remembered, v6: bool) -> Table {
    let begins = |bridge: &String| rule().named(iif_name(), bridge).goto("boot_guarded");
    let rules: Vec<_> = [rule().is(mark().and(FLAG_MASK), FLAG).accept(), rule().is(ct_direction(), REPLY).accept()].into();
    let rules: Vec<_> = rules.into_iter().chain(remembered.bridges.iter().map(begins)).collect();
    // What is known to be inside, and nothing else: an uplink may have another name by now.
    let mut guarded = vec![rule().found(ranges(names::INSIDE), [iif(), daddr(v6)]).accept()];
    let inside: BTreeSet<&String> = remembered.links.iter().chain(&remembered.bridges).collect();
    guarded.extend(inside.into_iter().map(|link| rule().named(oif_name(), link).accept()));
    let mut table = Table::default();
    let dropped = drops::add_end(&mut table, (drops::GUARD, "boot"), v6, [iif(), saddr(v6)], rule().counter(drops::GUARD).drop());
    guarded.push(rule().goto(&dropped));
    let chain = Chain::base(ChainKind::Filter, Hook::Forward, PRIORITY_BOOT_GUARD, rules);
    table.chains.extend([("boot_guard".to_owned(), chain), ("boot_guarded".to_owned(), Chain::regular(guarded))]);
    table.sets.insert(names::INSIDE.to_owned(), inside_set(remembered.inside.iter(), v6));
    table
}
