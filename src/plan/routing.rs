//! Policy rules, one route table for each way and one for what is behind other nodes, and link groups.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::net::IpAddr;

use ipnet::IpNet;

use super::step::RouteStep;
use crate::contract::{
    FLAG, FLAG_MASK, MARK_MASK, METRIC_LAST, OWN_MARK, PREFERENCE_FROM, PREFERENCE_FROM_DEFAULT, PREFERENCE_FROM_INSIDE,
    PREFERENCE_FROM_MAIN, PREFERENCE_FROM_NODES, PREFERENCE_FROM_OWN, PREFERENCE_FROM_WAY, PREFERENCE_INSIDE, PREFERENCE_LOCAL,
    PREFERENCE_WAY, PROTOCOL, TABLE_BASE, TABLE_NODES, UPLINK_GROUP,
};
use crate::model::facts::{Family, KernelFacts, Route, RouteKind, Rule, RuleAction, is_link_local};
use crate::model::resolve::Outcome;
use crate::model::uplinks::ahead::{LOCAL, local_first};
use crate::model::uplinks::outside::{LARGEST_PART, MAIN};
use crate::model::ways::{Way, mark};

/// `RT_TABLE_DEFAULT`.
const DEFAULT: u32 = 253;
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
        let nics = &outcome.uplinks.nics;
        let mut routing = Self::default();
        if outcome.is_idle() {
            return routing;
        }
        // A group that somebody else gave a NIC stays; `check` tells what that costs.
        routing.groups = nics.values().filter(|u| u.group == 0 || u.group == UPLINK_GROUP).map(|u| u.index).collect();
        for family in families(outcome) {
            let first = first(outcome, family);
            let marked = |rule: Rule| Rule { mark: Some(FLAG), mask: Some(FLAG_MASK), ..rule };
            for table in outcome.uplinks.inside.tables.iter().chain([&MAIN]) {
                routing.rules.insert(marked(Rule { table: *table, ..inside(family, first) }));
            }
            // Where another program has put the host's own addresses behind (as for VRFs), they are looked up ahead of the ways all the same.
            if !local_first(kernel, family, first) {
                routing.rules.insert(marked(rule(family, first.saturating_sub(PREFERENCE_INSIDE - PREFERENCE_LOCAL), LOCAL)));
            }
            routing.rules.insert(by_mark(outcome, family, 0));
            routing.routes.insert(last(family, TABLE_BASE));
            for way in outcome.uplinks.ways.values() {
                routing.rules.insert(by_mark(outcome, family, way.number));
                routing.routes.insert(last(family, way.table()));
                if way.up {
                    let copies = copies(kernel, way, family);
                    routing.routes.extend(default_route(kernel, way, family, &copies));
                    routing.routes.extend(copies);
                }
            }
        }
        for (exit, number) in &outcome.programs.marks {
            let way = Rule { table: TABLE_BASE + u32::from(exit.way), ..by_mark(outcome, Family::of(exit.address), *number) };
            routing.rules.insert(way);
        }
        routing.routes.extend(of_nobody(outcome));
        let nodes = behind_nodes(outcome, kernel);
        let reached: BTreeSet<Family> = nodes.iter().map(|r| Family::of(r.destination.addr())).collect();
        routing.routes.extend(nodes);
        let mut families = BTreeSet::new();
        let behind = [Family::V4, Family::V6].map(|family| (family, !local_first(kernel, family, PREFERENCE_FROM)));
        for (address, way) in outcome.uplinks.held() {
            let (from, family) = (Some(IpNet::from(address)), Family::of(address));
            if reached.contains(&family) {
                routing.rules.insert(Rule { from, ..rule(family, PREFERENCE_FROM_NODES, TABLE_NODES) });
            }
            families.insert(family);
            // What a VPN has in a table of its own goes there, whatever address it has.
            for table in outcome.uplinks.inside.tables.iter().chain([&MAIN]) {
                routing.rules.insert(Rule { from, table: *table, ..inside(family, PREFERENCE_FROM_INSIDE) });
            }
            // A probe, and what is dialled from an exit, take the gateway that its flows take.
            if let Some(number) = outcome.uplinks.borne.get(&address).filter(|number| **number != 0 && **number != way.number) {
                let own = rule(family, PREFERENCE_FROM_OWN, TABLE_BASE + u32::from(*number));
                routing.rules.insert(of_own_sockets(Rule { from, ..own }));
            }
            routing.rules.insert(Rule { from, ..rule(family, PREFERENCE_FROM_WAY, way.table()) });
            // A table of the host's own for it has more than the NIC's routes: holes, and what goes by a VPN.
            if outcome.uplinks.led.contains(&address) {
                continue;
            }
            if behind.contains(&(family, true)) {
                routing.rules.insert(Rule { from, ..rule(family, PREFERENCE_LOCAL, LOCAL) });
            }
            routing.rules.insert(Rule { from, ..from_exits(family, PREFERENCE_FROM) });
        }
        routing.rules.extend(families.into_iter().flat_map(|family| own_sockets(outcome, family)));
        routing
    }

    /// What of ours the kernel has.
    pub fn observed(kernel: &KernelFacts) -> Self {
        Self {
            routes: kernel.routes.iter().filter(|route| is_ours(route)).map(comparable).collect(),
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
        for rule in overtaken(kernel).intersection(&self.rules) {
            before.extend([RouteStep::DeleteRule(rule.clone()), RouteStep::AddRule(rule.clone())]);
        }
        let mut after: Vec<RouteStep> = Vec::new();
        after.extend(observed.rules.difference(&self.rules).cloned().map(RouteStep::DeleteRule));
        let replaced = |gone: &&Route| !self.routes.iter().any(|r| same_slot(r, gone));
        let gone = observed.routes.difference(&self.routes).filter(replaced);
        after.extend(gone.cloned().map(RouteStep::DeleteRoute));
        after.extend(observed.groups.difference(&self.groups).filter(|i| kernel.links.contains_key(i)).map(|i| group(i, 0)));
        (before, after)
    }
}

