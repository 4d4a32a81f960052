//! The desired ruleset of an outcome: fixed rules, and sets filled from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::chains::{self, CLOSED};
use super::flows::{ClaimChange, Door};
use crate::contract::{FLAG, FLOW_MASK};
use crate::model::binding::Traffic;
use crate::model::facts::{IfIndex, KernelFacts};
use crate::model::ground::Memory;
use crate::model::resolve::{Guard, Outcome, Past};
use crate::model::workload::{Entry, Row, State};
use crate::nft::{Bytes, Chain, Change, Data, Datatype, Family, Key, Ruleset, Set, Table, Verdict};

/// The ruleset that an outcome needs; no table at all when nothing is bound.
pub fn ruleset(outcome: &Outcome) -> Ruleset {
    if outcome.ground.uplinks.is_empty() {
        return Ruleset::default();
    }
    Ruleset {
        tables: BTreeMap::from([(Family::Ip, ip(outcome, false)), (Family::Ip6, ip(outcome, true)), (Family::Bridge, bridge(outcome))]),
    }
}

fn bridge(outcome: &Outcome) -> Table {
    let claims = |v6| {
        let claim = |row: &Row| match (row.entry?, row.address?.addr()) {
            (Entry::Port { port, .. }, address) if address.is_ipv6() == v6 => Some((source(port, address), Data::mark(row.state.claim()?))),
            _ => None,
        };
        outcome.rows.iter().filter_map(claim).collect()
    };
    let claims4 = Set { elements: claims(false), ..Set::map([Datatype::IfIndex, Datatype::Ipv4], Datatype::Mark) };
    let claims6 = Set { elements: claims(true), ..Set::map([Datatype::IfIndex, Datatype::Ipv6], Datatype::Mark) };
    Table { chains: chains::bridge(), sets: BTreeMap::from([("claims4".to_owned(), claims4), ("claims6".to_owned(), claims6)]) }
}

fn ip(outcome: &Outcome, v6: bool) -> Table {
    let address = if v6 { Datatype::Ipv6 } else { Datatype::Ipv4 };
    let source_key = [Datatype::IfIndex, address];
    let mut sets = Sets::new(
        v6,
        [
            ("uplinks", Set::of([Datatype::IfIndex])),
            ("ingress", Set::map([Datatype::IfIndex], Datatype::Verdict)),
            ("routed", Set::map(source_key, Datatype::Mark)),
            ("routed_nets", Set::map(source_key, Datatype::Mark).with_ranges()),
            ("traffic", Set::map(source_key, Datatype::Verdict)),
            ("traffic_nets", Set::map(source_key, Datatype::Verdict).with_ranges()),
            ("exits", Set::map([Datatype::IfIndex, Datatype::Mark], address)),
            ("own", Set::of(source_key)),
            ("inside", inside_set(outcome.inside.iter(), v6)),
            ("exit_marks", Set::map([Datatype::Mark], Datatype::Verdict)),
            ("nic_marks", Set::map([Datatype::Mark], Datatype::Verdict)),
        ],
    );
    let mut chains = chains::fixed(v6);
    let mut routed: BTreeSet<IfIndex> = BTreeSet::new();
    for row in &outcome.rows {
        let (Some(entry), Some(net), Some(claim)) = (row.entry, row.address, row.state.claim()) else { continue };
        if net.addr().is_ipv6() != v6 {
            continue;
        }
        if let Entry::Routed { interface } = entry {
            routed.insert(interface);
            sets.put_source("routed", "routed_nets", interface, net, Data::mark(claim));
        }
        let traffic = row.binding.as_ref().map(|b| &b.traffic).filter(|t| **t != Traffic::default());
        if let (Some(traffic), State::Bound(_)) = (traffic, &row.state) {
            let name = chains::traffic_name(traffic);
            if !chains.contains_key(&name) {
                chains.extend(chains::traffic(traffic, v6));
            }
            sets.put_source("traffic", "traffic_nets", entry.interface(), net, goto(name));
        }
    }
    for (bridge, guard) in &outcome.guards {
        let verdict = match guard {
            Guard::Closed => Verdict::Goto(CLOSED.to_owned()),
            Guard::Open => Verdict::Jump("from_open_bridge".to_owned()),
        };
        sets.put("ingress", interface(*bridge), Data::Verdict(verdict));
    }
    // Bridges without a guard of their own whose ports are bound by namespace or address.
    let bridges: BTreeSet<IfIndex> = outcome.rows.iter().filter_map(|row| row.entry?.bridge()).collect();
    for bridge in bridges.into_iter().filter(|bridge| !outcome.guards.contains_key(bridge)) {
        sets.put("ingress", interface(bridge), Data::Verdict(Verdict::Jump("from_open_bridge".to_owned())));
    }
    for nic in routed.iter().filter(|nic| !outcome.guards.contains_key(nic)) {
        sets.put("ingress", interface(*nic), Data::Verdict(Verdict::Jump("from_routed".to_owned())));
    }
    sets.put("nic_marks", Bytes::default().number(FLAG), goto(chains::nic_name(0)));
    chains.insert(chains::nic_name(0), chains::nic(0));
    for uplink in outcome.ground.uplinks.values() {
        let arrival = chains::arrival_name(uplink.number);
        sets.put("uplinks", interface(uplink.index), Data::None);
        sets.put("ingress", interface(uplink.index), Data::Verdict(Verdict::Jump(arrival.clone())));
        chains.insert(arrival, chains::arrival(uplink.number, routed.contains(&uplink.index)));
        sets.put("nic_marks", Bytes::default().number(FLAG | u32::from(uplink.number)), goto(chains::nic_name(uplink.number)));
        chains.insert(chains::nic_name(uplink.number), chains::nic(uplink.number));
        for address in uplink.addresses.iter().filter(|a| a.is_ipv6() == v6) {
            sets.put("own", Bytes::default().number(uplink.index).address(*address), Data::None);
        }
    }
    for exit in outcome.ground.exits().filter(|e| e.address.is_ipv6() == v6) {
        sets.put("exits", Bytes::default().number(exit.interface).number(exit.mark), Data::address(exit.address));
        put_exit(&mut sets, &mut chains, exit.mark);
    }
    Table { chains, sets: sets.all }
}

