//! The way: policy rules, one route table for each uplink and one for what is behind other nodes, link groups and sysctls.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::net::IpAddr;

use ipnet::IpNet;

use super::step::RouteStep;
use crate::contract::{
    FLAG, METRIC_LAST, PACKET_MASK, PREFERENCE_FROM, PREFERENCE_FROM_INSIDE, PREFERENCE_FROM_NODES, PREFERENCE_INSIDE, PREFERENCE_NIC,
    PROTOCOL, TABLE_BASE, TABLE_NODES, UPLINK_GROUP,
};
use crate::model::facts::{Family, KernelFacts, Route, RouteKind, Rule};
use crate::model::ground::{MAIN, Uplink, family};
use crate::model::resolve::Outcome;
use crate::model::workload::State;

/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// The kernel's own metric for IPv6 routes.
const METRIC_V6: u32 = 1024;

/// Routes and rules as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<Rule>,
    /// Uplinks that get our group.
    pub groups: BTreeSet<u32>,
}

impl Routing {
    /// What an outcome needs; nothing when nothing is bound.
    pub fn desired(outcome: &Outcome, kernel: &KernelFacts) -> Self {
        let uplinks = &outcome.ground.uplinks;
        let mut routing = Self::default();
        if uplinks.is_empty() {
            return routing;
        }
        // A group that somebody else gave a NIC stays; `check` tells what that costs.
        routing.groups = uplinks.values().filter(|u| u.group == 0 || u.group == UPLINK_GROUP).map(|u| u.index).collect();
        for family in families(outcome) {
            routing.rules.insert(Rule { mark: Some(FLAG), mask: Some(FLAG), ..inside(family, PREFERENCE_INSIDE) });
            routing.rules.insert(by_mark(family, 0));
            routing.routes.insert(last(family, TABLE_BASE));
            for uplink in uplinks.values() {
                routing.rules.insert(by_mark(family, uplink.number));
                routing.routes.insert(last(family, uplink.table()));
                if uplink.up {
                    routing.routes.extend(copies(kernel, uplink, family));
                    routing.routes.extend(default_route(uplink, family));
                }
            }
        }
        let nodes = behind_nodes(outcome, kernel);
        let reached: BTreeSet<Family> = nodes.iter().map(|r| family(r.destination.addr())).collect();
        routing.routes.extend(nodes);
        for (address, nic) in &outcome.ground.held {
            let Some(uplink) = uplinks.get(nic) else { continue };
            let from = Some(IpNet::from(*address));
            routing.rules.insert(Rule { from, ..inside(family(*address), PREFERENCE_FROM_INSIDE) });
            if reached.contains(&family(*address)) {
                routing.rules.insert(Rule { from, ..rule(family(*address), PREFERENCE_FROM_NODES, TABLE_NODES) });
            }
            routing.rules.insert(Rule { from, ..rule(family(*address), PREFERENCE_FROM, uplink.table()) });
        }
        routing
    }

    /// What of ours the kernel has.
    pub fn observed(kernel: &KernelFacts) -> Self {
        let ours = |r: &&Route| r.protocol == PROTOCOL && (TABLE_BASE..=TABLE_NODES).contains(&r.table);
        Self {
            routes: kernel.routes.iter().filter(ours).map(comparable).collect(),
            rules: kernel.rules.iter().filter(|r| r.protocol == PROTOCOL).cloned().collect(),
            groups: kernel.links.values().filter(|l| l.group == UPLINK_GROUP).map(|l| l.index).collect(),
        }
    }

    /// Steps that add (tables before the rules that lead there) and steps that take away (in reverse): the first before, the second
    /// after the rules that mark packets.
    pub fn steps(&self, observed: &Self, kernel: &KernelFacts) -> (Vec<RouteStep>, Vec<RouteStep>) {
        let mut before: Vec<RouteStep> = Vec::new();
        let group = |index: &u32, group| RouteStep::SetGroup { index: *index, group };
        before.extend(self.groups.difference(&observed.groups).map(|i| group(i, UPLINK_GROUP)));
        // The last route first: at no moment does a table end in nothing.
        let mut routes: Vec<_> = self.routes.difference(&observed.routes).cloned().collect();
        routes.sort_by_key(|r| (r.kind == RouteKind::Unicast, r.gateway.is_some()));
        before.extend(routes.into_iter().map(RouteStep::AddRoute));
        before.extend(self.rules.difference(&observed.rules).cloned().map(RouteStep::AddRule));
        let mut after: Vec<RouteStep> = Vec::new();
        after.extend(observed.rules.difference(&self.rules).cloned().map(RouteStep::DeleteRule));
        let replaced = |gone: &&Route| !self.routes.iter().any(|r| same_slot(r, gone));
        let gone = observed.routes.difference(&self.routes).filter(replaced);
        after.extend(gone.cloned().map(RouteStep::DeleteRoute));
        after.extend(observed.groups.difference(&self.groups).filter(|i| kernel.links.contains_key(i)).map(|i| group(i, 0)));
        (before, after)
    }
}