/// Whether a route is one that egressd makes.
pub fn is_ours(route: &Route) -> bool {
    let of_nobody = route.table == MAIN && route.kind == RouteKind::Blackhole;
    route.protocol == PROTOCOL && ((TABLE_BASE..=TABLE_NODES).contains(&route.table) || of_nobody)
}

/// Two routes that cannot stand side by side: adding the one replaces the other.
fn same_slot(a: &Route, b: &Route) -> bool {
    (a.table, a.destination, a.metric) == (b.table, b.destination, b.metric)
}

/// What the kernel adds of its own is taken out: lifetimes, and the loopback that IPv6 names for an unreachable route.
fn comparable(route: &Route) -> Route {
    let interface = route.interface.filter(|_| route.kind == RouteKind::Unicast);
    Route { expires: None, interface, ..route.clone() }
}

/// IPv6 counts only where some uplink speaks it.
fn families(outcome: &Outcome) -> impl Iterator<Item = Family> {
    let v6 = outcome.uplinks.nics.values().any(|u| u.addresses.iter().any(IpAddr::is_ipv6));
    [Family::V4].into_iter().chain(v6.then_some(Family::V6))
}

fn rule(family: Family, preference: u32, table: u32) -> Rule {
    Rule { protocol: PROTOCOL, ..Rule::new(family, preference, table) }
}

/// Main without its default route and without what the uplinks carry: bridges, VPNs, overlays.
fn inside(family: Family, preference: u32) -> Rule {
    Rule { suppress_prefix_length: Some(0), suppress_group: Some(UPLINK_GROUP), ..rule(family, preference, MAIN) }
}

/// The preference of the first of the rules for our marks.
fn first(outcome: &Outcome, family: Family) -> u32 {
    outcome.uplinks.rules_from.get(&family).copied().unwrap_or(PREFERENCE_INSIDE)
}

fn by_mark(outcome: &Outcome, family: Family, number: u8) -> Rule {
    let preference = first(outcome, family) + PREFERENCE_WAY - PREFERENCE_INSIDE;
    Rule { mark: Some(mark(number)), mask: Some(MARK_MASK), ..rule(family, preference, TABLE_BASE + u32::from(number)) }
}

