//! Flows of servers that a service has no more. Open connections drain as long as the server lives; datagrams have no end of their own, and
//! those of a server that is gone would be sent to whoever gets its address next.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::datapath::{admission, inbound, names};
use super::elements::{address_in, owners};
use super::step::RouteStep;
use crate::model::facts::{IfIndex, KernelFacts, LinkKind};
use crate::model::ports::{Called, Ports, Protocol};
use crate::model::services::{Endpoint, Served};
use crate::nft::{Data, Family, Key, Ruleset, Table, Verdict};

/// Flows to end: those to ports of a service that one server answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerCut {
    /// Who answers; the address that was called itself while nobody served it.
    pub server: IpAddr,
    /// The address that was called.
    pub called: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// The ports that were called, first and last.
    pub ports: (u16, u16),
}

impl ServerCut {
    /// Whether it ends a flow, by what was called.
    pub fn hits(&self, called: IpAddr, protocol: u8, port: u16) -> bool {
        self.called == called && self.protocol == protocol && (self.ports.0..=self.ports.1).contains(&port)
    }
}

impl fmt::Display for ServerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, called, protocol, ports: (first, last) } = self;
        write!(f, "end flows that {called}, protocol {protocol}, ports {first} to {last}, brought to {server}")
    }
}

/// The flows that are to end when `observed` becomes `desired`. Connections are, too, when the server is gone, or all of the tables are.
pub fn server_cuts(observed: &Ruleset, desired: &Ruleset, kernel: &KernelFacts) -> Vec<ServerCut> {
    let mut cuts = Vec::new();
    let mut gone: Option<BTreeSet<IpAddr>> = None;
    for family in [Family::Ip, Family::Ip6] {
        let Some(before) = observed.tables.get(&family) else { continue };
        let after = desired.tables.get(&family);
        let v6 = family == Family::Ip6;
        for (key, chain) in services(before) {
            let left = left_by(before, after, key, chain, v6);
            for server in left {
                let gone = gone.get_or_insert_with(|| disowned(observed, desired));
                let lives = kernel.near_ends_of(server).next().is_some();
                let connections = after.is_none() || (gone.contains(&server) && !lives);
                let cut = cut(key, server, v6).filter(|cut| connections || cut.protocol == Protocol::Udp.number());
                cuts.extend(cut);
            }
        }
    }
    cuts.extend(begun_before(observed, desired));
    cuts
}

/// Flows to ports that nobody served before, and that lead to this host itself: of datagrams each packet keeps them alive, and of SCTP each call
/// from the port that was refused before. (Of TCP a new call ends the flow of a refused one.)
fn begun_before(observed: &Ruleset, desired: &Ruleset) -> Vec<ServerCut> {
    let mut cuts = Vec::new();
    for (family, after) in desired.tables.iter().filter(|(family, _)| **family != Family::Bridge) {
        let v6 = *family == Family::Ip6;
        let before = observed.tables.get(family);
        let new = services(after).filter(|(key, _)| !before.is_some_and(|before| services_has(before, key)));
        let called = new.filter_map(|(key, _)| cut(key, address_in(key.first.as_slice(), v6)?, v6));
        cuts.extend(called.filter(|cut| cut.protocol != Protocol::Tcp.number()));
    }
    cuts
}

/// Ports of servers that begin to let frames leave by the port that they came in by, and ports of former servers that end it. Where frames pass
/// iptables (br_netfilter), a call that its own turn brings back to its server never leaves the bridge, and no bridge does that by itself. Where
/// ports that are nobody's server have it, whoever made the bridge wants it for all (a CNI plugin's `hairpinMode`), and it stays.
pub fn hairpins(observed: &Ruleset, desired: &Ruleset, kernel: &KernelFacts) -> (Vec<RouteStep>, Vec<RouteStep>) {
    let (before, after) = (ports(observed), ports(desired));
    let step = |port: &IfIndex, on: bool| {
        let link = kernel.links.get(port).filter(|link| link.kind == LinkKind::Veth && link.hairpin != on)?;
        Some(RouteStep::SetHairpin { index: link.index, on })
    };
    let is_of_all = |port: &IfIndex| {
        let bridge = kernel.links.get(port).and_then(|link| link.master);
        let others = kernel.links.values().filter(|link| link.hairpin && link.kind == LinkKind::Veth && link.master == bridge);
        others.map(|link| &link.index).any(|other| !before.contains(other) && !after.contains(other))
    };
    let on = after.iter().filter_map(|port| step(port, true)).collect();
    let off = before.difference(&after).filter_map(|port| step(port, false).filter(|_| !is_of_all(port)));
    (on, off.collect())
}

