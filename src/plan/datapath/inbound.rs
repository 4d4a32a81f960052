//! What comes in by the exits: calls to their ports go to the workloads that serve them, by destination NAT of the first packet.
//!
//! (Address, protocol, port) leads to the service's chain, which chooses a slot, and slots lead to servers: so a server that comes or goes
//! changes elements, and the number of rules that a call passes does not grow. conntrack translates the rest of the flow, and the answers,
//! which leave by the way of the address that was called as those of any published port do.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Chains, Shape, names};
use crate::contract::{
    FORWARDED_MARK, FORWARDED_MASK, PRIORITY_BEFORE_FORWARD, PRIORITY_BEHIND_FORWARD, PRIORITY_DNAT, PRIORITY_INBOUND_SNAT,
};
use crate::model::binding::{Balance, ClientSource, Ports};
use crate::model::facts::{IfIndex, KernelFacts, Place};
use crate::model::resolve::Outcome;
use crate::model::services::{Endpoint, Service, slots};
use crate::model::workload::Entry;
use crate::nft::build::{
    Operand, ct_original_daddr, ct_original_dport, ct_original_protocol, ct_status, daddr, dport, hash_of, iif, l4proto, map, mark, oif,
    random, ranges, rule, saddr, turn,
};
use crate::nft::{Bytes, Chain, ChainKind, Data, Datatype, Elements, Family, Hook, Key, Rule, Set, Table, Verdict};

/// `IPS_DST_NAT`: the flow's destination was translated.
const TRANSLATED: u32 = 1 << 5;
/// Data of `published`: the server sees the client's address.
const PRESERVED: u32 = 1;
/// Data of `published`: the server sees this host's address.
const MASQUERADED: u32 = 2;

/// Slots that were made before, by the name of their set: a hash over many servers is worked out once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Made(BTreeMap<String, (Balance, Vec<(Endpoint, u16)>, Elements)>);

impl Made {
    /// Forgets all but these.
    pub fn keep_only(&mut self, services: &[Service]) {
        let names: BTreeSet<String> = services.iter().map(slots_set).collect();
        self.0.retain(|name, _| names.contains(name));
    }

    fn elements(&mut self, service: &Service) -> Elements {
        let weighted = service.weighted();
        match self.0.get(&slots_set(service)) {
            Some((balance, same, elements)) if *balance == service.balance && *same == weighted => elements.clone(),
            _ => {
                let slots = slots(service.balance, &weighted);
                let elements: Elements =
                    slots.into_iter().zip(0..).map(|(endpoint, number)| (Key::one(Bytes::of_number(number)), data(endpoint))).collect();
                self.0.insert(slots_set(service), (service.balance, weighted, elements.clone()));
                elements
            }
        }
    }
}

/// A server's address, and its port unless it is one of a range.
fn data((address, port): Endpoint) -> Data {
    let bytes = Bytes::default().address(address);
    Data::Value(if port == 0 { bytes } else { bytes.port(port) })
}