/// Two routes that cannot stand side by side: adding the one replaces the other.
fn same_slot(a: &Route, b: &Route) -> bool {
    let slot = |r: &Route| (r.table, r.destination, r.from, r.tos, r.metric);
    slot(a) == slot(b)
}

/// What the kernel adds of its own is taken out: lifetimes, and the loopback that IPv6 names for an unreachable route.
fn comparable(route: &Route) -> Route {
    let interface = route.interface.filter(|_| route.kind == RouteKind::Unicast);
    Route { expires: None, interface, ..route.clone() }
}

/// IPv6 counts only where some uplink speaks it.
fn families(outcome: &Outcome) -> impl Iterator<Item = Family> {
    let v6 = outcome.ground.uplinks.values().any(|u| u.addresses.iter().any(IpAddr::is_ipv6));
    [Family::V4].into_iter().chain(v6.then_some(Family::V6))
}

fn rule(family: Family, preference: u32, table: u32) -> Rule {
    Rule { protocol: PROTOCOL, ..Rule::new(family, preference, table) }
}

/// Main without its default route and without what the uplinks carry: bridges, VPNs, overlays.
fn inside(family: Family, preference: u32) -> Rule {
    Rule { suppress_prefix_length: Some(0), suppress_group: Some(UPLINK_GROUP), ..rule(family, preference, MAIN) }
}

fn by_mark(family: Family, number: u8) -> Rule {
    let mark = Some(FLAG | u32::from(number));
    Rule { mark, mask: Some(PACKET_MASK), ..rule(family, PREFERENCE_NIC, TABLE_BASE + u32::from(number)) }
}

fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn route(family: Family, table: u32) -> Route {
    let metric = if family == Family::V4 { 0 } else { METRIC_V6 };
    Route { metric, protocol: PROTOCOL, ..Route::new(table, everything(family)) }
}

/// Ends a table: what its NIC cannot carry goes nowhere.
fn last(family: Family, table: u32) -> Route {
    Route { kind: RouteKind::Unreachable, metric: METRIC_LAST, ..route(family, table) }
}

fn default_route(uplink: &Uplink, family: Family) -> Option<Route> {
    let gateway = uplink.gateways.get(&family)?;
    let on_link = gateway.address.is_none() && family == Family::V4;
    Some(Route {
        gateway: gateway.address,
        interface: Some(uplink.index),
        onlink: gateway.onlink,
        metrics: Route::mtu_only(gateway.mtu),
        scope: if on_link { SCOPE_LINK } else { 0 },
        ..route(family, uplink.table())
    })
}

/// Main's other routes by that NIC: its own subnets and what lies behind their routers.
fn copies(kernel: &KernelFacts, uplink: &Uplink, family: Family) -> Vec<Route> {
    let by = kernel.routes.iter().filter(|r| r.table == MAIN && r.interface == Some(uplink.index) && r.kind == RouteKind::Unicast);
    let of = by.filter(|r| r.destination.prefix_len() > 0 && self::family(r.destination.addr()) == family && routable(&r.destination));
    put_into(uplink.table(), of)
}