/// The ports of bridges that lead to servers.
fn ports(ruleset: &Ruleset) -> BTreeSet<IfIndex> {
    let mut servers: BTreeSet<IpAddr> = BTreeSet::new();
    for (family, table) in ruleset.tables.iter().filter(|(family, _)| **family != Family::Bridge) {
        let v6 = *family == Family::Ip6;
        let slots = services(table).filter_map(|(_, chain)| inbound::slots_of(table, chain));
        servers.extend(slots.flat_map(|slots| slots.values()).filter_map(|data| server_in(data, v6)));
        // Answers to a server that IPVS has brought to itself are translated on the bridge in the same way.
        let by_ipvs = table.sets.get(names::VIRTUAL).is_some_and(|set| !set.elements.is_empty());
        let serving = table.sets.get(names::SERVING).filter(|_| by_ipvs).into_iter().flat_map(|set| set.elements.keys());
        servers.extend(serving.filter_map(|key| address_in(key.first.as_slice(), v6)));
    }
    if servers.is_empty() {
        return BTreeSet::new();
    }
    owners(ruleset).into_iter().filter(|(_, address)| servers.contains(address)).map(|(port, _)| port).collect()
}

/// The server that a slot leads to.
fn server_in(data: &Data, v6: bool) -> Option<IpAddr> {
    endpoint_in(data, v6).map(|(address, _)| address)
}

/// The services of a table, with their chains.
fn services(table: &Table) -> impl Iterator<Item = (&Key, &str)> {
    let sets = [names::SERVICES, names::SERVICES_RANGES].into_iter().filter_map(|name| table.sets.get(name));
    sets.flat_map(|set| set.elements.iter()).filter_map(|(key, data)| match data {
        Data::Verdict(Verdict::Jump(chain)) => Some((key, chain.as_str())),
        _ => None,
    })
}

/// The ports that a ruleset serves, and who gets their new connections.
pub fn served(ruleset: &Ruleset) -> Served {
    let mut served = Served::new();
    for (family, table) in ruleset.tables.iter().filter(|(family, _)| **family != Family::Bridge) {
        let v6 = *family == Family::Ip6;
        for (key, chain) in services(table) {
            let slots = inbound::slots_of(table, chain).into_iter().flat_map(|slots| slots.values());
            let servers: BTreeSet<Endpoint> = slots.filter_map(|data| endpoint_in(data, v6)).collect();
            served.extend(called(key, v6).map(|called| (called, servers.into_iter().collect())));
        }
    }
    served
}

/// The virtual services of IPVS that are ours.
pub fn virtual_services(ruleset: &Ruleset) -> BTreeSet<Called> {
    let tables = ruleset.tables.iter().filter(|(family, _)| **family != Family::Bridge);
    let keys = tables.filter_map(|(family, table)| Some((*family == Family::Ip6, table.sets.get(names::VIRTUAL)?)));
    keys.flat_map(|(v6, set)| set.elements.keys().filter_map(move |key| called(key, v6))).collect()
}

/// Address and port that a slot leads to; of a range the port is 0.
fn endpoint_in(data: &Data, v6: bool) -> Option<Endpoint> {
    let value = match data {
        Data::Value(value) => value,
        Data::Verdict(Verdict::Jump(chain)) => return admission::server_of(chain),
        _ => return None,
    };
    let bytes = value.as_slice();
    let port = bytes.get(if v6 { 16 } else { 4 }..).and_then(|port| Some(u16::from_be_bytes(*port.first_chunk()?)));
    Some((address_in(bytes, v6)?, port.unwrap_or(0)))
}

/// What the key of a service stands for.
fn called(key: &Key, v6: bool) -> Option<Called> {
    let first = key.first.as_slice();
    let at = if v6 { 16 } else { 4 };
    let protocol = first.get(at).copied().and_then(Protocol::numbered)?;
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.get(at + 4..)?.first_chunk()?));
    let last = key.last.map_or_else(|| port(first), |last| port(last.as_slice()))?;
    Some((address_in(first, v6)?, Ports { protocol, first: port(first)?, last }))
}

/// The servers that a service has no more.
fn left_by(before: &Table, after: Option<&Table>, key: &Key, chain: &str, v6: bool) -> BTreeSet<IpAddr> {
    let Some(slots) = inbound::slots_of(before, chain) else { return BTreeSet::new() };
    // A service's chain has its name from its key.
    let still = after.filter(|table| services_has(table, key)).and_then(|table| inbound::slots_of(table, chain));
    if still.is_some_and(|still| still.is_shared_with(slots)) {
        return BTreeSet::new();
    }
    let addresses = |data: &Data| server_in(data, v6);
    let still: BTreeSet<IpAddr> = still.into_iter().flat_map(|slots| slots.values()).filter_map(addresses).collect();
    slots.values().filter_map(addresses).filter(|server| !still.contains(server)).collect()
}

fn services_has(table: &Table, key: &Key) -> bool {
    [names::SERVICES, names::SERVICES_RANGES].into_iter().filter_map(|name| table.sets.get(name)).any(|set| set.elements.contains_key(key))
}

/// The addresses that a port of a bridge owned, and none owns any more.
fn disowned(observed: &Ruleset, desired: &Ruleset) -> BTreeSet<IpAddr> {
    let after: BTreeSet<IpAddr> = owners(desired).into_iter().map(|(_, address)| address).collect();
    owners(observed).into_iter().map(|(_, address)| address).filter(|address| !after.contains(address)).collect()
}

fn cut(key: &Key, server: IpAddr, v6: bool) -> Option<ServerCut> {
    let (called, Ports { protocol, first, last }) = called(key, v6)?;
    Some(ServerCut { server, called, protocol: protocol.number(), ports: (first, last) })
}