/// Subnets of one family that are inside, by whatever interface the packet comes. None lies in another: the kernel takes no nested ones.
pub fn inside_set<'a>(inside: impl Iterator<Item = &'a IpNet>, v6: bool) -> Set {
    let family: Vec<IpNet> = inside.filter(|net| net.addr().is_ipv6() == v6).copied().collect();
    let mut set = Set::of([Datatype::IfIndex, if v6 { Datatype::Ipv6 } else { Datatype::Ipv4 }]).with_ranges();
    set.elements.extend(IpNet::aggregate(&family).into_iter().map(|net| (Key::any_interface(net), Data::None)));
    set
}

fn put_exit(sets: &mut Sets, chains: &mut BTreeMap<String, Chain>, mark: u32) {
    sets.put("exit_marks", Bytes::default().number(mark), goto(chains::exit_name(mark)));
    chains.insert(chains::exit_name(mark), chains::exit(mark));
}

fn goto(chain: String) -> Data {
    Data::Verdict(Verdict::Goto(chain))
}

fn interface(index: IfIndex) -> Bytes {
    Bytes::default().number(index)
}

fn source(interface: IfIndex, address: IpAddr) -> Key {
    Key::one(Bytes::default().number(interface).address(address))
}

/// The sets of one table while they are filled.
struct Sets {
    v6: bool,
    all: BTreeMap<String, Set>,
}

impl Sets {
    fn new<const N: usize>(v6: bool, sets: [(&str, Set); N]) -> Self {
        Self { v6, all: sets.map(|(name, set)| (name.to_owned(), set)).into() }
    }

    fn put(&mut self, set: &str, key: Bytes, data: Data) {
        self.insert(set, Key::one(key), data);
    }

    /// Single addresses are hashed; subnets go into the set of ranges.
    fn put_source(&mut self, single: &str, nets: &str, interface: IfIndex, net: IpNet, data: Data) {
        debug_assert_eq!(net.addr().is_ipv6(), self.v6);
        if net.prefix_len() == net.max_prefix_len() {
            self.insert(single, source(interface, net.addr()), data);
        } else {
            self.insert(nets, Key::prefix(interface, net), data);
        }
    }

    fn insert(&mut self, set: &str, key: Key, data: Data) {
        self.all.get_mut(set).expect("one of the table's sets").elements.insert(key, data);
    }
}

/// Puts into `desired` what `observed` has beyond it: for as long as not every source has spoken, nothing is taken away.
pub fn keep(desired: &mut Ruleset, observed: &Ruleset) {
    for (family, there) in &observed.tables {
        let table = desired.tables.entry(*family).or_insert_with(|| there.clone());
        for (name, chain) in &there.chains {
            table.chains.entry(name.clone()).or_insert_with(|| chain.clone());
        }
        for (name, set) in &there.sets {
            let wanted = table.sets.entry(name.clone()).or_insert_with(|| set.clone());
            for (key, data) in &set.elements {
                wanted.elements.entry(*key).or_insert_with(|| data.clone());
            }
        }
    }
}

/// The same tables without a claim: nobody's flows begin with an exit any more.
pub fn unclaimed(observed: &Ruleset) -> Ruleset {
    let mut tables = observed.clone();
    for (family, table) in &mut tables.tables {
        for (_, set) in table.sets.iter_mut().filter(|(name, _)| claim_set(*family, name).is_some()) {
            set.elements.clear();
        }
    }
    tables
}