/// The chains of this concern; none while nobody serves anything.
pub fn chains(shape: Shape) -> Chains {
    if !shape.services && !shape.services_ranges {
        return Vec::new();
    }
    let v6 = shape.v6;
    let call = || [daddr(v6), l4proto(), dport()];
    let calls: Vec<Rule> = [
        shape.services.then(|| rule().vmap(names::SERVICES, call())),
        shape.services_ranges.then(|| rule().vmap(ranges(names::SERVICES_RANGES), call())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (mut source, mut forward) = (Vec::new(), Vec::new());
    for published in shape.published(v6) {
        let ours = || rule().is(ct_status().and(TRANSLATED), TRANSLATED);
        source.push(ours().is(published.clone(), MASQUERADED).masquerade());
        // A server that calls itself, or one beside it, would be answered past this host.
        source.push(ours().found(ranges(names::HAIRPINS), [iif(), oif(), saddr(v6)]).is_not(published.clone(), 0).masquerade());
        let unmarked = ours().is(mark().and(FORWARDED_MASK), 0);
        forward.push(unmarked.is_not(published, 0).set_mark(mark().or(FORWARDED_MARK)).accept());
    }
    let unmark = rule().is(mark().and(FORWARDED_MASK), FORWARDED_MARK).set_mark(mark().and(!FORWARDED_MARK)).done();
    vec![
        ("inbound", Chain::base(ChainKind::Nat, Hook::Prerouting, PRIORITY_DNAT, calls.clone())),
        ("inbound_host", Chain::base(ChainKind::Nat, Hook::Output, PRIORITY_DNAT, calls)),
        ("inbound_source", Chain::base(ChainKind::Nat, Hook::Postrouting, PRIORITY_INBOUND_SNAT, source)),
        ("before_forward", Chain::base(ChainKind::Filter, Hook::Forward, PRIORITY_BEFORE_FORWARD, forward)),
        ("behind_forward", Chain::base(ChainKind::Filter, Hook::Forward, PRIORITY_BEHIND_FORWARD, [unmark])),
    ]
}

impl Shape {
    /// What a flow's own original tuple says of the service that it belongs to.
    fn published(self, v6: bool) -> impl Iterator<Item = Operand> {
        let called = move || [ct_original_daddr(v6), ct_original_protocol(), ct_original_dport()];
        let single = self.services.then(|| map(names::PUBLISHED, called()));
        single.into_iter().chain(self.services_ranges.then(|| map(ranges(names::PUBLISHED_RANGES), called())))
    }
}

/// The sets of this concern, empty.
fn sets(v6: bool) -> [(&'static str, Set); 5] {
    let called = [Datatype::address(v6), Datatype::Protocol, Datatype::Service];
    [
        (names::SERVICES, Set::map(called, Datatype::Verdict)),
        (names::SERVICES_RANGES, Set::map(called, Datatype::Verdict).with_ranges()),
        (names::PUBLISHED, Set::map(called, Datatype::Mark)),
        (names::PUBLISHED_RANGES, Set::map(called, Datatype::Mark).with_ranges()),
        (names::HAIRPINS, Set::of([Datatype::IfIndex, Datatype::IfIndex, Datatype::address(v6)]).with_ranges()),
    ]
}

/// Adds the services of the table's family that somebody serves.
pub fn add(table: &mut Table, outcome: &Outcome, kernel: &KernelFacts, v6: bool, made: &mut Made) {
    let of_family = |service: &&Service| service.address.is_ipv6() == v6 && !service.servers.is_empty();
    let services: Vec<&Service> = outcome.inbound.all.iter().filter(of_family).collect();
    if services.is_empty() {
        return;
    }
    table.sets.extend(sets(v6).map(|(name, set)| (name.to_owned(), set)));
    services.iter().for_each(|service| add_service(table, service, v6, made));
    let entries: BTreeSet<Entry> = services.iter().flat_map(|service| &service.servers).map(|server| server.entry).collect();
    for (into, out, nets) in entries.iter().flat_map(|entry| beside(*entry, outcome, kernel, v6)) {
        for net in IpNet::aggregate(&nets) {
            put(table, names::HAIRPINS, Key::pair_prefix(into, out, net), Data::None);
        }
    }
}

fn add_service(table: &mut Table, service: &Service, v6: bool, made: &mut Made) {
    let Ports { protocol, first, last } = service.ports;
    let single = first == last;
    let (services, published, kind) = if single {
        (names::SERVICES, names::PUBLISHED, Datatype::endpoint(v6))
    } else {
        (names::SERVICES_RANGES, names::PUBLISHED_RANGES, Datatype::address(v6))
    };
    let called = |port| Bytes::default().address(service.address).protocol(protocol.number()).port(port);
    let key = if single { Key::one(called(first)) } else { Key { first: called(first), last: Some(called(last)) } };
    let (chain, slots) = (service_name("service", service), slots_set(service));
    let elements = made.elements(service);
    let to = map(slots.as_str(), [slot(service.balance, elements.len(), v6)]);
    let family = Family::ip(v6);
    let choose = if single { rule().dnat_endpoint(family, to) } else { rule().dnat(family, to) };
    table.chains.insert(chain.clone(), Chain::regular([choose]));
    table.sets.insert(slots, Set { elements, ..Set::map([Datatype::Mark], kind) });
    let source = match service.client_source {
        ClientSource::Preserve => PRESERVED,
        ClientSource::Masquerade => MASQUERADED,
    };
    put(table, services, key, Data::Verdict(Verdict::Jump(chain)));
    put(table, published, key, Data::mark(source));
}

/// The interfaces that a server's neighbours come in by and go out by, each pair with where they are: on a bridge they may have any address.
fn beside(entry: Entry, outcome: &Outcome, kernel: &KernelFacts, v6: bool) -> Vec<(IfIndex, IfIndex, Vec<IpNet>)> {
    let interfaces: Vec<IfIndex> = outcome.interfaces(entry).collect();
    let on_link = |interface: IfIndex| -> Vec<IpNet> {
        let own = kernel.addresses_at(Place { nsid: None, index: interface }).map(|address| address.net.trunc());
        own.filter(|net| net.addr().is_ipv6() == v6).collect()
    };
    let Some(bridge) = entry.bridge() else {
        let interface = entry.interface();
        return vec![(interface, interface, on_link(interface))];
    };
    let everywhere: IpNet = if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() };
    let pairs = interfaces.iter().flat_map(|into| interfaces.iter().map(move |out| (*into, *out)));
    let pairs = pairs.map(|(into, out)| (into, out, vec![everywhere]));
    // What br_netfilter translates stays on the bridge, and has lost the interface that it came in by.
    pairs.chain([(0, bridge, on_link(bridge))]).collect()
}

fn put(table: &mut Table, set: &str, key: Key, data: Data) {
    table.sets.entry(set.to_owned()).and_modify(|set| drop(set.elements.insert(key, data)));
}

/// The slots of a service, by its chain's name.
pub fn slots_of<'a>(table: &'a Table, chain: &str) -> Option<&'a Elements> {
    let service = chain.strip_prefix("service-")?;
    table.sets.get(&format!("servers-{service}")).map(|set| &set.elements)
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

/// The set of a service's slots.
fn slots_set(service: &Service) -> String {
    service_name("servers", service)
}

/// `service-tcp-27017-172.31.0.14`: a name that `nft` can read, without colons and slashes.
fn service_name(what: &str, service: &Service) -> String {
    format!("{what}-{}-{}", service.ports, service.address).replace('/', "-").replace(':', "_")
}
