//! Containers of an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::facts::{Attachment, Container, IfIndex, Network};
use super::super::known::Known;
use super::super::port_owners::{Key, Request};
use super::super::reason::Reason;
use super::super::select::Held;
use super::super::served::{refuse_mode, refuse_network};
use super::super::workload::{Row, State, Subject, choose};
use super::{Guard, Pending, Resolver, blank};
use crate::fnv::Fnv;

impl<'a> Resolver<'a> {
    /// A bridge is guarded from the moment that a container that asks for an exit is made for it, until that one is removed. The same of one that a
    /// link of such a container is on already: it sends by that as soon as its default route moves there, and the engine tells of it later.
    pub(super) fn guards(&self, bound: &[(&Known, Vec<Held>)]) -> BTreeMap<IfIndex, Guard> {
        let (mut asked, mut joined): (BTreeSet<&str>, BTreeSet<IfIndex>) = Default::default();
        for (Known { container, .. }, _) in bound.iter().filter(|(_, held)| !held.is_empty()) {
            asked.extend(self.networks_of(container).map(|network| network.id.as_str()));
            joined.extend(self.bridges_of(container));
        }
        let guard = |network: &Network, bridge: IfIndex| match network.guard {
            Some(true) => Some(Guard::Closed),
            other if asked.contains(network.id.as_str()) || joined.contains(&bridge) => {
                Some(if other == Some(false) { Guard::Open } else { Guard::Closed })
            }
            _ => None,
        };
        let bridges = self.facts.networks.values().filter(|n| n.driver == "bridge");
        bridges.filter_map(|n| Some((n, self.bridge(n)?))).filter_map(|(n, bridge)| Some((bridge, guard(n, bridge)?))).collect()
    }

    /// The bridges that some link of a container is a port of.
    fn bridges_of<'c>(&'c self, container: &'c Container) -> impl Iterator<Item = IfIndex> + 'c {
        let kernel = &self.facts.kernel;
        let ports = self.keys_of(container).flat_map(move |(bridge, address)| {
            kernel.near_ends_of(address).filter(move |link| link.master == Some(bridge)).filter_map(|link| link.peer_nsid)
        });
        ports.flat_map(move |nsid| kernel.ends_of(nsid)).filter_map(|link| link.master)
    }

    /// The networks that a container is on, or is going to be on.
    pub(super) fn networks_of<'c>(&'c self, container: &'c Container) -> impl Iterator<Item = &'a Network> + 'c {
        let mode = match container.network_mode.as_str() {
            "default" => "bridge",
            other => other,
        };
        let named = container.attachments.iter().filter_map(|attachment| self.network(attachment));
        // The engine says nothing of a made container that is put on another network before it starts there.
        let placed = container.asked.as_ref().and_then(|asked| asked.placement.network.as_deref());
        named.chain([Some(mode), placed].into_iter().flatten().filter_map(|name| self.networks.get(name).copied()))
    }

    /// The addresses of a container on bridges.
    pub(super) fn keys_of<'c>(&'c self, container: &'c Container) -> impl Iterator<Item = Key> + 'c {
        let on_bridge = |attachment: &'c Attachment| Some((self.bridge(self.network(attachment)?)?, attachment));
        let attachments = container.attachments.iter().filter_map(on_bridge);
        attachments.flat_map(|(bridge, attachment)| attachment.addresses.iter().map(move |address| (bridge, *address)))
    }

    /// The rows of a container, and whom it asks for their ports.
    pub(super) fn container(&self, known: &Known, held: &[Held], guards: &BTreeMap<IfIndex, Guard>, pending: &mut Pending) {
        let Known { container, told } = known;
        let binding = held.first();
        if let (Some(error), Some(_)) = (refuse_mode(&container.network_mode), binding) {
            pending.rows.push(row(container, None, held, State::Refused(Reason::NotServed(error))));
            return;
        }
        if !container.running {
            return;
        }
        let default_route = self.default_route(container);
        if container.attachments.is_empty() && binding.is_some() {
            pending.rows.push(row(container, None, held, State::Waiting(Reason::NoAddressYet)));
        }
        for attachment in &container.attachments {
            let Some(network) = self.network(attachment) else {
                if binding.is_some() {
                    let unknown = Reason::NoSuchNetwork { network: attachment.network.clone() };
                    pending.rows.push(row(container, Some(attachment), held, State::Waiting(unknown)));
                }
                continue;
            };
            let bridge = self.bridge(network);
            if binding.is_none() && !bridge.is_some_and(|b| guards.contains_key(&b)) {
                continue;
            }
            let of = |state| Row {
                default_route: default_route == Some(attachment.network.as_str()),
                ..row(container, Some(attachment), held, state)
            };
            if let Some(error) = refuse_network(network) {
                // Whoever asks for nothing is where it is meant to be.
                if binding.is_some() {
                    pending.rows.push(of(State::Refused(Reason::NotServed(error))));
                }
                continue;
            }
            if attachment.addresses.is_empty() && binding.is_some() {
                pending.rows.push(of(State::Waiting(Reason::NoAddressYet)));
            }
            for address in &attachment.addresses {
                if let Some(bridge) = bridge {
                    let (ports, owner) = (self.ports(bridge, *address), owner(&container.id));
                    let request = Request { key: (bridge, *address), ports, proven: false, told: *told, owner };
                    pending.requests.push((request, pending.rows.len()));
                }
                let state = match binding {
                    None => State::Free,
                    Some(_) if bridge.is_none() => {
                        State::Waiting(Reason::NoSuchBridge { network: network.name.clone(), bridge: network.bridge.clone() })
                    }
                    Some(_) if self.leaves(container, attachment, *address) => State::Dropped(Reason::BeingPlaced),
                    Some(binding) => choose(self.uplinks, binding, *address),
                };
                pending.rows.push(Row { address: Some(IpNet::from(*address)), ..of(state) });
            }
        }
    }

    /// The container is being moved, and this is not where to: a flow that began here would hang once the address is gone.
    fn leaves(&self, container: &Container, attachment: &Attachment, address: IpAddr) -> bool {
        let asked = container.asked.as_ref().filter(|_| self.facts.moving.contains(&container.id));
        asked.is_some_and(|asked| !attachment.fits(&asked.placement, address))
    }

    /// Docker's own rule: the highest gateway priority, then the first name; internal networks carry none.
    fn default_route<'c>(&self, container: &'c Container) -> Option<&'c str> {
        // One without an address is being left.
        let carries = |a: &&Attachment| !a.addresses.is_empty() && self.network(a).is_none_or(|n| !n.internal);
        let best = container.attachments.iter().filter(carries).min_by_key(|a| (std::cmp::Reverse(a.gateway_priority), &a.network));
        best.map(|a| a.network.as_str())
    }
}

/// What tells a container from other owners of addresses.
pub(super) fn owner(id: &str) -> u64 {
    let mut hash = Fnv::default();
    id.hash(&mut hash);
    hash.finish()
}

fn row(container: &Arc<Container>, attachment: Option<&Attachment>, held: &[Held], state: State) -> Row {
    Row { network: attachment.map(|a| a.network.clone()), state, ..blank(Subject::Container(Arc::clone(container)), held) }
}