/// Leads what bears [`OWN_MARK`] past other programs' rules, to those for the exit that it comes from, or to main where it comes from none.
fn own_sockets(outcome: &Outcome, family: Family) -> [Rule; 3] {
    let to_exits = from_exits(family, by_mark(outcome, family, 0).preference);
    let [to_main, to_default] =
        [(PREFERENCE_FROM_MAIN, MAIN), (PREFERENCE_FROM_DEFAULT, DEFAULT)].map(|(at, table)| rule(family, at, table));
    [to_exits, to_main, to_default].map(of_own_sockets)
}

fn of_own_sockets(rule: Rule) -> Rule {
    Rule { mark: Some(OWN_MARK), mask: Some(u32::MAX), ..rule }
}

/// Leads to the rules by exit address.
fn from_exits(family: Family, preference: u32) -> Rule {
    Rule { action: RuleAction::Goto(PREFERENCE_FROM_INSIDE), ..rule(family, preference, 0) }
}

/// Rules of ours by exit address that another program's of the same preference stands behind: it is the host's, and has to come first.
fn overtaken(kernel: &KernelFacts) -> BTreeSet<Rule> {
    let at = |family| kernel.rules.iter().filter(move |r| r.family == family && r.preference == PREFERENCE_FROM);
    let ahead_of_others = |family| {
        let rules: Vec<&Rule> = at(family).collect();
        let others = rules.iter().rposition(|r| r.protocol != PROTOCOL).unwrap_or(0);
        rules.into_iter().take(others).filter(|r| r.protocol == PROTOCOL).cloned().collect::<Vec<_>>()
    };
    [Family::V4, Family::V6].into_iter().flat_map(ahead_of_others).collect()
}

/// What the metric of a further gateway's default route has more than that of a NIC's own: a restart tells the two by it.
pub const FURTHER: u32 = 1;
/// What that of a NIC's own gateway has more as long as no route of the host names it: a restart goes on with it all the same.
pub const REMEMBERED: u32 = 2;

fn remembered(kernel: &KernelFacts, gateway: Option<IpAddr>) -> u32 {
    let names = |route: &Route| {
        let is_default = route.protocol != PROTOCOL && route.destination.prefix_len() <= LARGEST_PART;
        is_default && route.hops().any(|(address, ..)| address == gateway)
    };
    if gateway.is_none() || kernel.routes.iter().any(names) { 0 } else { REMEMBERED }
}

/// Metric of the default route of a NIC's own way.
pub fn metric(family: Family) -> u32 {
    if family == Family::V4 { 0 } else { METRIC_V6 }
}

fn route(family: Family, table: u32) -> Route {
    Route { metric: metric(family), protocol: PROTOCOL, ..Route::new(table, family.everything()) }
}

/// Ends a table: what its NIC cannot carry goes nowhere.
fn last(family: Family, table: u32) -> Route {
    Route { kind: RouteKind::Unreachable, metric: METRIC_LAST, ..route(family, table) }
}

/// The default route of a way. A gateway that none of the table's other routes covers is on the link all the same: the kernel would refuse it
/// otherwise, as where the NIC's subnet is in no table (`noprefixroute`).
fn default_route(kernel: &KernelFacts, way: &Way, family: Family, copies: &[Route]) -> Option<Route> {
    let gateway = way.gateways.get(&family)?;
    let covers = |address: IpAddr| copies.iter().any(|r| r.gateway.is_none() && r.destination.contains(&address));
    // IPv6 has its link-local subnet on every link; IPv4 only where it is configured.
    let reached = |address: IpAddr| covers(address) || (address.is_ipv6() && is_link_local(address));
    let uncovered = gateway.address.is_some_and(|address| !reached(address));
    let on_link = gateway.address.is_none() && family == Family::V4;
    Some(Route {
        gateway: gateway.address,
        interface: Some(way.key.nic),
        onlink: gateway.onlink || uncovered,
        metrics: Route::mtu_only(gateway.mtu),
        scope: if on_link { SCOPE_LINK } else { 0 },
        metric: metric(family) + if way.key.gateway.is_some() { FURTHER } else { remembered(kernel, gateway.address) },
        ..route(family, way.table())
    })
}