/// Main's routes by uplinks to what is inside behind other nodes: to subnets, through a router.
///
/// A node's own process that calls an exit of the node at a node port has that exit for a source, whatever pod kube-proxy then gives it; the
/// masquerade comes after the last routing. No table of a NIC may have these routes: answers leave by the NIC that the call came in by, and
/// flows that have an exit by the exit's, and by another one they would not get far.
fn behind_nodes(outcome: &Outcome, kernel: &KernelFacts) -> Vec<Route> {
    let up = |index| outcome.ground.uplinks.get(&index).is_some_and(|uplink| uplink.up);
    let by = kernel.routes.iter().filter(|r| r.table == MAIN && r.interface.is_some_and(up) && r.kind == RouteKind::Unicast);
    // What is on the link is a NIC's own subnet, and single hosts may be nodes: these are called by the exit's NIC.
    let beyond = by.filter(|r| r.gateway.is_some() && (1..r.destination.max_prefix_len()).contains(&r.destination.prefix_len()));
    put_into(TABLE_NODES, beyond.filter(|r| is_inside(r.destination, &outcome.inside)))
}

/// Whether a subnet lies in one of these. There may be thousands of both: each way up is asked for, and not each subnet.
fn is_inside(subnet: IpNet, inside: &BTreeSet<IpNet>) -> bool {
    !inside.is_empty() && successors(Some(subnet), IpNet::supernet).any(|net| inside.contains(&net))
}

/// Copies of main's routes. Of several to one destination with one metric the kernel takes the first, and a table that is written by
/// replacing holds only one.
fn put_into<'a>(table: u32, routes: impl Iterator<Item = &'a Route>) -> Vec<Route> {
    let mut first: BTreeMap<_, Route> = BTreeMap::new();
    // What a route's packets are encapsulated in is not known.
    for route in routes.filter(|route| !route.encap) {
        let copy = || Route { table, protocol: PROTOCOL, expires: None, ..route.clone() };
        first.entry((route.destination, route.from, route.tos, route.metric)).or_insert_with(copy);
    }
    first.into_values().collect()
}

/// Link-local and multicast prefixes are every link's own affair.
fn routable(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => !net.addr().is_multicast() && !net.addr().is_link_local(),
        IpNet::V6(net) => !net.addr().is_multicast() && !net.addr().is_unicast_link_local(),
    }
}

/// Sysctls to be looked at for an outcome (in /proc/sys).
pub fn sysctl_keys(outcome: &Outcome) -> Vec<String> {
    let mut keys =
        vec!["net/ipv4/ip_forward".to_owned(), "net/ipv6/conf/all/forwarding".to_owned(), "net/ipv4/conf/all/rp_filter".to_owned()];
    for uplink in outcome.ground.uplinks.values() {
        for name in ["rp_filter", "arp_ignore", "arp_announce"] {
            keys.push(format!("net/ipv4/conf/{}/{name}", uplink.name));
        }
        keys.push(format!("net/ipv6/conf/{}/accept_ra", uplink.name));
    }
    keys
}

/// Sysctls to set, in order, given what they are now.
pub fn sysctls(outcome: &Outcome, now: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let value = |key: &str| now.get(key).and_then(|v| v.parse::<i64>().ok());
    let mut set = Vec::new();
    let mut raise = |key: String, low: &[i64], to: i64| {
        if value(&key).is_some_and(|v| low.contains(&v)) {
            set.push((key, to.to_string()));
        }
    };
    let bound = |v6: bool| outcome.rows.iter().any(|row| matches!(&row.state, State::Bound(exit) if exit.address.is_ipv6() == v6));
    let all_filter = value("net/ipv4/conf/all/rp_filter").unwrap_or(0);
    for Uplink { name, .. } in outcome.ground.uplinks.values() {
        // Replies come in by a NIC that main does not route their source by; and strictly filtered NICs answer no ARP of a shared subnet.
        if all_filter == 1 || value(&format!("net/ipv4/conf/{name}/rp_filter")) == Some(1) {
            raise(format!("net/ipv4/conf/{name}/rp_filter"), &[0, 1], 2);
        }
        // Each NIC answers and asks for its own addresses only.
        raise(format!("net/ipv4/conf/{name}/arp_ignore"), &[0], 1);
        raise(format!("net/ipv4/conf/{name}/arp_announce"), &[0, 1], 2);
        if bound(true) {
            // Ahead of forwarding, which would delete the route that an advertisement brought.
            raise(format!("net/ipv6/conf/{name}/accept_ra"), &[1], 2);
        }
    }
    if bound(false) {
        raise("net/ipv4/ip_forward".to_owned(), &[0], 1);
    }
    if bound(true) {
        raise("net/ipv6/conf/all/forwarding".to_owned(), &[0], 1);
    }
    set
}
