//! The fast path: open flows of bound workloads, in a flowtable of nftables.
//!
//! A flow in it is forwarded where its packets come in, past every chain. So it is open only while nothing of ours changes: whatever else a plan
//! does, it is closed first, and opened again when all flows that had to end have ended. It is a table of its own, which is made in one
//! piece and deleted in one piece, is never compared, and that nothing else depends on.
//!
//! Who a packet is from is told by the port that it comes in by: the devices are ports of bridges, never a bridge. Which port a flow comes in by
//! the kernel takes from the bridge's forwarding database, so the hardware addresses there are pinned to their ports beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::datapath::{ASSURED, ETHERTYPE, ORIGINAL, REDIRECTED, TRANSLATED, ours};
use crate::contract::{PRIORITY_FAST, PRIORITY_FLOWTABLE};
use crate::model::binding::Spread;
use crate::model::facts::{IfIndex, KernelFacts, Link, LinkKind, Mac, Place};
use crate::model::resolve::Outcome;
use crate::model::uplinks::Exit;
use crate::model::workload::{Entry, Row, State};
use crate::nft::build::{ct_direction, ct_reply_daddr, ct_status, ether_saddr, iif, oif, protocol, saddr};
use crate::nft::{Base, Bytes, ChainKind, Change, Data, Datatype, Family, Flowtable, Hook, Key, Rule, Set};

/// As many devices fit into each of the kernel's messages about a flowtable: one that does not fit drops out of listings, and its events are
/// lost. (255 is the most that the kernel takes at once.)
pub const MOST_DEVICES: usize = 160;

const FLOWTABLE: &str = "flows";
const CHAIN: &str = "forward";
/// Bridge, hardware address: what the flow's frames come from.
const FRAMES: &str = "frames";
/// Bridge, source: who is bound.
const SOURCES: [&str; 2] = ["sources4", "sources6"];
/// NIC, exit.
const EXITS: [&str; 2] = ["exits4", "exits6"];

/// Whose flows are to be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub ports: BTreeMap<IfIndex, Port>,
    /// NICs of their exits, and their names.
    uplinks: BTreeMap<IfIndex, String>,
    exits: BTreeSet<(IfIndex, IpAddr)>,
}

/// A port of a bridge that leads to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    name: String,
    pub bridge: IfIndex,
    /// Its other end.
    pub far: Place,
    sources: BTreeSet<IpAddr>,
}

/// Where a bridge sends frames for a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    pub mac: Mac,
    pub port: IfIndex,
    /// It is the host's own.
    pub local: bool,
    /// Frames that come in elsewhere do not move it.
    pub pinned: bool,
}

/// Whose flows may be in the fast path: of workloads at a port of their own, with one exit at a time, for all traffic and as fast as they can.
pub fn wanted(outcome: &Outcome, kernel: &KernelFacts) -> Wanted {
    let mut wanted = Wanted::default();
    for row in &outcome.rows {
        let (Some((exit, port, bridge)), Some(net)) = (is_plain(outcome, row), row.address) else { continue };
        let (Some(link), Some(nic)) = (kernel.links.get(&port), kernel.links.get(&exit.interface)) else { continue };
        let (Some(far), true) = (link.far_end(), is_ethernet(nic)) else { continue };
        let leads = link.kind == LinkKind::Veth && link.master == Some(bridge) && link.up && link.isolated.is_none();
        if !leads || net.prefix_len() != net.max_prefix_len() {
            continue;
        }
        let new = usize::from(!wanted.ports.contains_key(&port)) + usize::from(!wanted.uplinks.contains_key(&nic.index));
        if wanted.ports.len() + wanted.uplinks.len() + new > MOST_DEVICES {
            continue;
        }
        let entry = || Port { name: link.name.clone(), bridge, far, sources: BTreeSet::new() };
        wanted.ports.entry(port).or_insert_with(entry).sources.insert(net.addr());
        wanted.uplinks.insert(nic.index, nic.name.clone());
        wanted.exits.insert((nic.index, exit.address));
    }
    wanted
}

/// The exit of a row whose flows pass no rule but those that are asked when a flow is added, and its port and bridge.
fn is_plain(outcome: &Outcome, row: &Row) -> Option<(Exit, IfIndex, IfIndex)> {
    let (State::Bound(exit), Some(Entry::Port { port, bridge }), Some(binding)) = (&row.state, row.entry, &row.binding) else {
        return None;
    };
    let plain = binding.rate.is_none()
        && binding.traffic.is_everything()
        && binding.spread == Spread::FirstUsable
        && binding.inbound.is_empty()
        && exit.ports.is_none()
        && outcome.shares_of(row).is_none();
    // Frames of a bridge with devices on top have tags that nobody has looked at.
    let plain = plain && outcome.faces.get(&bridge).is_none_or(Vec::is_empty);
    plain.then_some((*exit, port, bridge))
}

/// A NIC, or something that is like one to whoever sends by it. Of a bridge above a NIC the port would have to be a device, and all that is
/// bridged there would be looked at.
fn is_ethernet(nic: &Link) -> bool {
    let kind = matches!(nic.kind, LinkKind::Other(_) | LinkKind::Veth | LinkKind::Vlan | LinkKind::Bond);
    kind && nic.master.is_none() && !nic.no_arp && !nic.point_to_point
}

impl Wanted {
    /// Nobody's.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The bridges that its ports are on.
    pub fn bridges(&self) -> BTreeSet<IfIndex> {
        self.ports.values().map(|port| port.bridge).collect()
    }