/// The other routes by a way's NIC, of main and of the table that its default route is in: its subnets and what lies behind their routers.
fn copies(kernel: &KernelFacts, way: &Way, family: Family) -> Vec<Route> {
    let found = way.gateways.get(&family).map_or(MAIN, |gateway| gateway.table);
    let nic = way.key.nic;
    let tables = if found == MAIN { vec![MAIN] } else { vec![found, MAIN] };
    let of = tables.into_iter().flat_map(|table| kernel.routes.iter().filter(move |r| r.table == table)).filter(|r| {
        let (net, plain) = (&r.destination, r.kind == RouteKind::Unicast && !r.encap && r.from.is_none() && r.tos == 0);
        plain && r.protocol != PROTOCOL && net.prefix_len() > 0 && Family::of(net.addr()) == family && routable(net)
    });
    // Of a route with several next hops, the one by this NIC.
    let by_nic = of.filter_map(|r| {
        let (gateway, interface, onlink) = r.hops().find(|(_, interface, _)| *interface == Some(nic))?;
        Some(Route { gateway, interface, onlink, next_hops: Vec::new(), ..r.clone() })
    });
    put_into(way.table(), by_nic)
}

/// Ends what is for an exit that no NIC has and belongs to no flow: by the default route it would go back to the router that sent it. It is dropped
/// without an answer, as scans of such a prefix are elsewhere.
fn of_nobody(outcome: &Outcome) -> impl Iterator<Item = Route> {
    let routed: Vec<IpNet> = outcome.uplinks.routed.iter().map(|address| IpNet::from(*address)).collect();
    let nets = IpNet::aggregate(&routed).into_iter();
    nets.map(|net| Route { kind: RouteKind::Blackhole, metric: METRIC_LAST, protocol: PROTOCOL, ..Route::new(MAIN, net) })
}

/// Main's routes by uplinks to what is inside behind other nodes: to subnets, through a router.
///
/// A node's own process that calls an exit of the node at a node port has that exit for a source, whatever pod kube-proxy then gives it; the
/// masquerade comes after the last routing. No table of a NIC may have these routes: answers leave through the NIC that the call came in on, and
/// flows that have an exit by the exit's, and by another one they would not get far.
fn behind_nodes(outcome: &Outcome, kernel: &KernelFacts) -> Vec<Route> {
    let up = |index| outcome.uplinks.nics.get(&index).is_some_and(|uplink| uplink.up);
    let by = kernel.routes.iter().filter(|r| r.table == MAIN && r.interface.is_some_and(up) && r.kind == RouteKind::Unicast);
    // What is on the link is a NIC's own subnet, and single hosts may be nodes: these are called by the exit's NIC.
    let beyond = by.filter(|r| r.gateway.is_some() && (1..r.destination.max_prefix_len()).contains(&r.destination.prefix_len()));
    put_into(TABLE_NODES, beyond.filter(|r| is_inside(r.destination, &outcome.inside)).cloned())
}

/// Whether a subnet lies in one of these. There may be thousands of both: each way up is asked for, and not each subnet.
fn is_inside(subnet: IpNet, inside: &BTreeSet<IpNet>) -> bool {
    !inside.is_empty() && successors(Some(subnet), IpNet::supernet).any(|net| inside.contains(&net))
}

/// Copies of main's routes. Of several to one destination with one metric the kernel takes the first, and a table that is written by
/// replacing holds only one.
fn put_into(table: u32, routes: impl Iterator<Item = Route>) -> Vec<Route> {
    let mut first: BTreeMap<(IpNet, u32), Route> = BTreeMap::new();
    for route in routes {
        let copy = Route { table, protocol: PROTOCOL, expires: None, router_preference: 0, ..route };
        first.entry((copy.destination, copy.metric)).or_insert(copy);
    }
    first.into_values().collect()
}

/// Link-local and multicast prefixes are every link's own affair.
fn routable(net: &IpNet) -> bool {
    !net.addr().is_multicast() && !is_link_local(net.addr())
}
