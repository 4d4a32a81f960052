//! What comes in by the exits: calls to their ports go to the workloads that serve them, by destination NAT of the first packet.
//!
//! (Address, protocol, port) leads to the service's chain, which chooses a slot, and slots lead to servers: so a server that comes or goes
//! changes elements, and the number of rules that a call passes does not grow. conntrack translates the rest of the flow, and the answers,
//! which leave by the way of the address that was called as those of any published port do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::flow::CONFIRMED;
use super::published::{CALL_TRANSLATED, called, calls, let_through, port_key, ports_key, put, service_name, unmarked};
use super::rules::Chains;
use super::shape::Shape;
use super::{admission, ipvs, names};
use crate::contract::{PRIORITY_DNAT, PRIORITY_INBOUND_SNAT};
use crate::model::facts::{IfIndex, KernelFacts, LinkKind, Place};
use crate::model::inbound::{Balance, ClientSource, Limits};
use crate::model::ipvs::Engine;
use crate::model::ports::{Called, Ports};
use crate::model::resolve::Outcome;
use crate::model::services::{Endpoint, Service, slots};
use crate::model::workload::Entry;
use crate::nft::build::{
    Operand, RuleBuilder, SetName, ct_original_daddr, ct_status, hash_of, iif, map, oif, random, ranges, rule, saddr, turn,
};
use crate::nft::{Bytes, Chain, ChainKind, Data, Datatype, Elements, Family, Hook, Key, Rule, Set, Table, Verdict};

/// Sets of slots that lead to servers, and of those that lead to servers' chains.
const SERVERS: &str = "servers";
const SERVER_CHAINS: &str = "server_chains";

/// Services that were made before, by the name of their slots: a hash over many servers is worked out once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Cache(BTreeMap<String, Fragment>);

/// The chains and sets of a service, and what they were made of.
#[derive(Clone, Debug, Default)]
struct Fragment {
    of: Option<Of>,
    own: Table,
}

/// What the chains and sets of a service follow from, besides its name.
#[derive(Clone, Debug, PartialEq)]
struct Of {
    balance: Balance,
    affinity: Option<u32>,
    limits: Limits,
    weighted: Vec<(Endpoint, u16)>,
    /// How many servers it has, with those that get no new connections.
    servers: usize,
}

impl Cache {
    /// Forgets all but these.
    pub fn keep_only(&mut self, services: &[Service]) {
        let names: BTreeSet<String> = services.iter().map(slots_set).collect();
        self.0.retain(|name, _| names.contains(name));
    }

    /// The chains and sets of a service, in a table of their own; none of one without a server that takes new connections.
    fn own(&mut self, service: &Service, v6: bool) -> &Table {
        let Service { balance, affinity, limits, .. } = *service;
        let of = Of { balance, affinity, limits, weighted: service.weighted(), servers: service.servers.len() };
        let made = self.0.entry(slots_set(service)).or_default();
        if made.of.as_ref() != Some(&of) {
            *made = Fragment { own: own(service, &of, v6), of: Some(of) };
        }
        &made.own
    }
}

fn own(service: &Service, of: &Of, v6: bool) -> Table {
    let mut table = Table::default();
    let (chains, single) = (admission::has_server_chains(service), service.ports.first == service.ports.last);
    let slots = slots(of.balance, &of.weighted, of.servers);
    if slots.is_empty() {
        return table;
    }
    let (set, slot, family) = (slots_set(service), slot(of.balance, slots.len(), v6), Family::ip(v6));
    let data = |endpoint| if chains { admission::to_server(service, endpoint) } else { data(endpoint) };
    let elements = slots.into_iter().zip(0..).map(|(endpoint, number)| (Key::one(Bytes::of_number(number)), data(endpoint))).collect();
    let mut rules: Vec<Rule> = admission::rate(&mut table, service, v6).into_iter().collect();
    let kind = if chains {
        rules.extend(admission::servers(&mut table, service, &set, slot, v6));
        Datatype::Verdict
    } else if single {
        rules.push(rule().dnat_endpoint(family, map(set.as_str(), [slot])));
        Datatype::endpoint(v6)
    } else {
        rules.push(rule().dnat(family, map(set.as_str(), [slot])));
        Datatype::address(v6)
    };
    table.chains.insert(service_name("service", service), Chain::regular(rules));
    table.sets.insert(set, Set { elements, ..Set::map([Datatype::Mark], kind) });
    table
}

/// A server's address, and its port unless it is one of a range.
fn data((address, port): Endpoint) -> Data {
    let bytes = Bytes::default().address(address);
    Data::Value(if port == 0 { bytes } else { bytes.port(port) })
}

/// A flow that was called at a port of ours. `nft` cannot load a lookup of the port that was called: so a flow is known by the address that was
/// called, and by its server.
fn ours(v6: bool) -> RuleBuilder {
    rule().is(ct_status().and(CALL_TRANSLATED), CALL_TRANSLATED).found(names::PUBLISHED, [ct_original_daddr(v6)])
}

