//! The guard from boot on: what is closed before the daemon knows who is who.
//!
//! Nothing of the kernel's survives a reboot, and container engines start containers before anybody can tell whose they are. So names are
//! remembered, which are the same after it: on bridges that were guarded nothing begins a flow out by an uplink.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::chains::REPLY;
use super::tables::inside_set;
use crate::contract::{FLAG, PRIORITY_BOOT_GUARD};
use crate::model::facts::{IfIndex, KernelFacts};
use crate::model::resolve::{Guard, Outcome};
use crate::nft::build::{ct_direction, daddr, iif, iif_name, mark, oif_name, ranges, rule};
use crate::nft::{Chain, ChainKind, Family, Hook, Ruleset, Table};

/// Names that outlive a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// Guarded bridges.
    pub bridges: BTreeSet<String>,
    pub uplinks: BTreeSet<String>,
    /// Subnets that are inside, though an uplink leads to them.
    pub inside: BTreeSet<IpNet>,
}

/// What has to be remembered of an outcome.
pub fn remember(outcome: &Outcome, kernel: &KernelFacts) -> Remembered {
    let name = |index: &IfIndex| kernel.links.get(index).map(|link| link.name.clone());
    let closed = outcome.guards.iter().filter(|(_, guard)| **guard == Guard::Closed);
    Remembered {
        bridges: closed.filter_map(|(bridge, _)| name(bridge)).collect(),
        uplinks: outcome.ground.needed.iter().filter_map(name).collect(),
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
    let mut rules = vec![
        rule().is(mark().and(FLAG), FLAG).accept(),
        rule().is(ct_direction(), REPLY).accept(),
        rule().found(ranges("inside"), [iif(), daddr(v6)]).accept(),
    ];
    for bridge in &remembered.bridges {
        let pair = |uplink: &String| rule().named(iif_name(), bridge).named(oif_name(), uplink).counter().drop();
        rules.extend(remembered.uplinks.iter().map(pair));
    }
    let chain = Chain::base(ChainKind::Filter, Hook::Forward, PRIORITY_BOOT_GUARD, rules);
    Table {
        chains: BTreeMap::from([("boot_guard".to_owned(), chain)]),
        sets: BTreeMap::from([("inside".to_owned(), inside_set(remembered.inside.iter(), v6))]),
    }
}