/// Takes numbers, doors and guards back from a ruleset that an earlier run left.
pub fn read_back(observed: &Ruleset, kernel: &KernelFacts, past: &mut Past) {
    let Past { memory: Memory { numbers, .. }, doors, pod_bridges } = past;
    for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
        let Some(table) = observed.tables.get(&family) else { continue };
        for (key, data) in table.sets.get("ingress").into_iter().flat_map(|s| &s.elements) {
            let Some(interface) = number_at(key, 0) else { continue };
            match data {
                Data::Verdict(Verdict::Goto(chain)) if chain == CLOSED => drop(pod_bridges.insert(interface)),
                Data::Verdict(Verdict::Jump(chain)) => {
                    let number = chain.strip_prefix("arrival-").and_then(|n| n.parse::<u8>().ok());
                    number.into_iter().for_each(|number| numbers.read_back(interface, None, FLAG | u32::from(number)));
                }
                _ => {}
            }
        }
        for (key, data) in table.sets.get("exits").into_iter().flat_map(|s| &s.elements) {
            let Data::Value(value) = data else { continue };
            if let (Some(nic), Some(mark), Some(address)) = (number_at(key, 0), number_at(key, 4), address_in(value.as_slice(), v6)) {
                numbers.read_back(nic, Some(address), mark);
            }
        }
    }
    for ((port, net), _) in claims(observed) {
        if let Some(bridge) = kernel.links.get(&port).and_then(|link| link.master) {
            doors.read_back(bridge, net.addr(), port);
        }
    }
}

/// The claims of a ruleset's single sources, by door.
fn claims(ruleset: &Ruleset) -> BTreeMap<Door, u32> {
    let sets = [(Family::Bridge, "claims4", false), (Family::Bridge, "claims6", true)];
    let mut all = BTreeMap::new();
    for (family, name, v6) in sets {
        let Some(set) = ruleset.tables.get(&family).and_then(|t| t.sets.get(name)) else { continue };
        all.extend(set.elements.iter().filter_map(|(key, data)| Some((door_of(key, v6)?, claim_of(data)?))));
    }
    all
}

/// Changes of claims in a batch: a key that goes and comes in it changed its claim. `observed` is what the batch was made against.
pub fn claim_changes(changes: &[Change], observed: &Ruleset) -> Vec<ClaimChange> {
    let mut all: BTreeMap<Door, (Option<u32>, Option<u32>)> = BTreeMap::new();
    for change in changes {
        match change {
            Change::DeleteElements(family, set, keys) => {
                let Some(v6) = claim_set(*family, set) else { continue };
                let before = observed.tables.get(family).and_then(|t| t.sets.get(set));
                for key in keys {
                    let claim = before.and_then(|s| claim_of(s.elements.get(key)?));
                    if let Some(door) = door_of(key, v6) {
                        all.entry(door).or_default().0 = claim;
                    }
                }
            }
            Change::AddElements(family, set, elements) => {
                let Some(v6) = claim_set(*family, set) else { continue };
                for (key, data) in elements {
                    if let Some(door) = door_of(key, v6) {
                        all.entry(door).or_default().1 = claim_of(data);
                    }
                }
            }
            Change::DeleteTable(Family::Bridge) => {
                for (door, claim) in claims(observed) {
                    all.entry(door).or_default().0 = Some(claim);
                }
            }
            _ => {}
        }
    }
    let changed = all.into_iter().filter(|(_, (before, after))| before != after);
    changed.map(|(door, (before, after))| ClaimChange { door, before, after }).collect()
}

/// Whether a set holds claims, and of IPv6.
fn claim_set(family: Family, name: &str) -> Option<bool> {
    match (family, name) {
        (Family::Bridge, "claims4") | (Family::Ip, "routed" | "routed_nets") => Some(false),
        (Family::Bridge, "claims6") | (Family::Ip6, "routed" | "routed_nets") => Some(true),
        _ => None,
    }
}

fn claim_of(data: &Data) -> Option<u32> {
    match data {
        Data::Value(value) => Some(u32::from_ne_bytes(value.as_slice().get(..4)?.try_into().ok()?) & FLOW_MASK),
        Data::None | Data::Verdict(_) => None,
    }
}

fn number_at(key: &Key, at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(key.first.as_slice().get(at..at + 4)?.try_into().ok()?))
}

fn address_in(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    if v6 { Some(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?.into()) } else { Some(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?.into()) }
}

/// Interface and source of a claim's key; those of ranges are in network order.
fn door_of(key: &Key, v6: bool) -> Option<Door> {
    let first = address_in(key.first.as_slice().get(4..)?, v6)?;
    let Some(last) = key.last else { return Some((number_at(key, 0)?, IpNet::from(first))) };
    let last = address_in(last.as_slice().get(4..)?, v6)?;
    let (first_bits, last_bits) = (bits(first), bits(last));
    let host_bits = (first_bits ^ last_bits).count_ones() as u8;
    let prefix = if v6 { 128 - host_bits } else { 32 - host_bits };
    Some((number_at(key, 0)?.swap_bytes(), IpNet::new(first, prefix).ok()?))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}