/// Which flows of published ports are let through others' filters; none while nobody serves anything.
pub fn forwarded(shape: Shape) -> Vec<Rule> {
    if !shape.inbound() {
        return Vec::new();
    }
    let passing = || unmarked(ours(shape.v6));
    // Later packets, answers and errors about the flow: its first packet was let through. Its server may serve nobody else any more.
    let mut rules = vec![let_through(passing().is(ct_status().and(CONFIRMED), CONFIRMED))];
    rules.extend(shape.serving().map(|(serving, _)| let_through(passing().found(serving, calls(shape.v6)))));
    if shape.ipvs {
        rules.push(ipvs::answers(shape));
    }
    rules
}

/// The chains of this concern; none while nobody serves anything.
pub fn chains(shape: Shape) -> Chains {
    if !shape.inbound() {
        return Vec::new();
    }
    let v6 = shape.v6;
    let call = || calls(v6);
    let lookups: Vec<Rule> = [
        shape.services.then(|| rule().vmap(names::SERVICES, call())),
        shape.services_ranges.then(|| rule().vmap(ranges(names::SERVICES_RANGES), call())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let ours = || ours(v6);
    let mut source: Vec<Rule> = shape.server_limits.then(|| ours().vmap(names::SERVER_LIMITS, call())).into_iter().collect();
    if shape.ipvs {
        source.extend(ipvs::routed_back(shape));
    }
    for (serving, masqueraded) in shape.serving() {
        source.push(ours().found(masqueraded.clone(), call()).masquerade());
        // A server that calls itself, or one beside it, would be answered past this host.
        source.push(ours().found(ranges(names::HAIRPINS), [iif(), oif(), saddr(v6)]).found(serving.clone(), call()).masquerade());
        if shape.ipvs {
            source.extend(ipvs::source_nat(shape, &serving, &masqueraded));
        }
    }
    let mut chains = vec![
        ("inbound", Chain::base(ChainKind::Nat, Hook::Prerouting, PRIORITY_DNAT, lookups.clone())),
        ("inbound_host", Chain::base(ChainKind::Nat, Hook::Output, PRIORITY_DNAT, lookups)),
        ("inbound_source", Chain::base(ChainKind::Nat, Hook::Postrouting, PRIORITY_INBOUND_SNAT, source)),
    ];
    chains.extend(ipvs::chains(shape));
    chains
}

impl Shape {
    /// Somebody serves something.
    fn inbound(self) -> bool {
        self.services || self.services_ranges || self.ipvs
    }

    /// The sets of servers, and of those that see this host's address.
    pub(super) fn serving(self) -> impl Iterator<Item = (SetName, SetName)> {
        let single = self.services.then(|| (names::SERVING.into(), names::MASQUERADED.into()));
        single.into_iter().chain(self.services_ranges.then(|| (ranges(names::SERVING_RANGES), ranges(names::MASQUERADED_RANGES))))
    }
}

/// The sets of this concern, empty.
fn sets(v6: bool) -> [(&'static str, Set); 9] {
    let called = called(v6);
    [
        (names::SERVICES, Set::map(called, Datatype::Verdict)),
        (names::SERVICES_RANGES, Set::map(called, Datatype::Verdict).with_ranges()),
        (names::PUBLISHED, Set::of([Datatype::address(v6)])),
        (names::SERVING, Set::of(called)),
        (names::SERVING_RANGES, Set::of(called).with_ranges()),
        (names::MASQUERADED, Set::of(called)),
        (names::MASQUERADED_RANGES, Set::of(called).with_ranges()),
        (names::SERVER_LIMITS, Set::map(called, Datatype::Verdict)),
        (names::HAIRPINS, Set::of([Datatype::IfIndex, Datatype::IfIndex, Datatype::address(v6)]).with_ranges()),
    ]
}

/// Adds the services of the table's family that somebody serves.
pub fn add(table: &mut Table, outcome: &Outcome, kernel: &KernelFacts, v6: bool, made: &mut Cache) {
    // What is open of a virtual service may go on without a server that takes anything new.
    let is_served = |service: &Service| service.has_servers() || service.engine.ipvs().is_some();
    let of_family = |service: &&Service| service.address.is_ipv6() == v6 && is_served(service);
    let services: Vec<&Service> = outcome.inbound.all.iter().filter(of_family).collect();
    let left: Vec<Called> = outcome.inbound.left.iter().filter(|(address, _)| address.is_ipv6() == v6).copied().collect();
    if services.is_empty() && left.is_empty() {
        return;
    }
    table.sets.extend(sets(v6).map(|(name, set)| (name.to_owned(), set)));
    if services.iter().any(|service| service.engine.ipvs().is_some()) || !left.is_empty() {
        table.sets.extend(ipvs::sets(v6).map(|(name, set)| (name.to_owned(), set)));
    }
    for service in &services {
        match service.engine {
            Engine::Nftables => add_service(table, service, v6, made),
            Engine::Ipvs(_) => ipvs::add_service(table, service),
        }
    }
    left.into_iter().for_each(|called| ipvs::add_left(table, called));
    let is_masqueraded = |service: &&&Service| service.client_source == ClientSource::Masquerade;
    add_servers(table, services.iter().copied(), [names::SERVING, names::SERVING_RANGES]);
    add_servers(table, services.iter().filter(is_masqueraded).copied(), [names::MASQUERADED, names::MASQUERADED_RANGES]);
    admission::add_limits(table, services.iter().copied(), v6);
    let entries: BTreeSet<Entry> = services.iter().copied().flat_map(Service::places).map(|(_, _, entry)| entry).collect();
    for (into, out, nets) in entries.iter().flat_map(|entry| beside(*entry, outcome, kernel, v6)) {
        for net in IpNet::aggregate(&nets) {
            put(table, names::HAIRPINS, Key::pair_prefix(into, out, net), Data::None);
        }
    }
}

fn add_service(table: &mut Table, service: &Service, v6: bool, made: &mut Cache) {
    let Ports { protocol, first, last } = service.ports;
    let (address, protocol) = (service.address, protocol.number());
    let (services, key) = if first == last {
        (names::SERVICES, port_key(address, protocol, first))
    } else {
        (names::SERVICES_RANGES, ports_key(address, protocol, (first, last)))
    };
    put(table, names::PUBLISHED, Key::one(Bytes::default().address(address)), Data::None);
    let own = made.own(service, v6);
    if own.chains.is_empty() {
        // Nobody takes new connections: the host refuses them. Those that are open go on.
        return;
    }
    table.chains.extend(own.chains.clone());
    table.sets.extend(own.sets.clone());
    put(table, services, key, Data::Verdict(Verdict::Jump(service_name("service", service))));
}

/// Adds the ports of the servers of these services to two sets. No range may meet another of one server's: those that do are one.
fn add_servers<'a>(table: &mut Table, services: impl Iterator<Item = &'a Service>, [single, several]: [&str; 2]) {
    let mut all: BTreeSet<(IpAddr, u8, u16, u16)> = BTreeSet::new();
    for service in services {
        let Ports { protocol, first, last } = service.ports;
        for (address, port, _) in service.places() {
            match port {
                Some(port) => put(table, single, port_key(address, protocol.number(), port), Data::None),
                None => _ = all.insert((address, protocol.number(), first, last)),
            }
        }
    }
    let mut open: Option<(IpAddr, u8, u16, u16)> = None;
    for next in all.into_iter().map(Some).chain([None]) {
        match (&mut open, next) {
            (Some(open), Some(next)) if (open.0, open.1) == (next.0, next.1) && next.2 <= open.3 => open.3 = open.3.max(next.3),
            (done, next) => {
                if let Some((address, protocol, first, last)) = std::mem::replace(done, next) {
                    put(table, several, ports_key(address, protocol, (first, last)), Data::None);
                }
            }
        }
    }
}

/// The interfaces that a server's neighbours come in by and go out by, each pair with where they are: on a bridge they may have any address.
fn beside(entry: Entry, outcome: &Outcome, kernel: &KernelFacts, v6: bool) -> Vec<(IfIndex, IfIndex, Vec<IpNet>)> {
    let interfaces: Vec<IfIndex> = outcome.interfaces(entry).collect();
    let on_link = |interface: IfIndex| -> Vec<IpNet> {
        let own = kernel.addresses_at(Place { nsid: None, index: interface }).map(|address| address.net.trunc());
        own.filter(|net| net.addr().is_ipv6() == v6).collect()
    };
    let interface = entry.interface();
    let is_bridge = kernel.links.get(&interface).is_some_and(|link| link.kind == LinkKind::Bridge);
    let Some(bridge) = entry.bridge().or_else(|| is_bridge.then_some(interface)) else {
        return vec![(interface, interface, on_link(interface))];
    };
    let everywhere: IpNet = if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() };
    let pairs = interfaces.iter().flat_map(|into| interfaces.iter().map(move |out| (*into, *out)));
    let pairs = pairs.map(|(into, out)| (into, out, vec![everywhere]));
    // What br_netfilter translates stays on the bridge, and has lost the interface that it came in by.
    pairs.chain([(0, bridge, on_link(bridge))]).collect()
}

/// The slots of a service, by its chain's name.
pub fn slots_of<'a>(table: &'a Table, chain: &str) -> Option<&'a Elements> {
    let service = chain.strip_prefix("service-")?;
    let set = |what: &str| table.sets.get(&format!("{what}-{service}"));
    set(SERVERS).or_else(|| set(SERVER_CHAINS)).map(|set| &set.elements)
}

/// The number of a slot, 0 to `slots` - 1.
fn slot(balance: Balance, slots: usize, v6: bool) -> Operand {
    let slots = slots as u32;
    match balance {
        Balance::RoundRobin => turn(slots),
        Balance::Random => random(slots),
        Balance::BySource => hash_of(saddr(v6), slots),
    }
}

/// The set of a service's slots. A map's type is for its lifetime, so slots that lead to chains have another name.
fn slots_set(service: &Service) -> String {
    service_name(if admission::has_server_chains(service) { SERVER_CHAINS } else { SERVERS }, service)
}