    /// The hardware address of each port that may be pinned there: nobody else on its bridge has it, so nobody is cut off by that. `far` is
    /// what the other ends of all ports of these bridges have.
    pub fn pins(&self, far: &BTreeMap<IfIndex, Mac>, database: &[Forwarding]) -> BTreeMap<IfIndex, Mac> {
        let mut holders: BTreeMap<Mac, usize> = BTreeMap::new();
        far.values().for_each(|mac| *holders.entry(*mac).or_default() += 1);
        let elsewhere: BTreeSet<(Mac, IfIndex)> = database.iter().map(|entry| (entry.mac, entry.port)).collect();
        let local: BTreeSet<Mac> = database.iter().filter(|entry| entry.local).map(|entry| entry.mac).collect();
        let of = |port: &IfIndex| {
            let mac = *far.get(port)?;
            let is_somebodys = mac.0 != [0; 6] && mac.0[0] & 1 == 0;
            let alone = holders.get(&mac) == Some(&1);
            let mut there = elsewhere.range((mac, 0)..=(mac, IfIndex::MAX));
            (is_somebodys && alone && !local.contains(&mac) && there.all(|(_, at)| at == port)).then_some((*port, mac))
        };
        self.ports.keys().filter_map(of).collect()
    }

    /// What makes it for the ports whose hardware addresses are pinned; nothing if there are none.
    pub fn table(&self, pins: &BTreeMap<IfIndex, Mac>) -> Vec<Change> {
        let ports: Vec<(&Port, Mac)> = self.ports.iter().filter_map(|(index, port)| Some((port, *pins.get(index)?))).collect();
        if ports.is_empty() {
            return Vec::new();
        }
        let devices = ports.iter().map(|(port, _)| &port.name).chain(self.uplinks.values()).cloned().collect();
        let frames = ports.iter().map(|(port, mac)| Bytes::of_number(port.bridge).mac(mac.0));
        let sources = ports.iter().flat_map(|(port, _)| port.sources.iter().map(|source| (port.bridge, *source)));
        let mut changes = skeleton(devices);
        changes.extend(elements(FRAMES, frames));
        for v6 in [false, true] {
            let family = usize::from(v6);
            let keys = |all: &mut dyn Iterator<Item = (IfIndex, IpAddr)>| -> BTreeSet<Bytes> {
                all.filter(|(_, address)| address.is_ipv6() == v6).map(|(link, address)| Bytes::of_number(link).address(address)).collect()
            };
            changes.extend(elements(SOURCES[family], keys(&mut sources.clone())));
            changes.extend(elements(EXITS[family], keys(&mut self.exits.iter().copied())));
        }
        changes
    }
}

/// Whether hardware addresses are pinned as they should be: a port that leaves its bridge takes its pin along.
pub fn are_pinned(pins: &BTreeMap<IfIndex, Mac>, database: &[Forwarding]) -> bool {
    let pinned: BTreeSet<(IfIndex, Mac)> = database.iter().filter(|entry| entry.pinned).map(|entry| (entry.port, entry.mac)).collect();
    pins.iter().all(|(port, mac)| pinned.contains(&(*port, *mac)))
}

/// What the kernel has to be able to make, but for its table.
pub fn trial() -> Vec<Change> {
    skeleton(Vec::new()).split_off(1)
}

/// The table without its elements.
fn skeleton(devices: Vec<String>) -> Vec<Change> {
    let set = |name: &str, of: [Datatype; 2]| Change::AddSet(Family::Inet, name.to_owned(), Set::of(of));
    let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: PRIORITY_FAST };
    let mut changes = vec![
        Change::AddTable(Family::Inet),
        Change::AddFlowtable(Family::Inet, FLOWTABLE.to_owned(), Flowtable { priority: PRIORITY_FLOWTABLE, devices }),
        Change::AddChain(Family::Inet, CHAIN.to_owned(), Some(base)),
        set(FRAMES, [Datatype::IfIndex, Datatype::Mac]),
    ];
    for v6 in [false, true] {
        let address = [Datatype::IfIndex, Datatype::address(v6)];
        changes.extend([SOURCES, EXITS].map(|names| set(names[usize::from(v6)], address)));
        changes.push(Change::AddRule(Family::Inet, CHAIN.to_owned(), add(v6)));
    }
    changes
}

/// Behind all filters: what leaves by a way of ours, from whom it may, by the NIC that holds its exit (as the seal will ask of this packet, too).
/// Only the original direction adds a flow: its packet has just told the bridge where its sender is.
fn add(v6: bool) -> Rule {
    let family = usize::from(v6);
    let open = ours().is(protocol(), ETHERTYPE[family]).is(ct_direction(), ORIGINAL);
    let open = open.is(ct_status().and(TRANSLATED | REDIRECTED | ASSURED), TRANSLATED | ASSURED);
    let from = open.found(SOURCES[family], [iif(), saddr(v6)]).found(FRAMES, [iif(), ether_saddr()]);
    from.found(EXITS[family], [oif(), ct_reply_daddr(v6)]).offload(FLOWTABLE)
}

fn elements(set: &str, keys: impl IntoIterator<Item = Bytes>) -> Option<Change> {
    let elements: Vec<(Key, Data)> = keys.into_iter().map(|key| (Key::one(key), Data::None)).collect();
    (!elements.is_empty()).then(|| Change::AddElements(Family::Inet, set.to_owned(), elements))
}
