//! Where workloads are known to be, by which devices their packets come in, and what passes the host by.

use std::collections::{BTreeMap, BTreeSet};

use super::super::binding::Selector;
use super::super::facts::{IfIndex, KernelFacts, Link, Place};
use super::super::known::Facts;
use super::super::pod::NetworkNamespace;
use super::super::reason::Reason;
use super::super::uplinks::Inner;
use super::super::workload::{Entry, Row, State};
use super::{Guard, Resolver, bridge_named};

impl<'a> Resolver<'a> {
    /// Where workloads are known to be, whatever they ask for.
    pub(super) fn inner(facts: &'a Facts, pod_bridges: &BTreeSet<IfIndex>) -> Inner<'a> {
        // An engine's list may have a bridge's name that a NIC has by now.
        let bridges = facts.networks.values().filter_map(|network| bridge_named(&facts.kernel, network.bridge.as_deref()?));
        let mut inner = Inner { links: bridges.chain(pod_bridges.iter().copied()).collect(), facts };
        let named = facts.manifests.bindings.iter().filter_map(|binding| match &binding.selector {
            Selector::Namespaces(names) => Some(names),
            _ => None,
        });
        let mut namespaces: BTreeSet<i32> = named.flatten().filter_map(|name| facts.kernel.namespaces.get(name).copied()).collect();
        let sandboxes = facts.sandboxes.iter().flat_map(BTreeMap::values);
        namespaces.extend(sandboxes.filter_map(|sandbox| match &sandbox.network {
            NetworkNamespace::Named(name) => facts.kernel.namespaces.get(name).copied(),
            NetworkNamespace::Numbered(nsid) => Some(*nsid),
            NetworkNamespace::Host | NetworkNamespace::Unknown | NetworkNamespace::Absent => None,
        }));
        if !namespaces.is_empty() {
            for link in facts.kernel.links.values().filter(|link| link.peer_nsid.is_some_and(|nsid| namespaces.contains(&nsid))) {
                inner.links.insert(link.index);
                inner.links.extend(link.master);
            }
        }
        inner
    }

    /// On a bridge of a NIC a workload may use the network's router as its gateway: such packets are bridged, and nothing here sees them.
    pub(super) fn refuse_bypassed(&self, rows: &mut [Row]) {
        for row in rows.iter_mut().filter(|row| row.binding.is_some()) {
            let Some(bridge) = row.entry.and_then(Entry::bridge).filter(|bridge| self.uplinks.nics.contains_key(bridge)) else { continue };
            row.state = State::Refused(Reason::DatapathBypassed { bridge: self.uplinks.name(bridge).to_owned() });
            row.entry = None;
        }
        rows.iter_mut().filter(|row| row.binding.is_none()).for_each(|row| {
            row.entry = row.entry.filter(|entry| !entry.bridge().is_some_and(|bridge| self.uplinks.nics.contains_key(&bridge)));
        });
    }

    /// A bridge's gateway may be a device on top of it: a macvlan or VLAN, or the other end of a veth that is a port of it.
    pub(super) fn faces(&self, rows: &[Row], guards: &BTreeMap<IfIndex, Guard>) -> BTreeMap<IfIndex, Vec<IfIndex>> {
        let of_rows = rows.iter().filter_map(|row| row.entry?.bridge());
        let bridges: BTreeSet<IfIndex> = of_rows.chain(guards.keys().copied()).collect();
        let mut faces: BTreeMap<IfIndex, Vec<IfIndex>> = BTreeMap::new();
        if bridges.is_empty() {
            return faces;
        }
        for (link, lower) in self.facts.kernel.stacked().filter(|(link, _)| is_face(&self.facts.kernel, link)) {
            let bridge =
                if bridges.contains(&lower.index) { Some(lower.index) } else { lower.master.filter(|master| bridges.contains(master)) };
            if let Some(bridge) = bridge.filter(|bridge| link.master != Some(*bridge)) {
                faces.entry(bridge).or_default().push(link.index);
            }
        }
        faces
    }
}

/// Packets may come in by it: no neighbour finds a link without an address, and one that is down gets none. (An end of a veth that an engine is about
/// to put into a container's namespace is both.)
pub(super) fn is_face(kernel: &KernelFacts, link: &Link) -> bool {
    link.up || kernel.addresses_at(Place { nsid: None, index: link.index }).next().is_some()
}
