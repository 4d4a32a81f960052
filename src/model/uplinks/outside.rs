//! Which routes lead outside: the default routes of every table that a policy rule reaches, and what amounts to one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::facts::{Family, IfIndex, KernelFacts, Route, RouteKind, Rule, RuleAction};
use super::super::ways::Gateway;
use crate::contract::PROTOCOL;

/// Number of the kernel's main route table (`RT_TABLE_MAIN`).
pub const MAIN: u32 = 254;

/// Prefixes no longer than this may be parts of what amounts to a default route.
pub const LARGEST_PART: u8 = 8;

/// A default route, or what amounts to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Default {
    pub family: Family,
    pub interface: IfIndex,
    pub gateway: Gateway,
    /// The address that the route says the host's own packets have (`RTA_PREFSRC`).
    pub source: Option<IpAddr>,
    /// The sources that the route is for, where it is not for all.
    pub from: Option<IpNet>,
    pub metric: u32,
    router_preference: i8,
    /// It is `0.0.0.0/0` or `::/0` itself, for all sources, and not a part.
    whole: bool,
}

/// The tables that some policy rule of somebody else leads to; those of VRFs as well.
pub fn reached(kernel: &KernelFacts) -> BTreeSet<u32> {
    let rules = kernel.rules.iter().filter(|r| is_foreign(r)).map(|r| r.table);
    let vrfs = kernel.links.values().filter_map(|link| link.vrf);
    rules.chain(vrfs).chain([MAIN]).filter(|table| *table != 0).collect()
}

/// The tables that a packet without a mark is looked up in.
fn reached_unmarked(kernel: &KernelFacts) -> BTreeSet<u32> {
    let unmarked = |r: &&Rule| {
        let (mark, mask) = r.selected_mark();
        is_foreign(r) && (r.not || mark & mask == 0)
    };
    kernel.rules.iter().filter(unmarked).map(|r| r.table).chain([MAIN]).filter(|table| *table != 0).collect()
}

fn is_foreign(rule: &Rule) -> bool {
    rule.protocol != PROTOCOL && rule.action == RuleAction::Table
}

/// All default routes, those of main first, then by metric. Routes of ours are none: what egressd wrote is no fact.
pub fn defaults(kernel: &KernelFacts) -> Vec<Default> {
    let tables = reached(kernel);
    let routes = kernel.routes.iter().filter(|r| r.protocol != PROTOCOL && r.kind == RouteKind::Unicast && tables.contains(&r.table));
    let mut all = Vec::new();
    let mut parts: BTreeMap<(Family, u32, IfIndex), (u128, Default)> = BTreeMap::new();
    for route in routes {
        let (family, length) = (Family::of(route.destination.addr()), route.destination.prefix_len());
        if length > LARGEST_PART {
            continue;
        }
        for (address, interface, onlink) in route.hops() {
            let Some(interface) = interface else { continue };
            let gateway = Gateway { address, onlink, mtu: route.mtu(), table: route.table };
            let whole = length == 0 && route.from.is_none() && route.tos == 0;
            let Route { source, from, metric, router_preference, .. } = *route;
            let default = Default { family, interface, gateway, source, from, metric, router_preference, whole };
            if length == 0 {
                all.push(default);
            } else {
                parts.entry((family, route.table, interface)).or_insert((0, default)).0 += size(&route.destination);
            }
        }
    }
    // A VPN that takes everything often leaves the default route alone, and adds halves of it, or all but the private ranges.
    all.extend(parts.into_values().filter(|(covered, part)| *covered >= much_of(part.family)).map(|(_, part)| part));
    all.sort_by_key(|d| (d.gateway.table != MAIN, !d.whole, d.metric, -d.router_preference, d.gateway.table, d.interface));
    all
}

/// How many addresses a prefix has, in units of a 256th of its family's space.
fn size(net: &IpNet) -> u128 {
    1 << (8 - net.prefix_len())
}

/// A quarter of IPv4's space; of IPv6's a sixteenth, since only an eighth of it is given out.
fn much_of(family: Family) -> u128 {
    match family {
        Family::V4 => 64,
        Family::V6 => 16,
    }
}

/// What is inside: what the host reaches without its default routes, and not by an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Destinations by interface: a VPN that takes more than these is none of them.
    pub routes: BTreeSet<(IfIndex, IpNet)>,
    /// The interfaces.
    pub links: BTreeSet<IfIndex>,
    /// Tables besides main that lead there.
    pub tables: BTreeSet<u32>,
}

/// What uplinks lead to that nothing but their other end can send to: tunnels, and other links where nobody asks for neighbours. Who calls from
/// there came by that very link, whichever address was called.
pub fn tunnelled(kernel: &KernelFacts, uplinks: &BTreeSet<IfIndex>) -> BTreeSet<(IfIndex, IpNet)> {
    let tables = reached_unmarked(kernel);
    let is_tunnel = |index: &IfIndex| kernel.links.get(index).is_some_and(|link| link.point_to_point || link.no_arp);
    let tunnels: BTreeSet<IfIndex> = uplinks.iter().copied().filter(is_tunnel).collect();
    let own = |r: &&Route| r.protocol != PROTOCOL && r.kind == RouteKind::Unicast && r.destination.prefix_len() > LARGEST_PART;
    let routes = kernel.routes.iter().filter(|r| tables.contains(&r.table)).filter(own);
    routes.flat_map(|route| route.interfaces().filter(|nic| tunnels.contains(nic)).map(move |nic| (nic, route.destination))).collect()
}

/// What is inside, by every table that a packet without a mark is looked up in.
pub fn inside(kernel: &KernelFacts, uplinks: &BTreeSet<IfIndex>) -> Inside {
    let tables = reached_unmarked(kernel);
    let inner = |r: &&Route| r.protocol != PROTOCOL && r.kind == RouteKind::Unicast && r.destination.prefix_len() > 0;
    let mut all = Inside::default();
    for route in kernel.routes.iter().filter(|r| tables.contains(&r.table)).filter(inner) {
        for interface in route.interfaces().filter(|interface| !uplinks.contains(interface)) {
            all.links.insert(interface);
            all.routes.insert((interface, route.destination));
            all.tables.insert(route.table);
        }
    }
    all.tables.remove(&MAIN);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_comes_before_parts_of_one_and_one_for_some_sources_behind() {
        let route = |net: &str, interface, metric| Route { interface: Some(interface), metric, ..Route::new(MAIN, net.parse().unwrap()) };
        let from = Route { from: "10.1.0.0/16".parse().ok(), ..route("0.0.0.0/0", 4, 0) };
        let halves = ["0.0.0.0/1", "128.0.0.0/1"].map(|half| route(half, 3, 0));
        let mut kernel = KernelFacts::default();
        kernel.routes = halves.into_iter().chain([from, route("0.0.0.0/0", 2, 100)]).collect();
        assert_eq!(defaults(&kernel).iter().map(|default| default.interface).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
