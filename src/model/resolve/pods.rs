//! Pods, and containers of a runtime without a kubelet.
//!
//! A runtime tells the network namespace of each sandbox before anything runs in it; the kernel tells by which port its addresses come in.
//! Where no runtime answers there is `status.podIP`, which comes late, and stays when its pod is gone: a pod gets the port that has the
//! address when it is first seen, and never another one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::binding::{Asked, Binding};
use super::super::cluster::Seen;
use super::super::facts::{IfIndex, Link, LinkKind};
use super::super::known::Facts;
use super::super::pod::{NetworkNamespace, Owner, Pod, Sandbox};
use super::super::port_owners::{PortOwners, ROUTED, Request};
use super::super::reason::Reason;
use super::super::select::{Held, PodIndex};
use super::super::served::{refuse_host_network, refuse_mode};
use super::super::toward::toward;
use super::super::workload::{Entry, Row, State, Subject, choose};
use super::{Guard, Pending, Resolver, blank, bridge_named};

/// Owners of pods' addresses are numbered from here. (Containers are told by hashes.)
const FIRST_OWNER: u64 = u64::MAX / 2;
/// What containerd's CRI plugin has the names of pods' network namespaces begin with (its `pkg/netns/netns_linux.go`, 1.6 to 2.4).
const POD_NAMESPACE: &str = "cni-";

/// The bindings that runtimes' containers ask for by label.
pub fn labels(facts: &Facts) -> impl Iterator<Item = &Binding> {
    let living = facts.sandboxes.iter().flat_map(BTreeMap::values);
    living.chain(facts.leaving().map(|one| &one.sandbox)).filter_map(|sandbox| match &sandbox.owner {
        Owner::Container { asked, .. } => asked.as_ref()?.binding.as_ref(),
        Owner::Pod(_) => None,
    })
}

/// A workload with what is known of its addresses.
struct Workload {
    subject: Subject,
    held: Vec<Held>,
    place: PodLocation,
}

enum PodLocation {
    /// Known by its network namespace.
    At(Vec<(Entry, IpAddr)>),
    /// What the API server says its addresses are, and when the pod was first seen.
    Said(Vec<IpAddr>, u64),
    /// It is made, and has no address yet.
    Nowhere,
    Refused(Reason),
}

impl<'a> Resolver<'a> {
    pub(super) fn pods(
        &self,
        index: &PodIndex,
        owners: &PortOwners,
        bridges: &mut BTreeSet<IfIndex>,
        guards: &mut BTreeMap<IfIndex, Guard>,
        pending: &mut Pending,
    ) {
        let no_runtime = self.facts.sandboxes.is_none() || self.facts.runtime_away;
        let told: HashMap<(IpAddr, u64), IfIndex> = owners.told().filter(|_| no_runtime && self.facts.cluster.pods.is_some()).collect();
        let workloads = self.workloads(index, &told);
        // An engine's bridge is guarded, or not, by its network.
        let of_engine: BTreeSet<IfIndex> = self.facts.networks.values().filter_map(|network| self.bridge(network)).collect();
        let no_engine_s = |bridge: &IfIndex| !of_engine.contains(bridge);
        bridges.retain(|bridge| self.facts.kernel.links.contains_key(bridge) && no_engine_s(bridge));
        for Workload { held, place, .. } in &workloads {
            let PodLocation::At(sources) = place else { continue };
            for bridge in sources.iter().filter_map(|(entry, _)| entry.bridge()) {
                bridges.insert(bridge);
                if !held.is_empty() {
                    guards.insert(bridge, Guard::Closed);
                }
            }
        }
        guards.extend(self.announced().filter(no_engine_s).map(|bridge| (bridge, Guard::Closed)));
        // A pod that is started while this program is dead may be one that is asked for, so the guard does not wait for the first of them.
        if !index.is_empty() && self.facts.sandboxes.is_some() {
            bridges.extend(self.pod_ports().filter(no_engine_s));
            guards.extend(bridges.iter().map(|bridge| (*bridge, Guard::Closed)));
        }
        for (owner, workload) in workloads.into_iter().enumerate() {
            self.settle(FIRST_OWNER + owner as u64, workload, &told, guards, pending);
        }
    }

    /// Bridges that containers which ask for an exit are going to be on, by what their client said: its events may come after the first packet.
    fn announced(&self) -> impl Iterator<Item = IfIndex> {
        let sandboxes = self.facts.sandboxes.iter().flat_map(BTreeMap::values);
        let names = sandboxes.filter_map(|sandbox| match &sandbox.owner {
            Owner::Container { bridges, .. } => Some(bridges),
            Owner::Pod(_) => None,
        });
        names.flatten().filter_map(|name| bridge_named(&self.facts.kernel, name))
    }

    /// Bridges of the ports that lead to pods' namespaces, by their names: the kernel tells of those before the runtime tells of the pod.
    fn pod_ports(&self) -> impl Iterator<Item = IfIndex> {
        let namespaces = self.facts.kernel.namespaces.iter().filter(|(name, _)| name.starts_with(POD_NAMESPACE));
        namespaces.flat_map(|(_, nsid)| self.facts.kernel.ends_of(*nsid)).filter_map(|link| link.master)
    }

    fn workloads(&self, index: &PodIndex, told: &HashMap<(IpAddr, u64), IfIndex>) -> Vec<Workload> {
        let mut workloads = Vec::new();
        let mut spoken_for: HashSet<&str> = HashSet::new();
        if let Some(sandboxes) = &self.facts.sandboxes {
            let mut newest: Vec<&Arc<Sandbox>> = sandboxes.values().collect();
            newest.sort_by_key(|sandbox| Reverse((sandbox.created, &sandbox.id)));
            let mut namespaces: HashSet<i32> = HashSet::new();
            for sandbox in newest {
                match &sandbox.owner {
                    Owner::Pod(told) => {
                        let newer = spoken_for.insert(&told.uid);
                        let pod = self.api_pod(&told.uid).map_or(told, |seen| &seen.pod);
                        let place = self.place(sandbox, &mut namespaces).map(|place| match place {
                            // Its plugins are done before the kubelet tells an address: no link of theirs is still to come.
                            PodLocation::Nowhere if has_namespace(sandbox) && !pod.finished => {
                                self.on_no_link(&pod.addresses, true).unwrap_or(place)
                            }
                            place => place,
                        });
                        // An older sandbox of the same pod counts only while it still has addresses.
                        if newer || matches!(place, Some(PodLocation::At(_))) {
                            workloads.extend(place.map(|place| pod_at(pod, index, place)));
                        }
                    }
                    Owner::Container { name, asked, mode, .. } => {
                        let refused = refuse_mode(mode).map(|error| PodLocation::Refused(Reason::NotServed(error)));
                        let place = refused.or_else(|| self.place(sandbox, &mut namespaces));
                        workloads.extend(place.map(|place| alone_at(name, asked.as_ref(), place)));
                    }
                }
            }
            for leaving in self.facts.leaving().filter(|one| !namespaces.contains(&one.nsid)) {
                let Owner::Container { name, asked, .. } = &leaving.sandbox.owner else { continue };
                let mut sources = self.sources(leaving.nsid);
                sources.retain(|(entry, _)| leaving.leads(entry.link()));
                workloads.push(alone_at(name, asked.as_ref(), PodLocation::At(sources)));
            }
        }
        let runtime = self.facts.sandboxes.is_some() && !self.facts.runtime_away;
        let said = self.facts.cluster.pods.iter().flat_map(BTreeMap::values);
        for Seen { pod, place } in said.filter(|seen| !seen.pod.finished && !spoken_for.contains(seen.pod.uid.as_str())) {
            let place = match () {
                () if pod.host_network => PodLocation::Refused(Reason::NotServed(refuse_host_network())),
                () if runtime || pod.addresses.is_empty() => PodLocation::Nowhere,
                // Its link is gone, and the next one with its address may be another's.
                () if pod.addresses.iter().any(|address| told.contains_key(&(*address, *place))) => {
                    PodLocation::Said(pod.addresses.clone(), *place)
                }
                // Its link may be gone already, where nobody but the API server tells of the pod.
                () => self.on_no_link(&pod.addresses, false).unwrap_or_else(|| PodLocation::Said(pod.addresses.clone(), *place)),
            };
            workloads.push(pod_at(pod, index, place));
        }
        workloads
    }

    fn api_pod(&self, uid: &str) -> Option<&'a Seen> {
        self.facts.cluster.pods.as_ref()?.get(uid)
    }

    /// Where a sandbox is; `None` when its namespace is gone, or is a newer one's by now.
    fn place(&self, sandbox: &Sandbox, taken: &mut HashSet<i32>) -> Option<PodLocation> {
        let nsid = match &sandbox.network {
            NetworkNamespace::Host => return Some(PodLocation::Refused(Reason::NotServed(refuse_host_network()))),
            NetworkNamespace::Unknown => return Some(PodLocation::Nowhere),
            NetworkNamespace::Absent => return None,
            NetworkNamespace::Named(name) => self.facts.kernel.namespaces.get(name).copied(),
            NetworkNamespace::Numbered(nsid) => Some(*nsid),
        };
        let Some(nsid) = nsid else { return Some(PodLocation::Nowhere) };
        if !taken.insert(nsid) {
            return None;
        }
        let sources = self.sources(nsid);
        Some(if sources.is_empty() { PodLocation::Nowhere } else { PodLocation::At(sources) })
    }

    /// Where a pod with these addresses is when no link of this host leads to it, and the host itself reaches it by a NIC: beside the host. Where
    /// the host has no route to it but a default one, that is so if it has `no_other_place`.
    fn on_no_link(&self, addresses: &[IpAddr], no_other_place: bool) -> Option<PodLocation> {
        let address = *addresses.first()?;
        let shown = addresses.iter().any(|address| self.facts.kernel.near_ends_of(*address).next().is_some());
        let beside = toward(&self.facts.kernel, address.into())
            .map_or(no_other_place, |link| self.uplinks.nics.contains_key(&link.index) || is_nic(link));
        (!shown && beside).then_some(PodLocation::Refused(Reason::OnNoLink { address }))
    }

    fn settle(
        &self,
        owner: u64,
        workload: Workload,
        had: &HashMap<(IpAddr, u64), IfIndex>,
        guards: &BTreeMap<IfIndex, Guard>,
        pending: &mut Pending,
    ) {
        let Workload { subject, held, place } = workload;
        let row = |state| Row { state, ..blank(subject.clone(), &held) };
        let decide = |address| held.first().map_or(State::Free, |binding| choose(self.uplinks, binding, address));
        let bound = !held.is_empty();
        match place {
            PodLocation::At(sources) => {
                let known = |entry: Entry| bound || entry.bridge().is_some_and(|bridge| guards.contains_key(&bridge));
                for (entry, address) in sources.into_iter().filter(|(entry, _)| known(*entry)) {
                    pending.proven(entry, address, owner, row(decide(address)));
                }
            }
            PodLocation::Said(addresses, told) if bound => {
                for address in addresses {
                    let oldest = self.facts.kernel.near_ends_of(address).min_by_key(|link| link.index);
                    let shown = || oldest.map(|link| self.entry(link).bridge().unwrap_or(ROUTED));
                    // Where it was it stays, also while no link shows its address: the next one that does may be another's.
                    if let Some(bridge) = had.get(&(address, told)).copied().or_else(shown) {
                        let ports = self.ports(bridge, address);
                        let request = Request { key: (bridge, address), ports, proven: false, told, owner };
                        pending.requests.push((request, pending.rows.len()));
                    }
                    // It enters by a link only once that is assigned.
                    pending.rows.push(Row { address: Some(IpNet::from(address)), ..row(decide(address)) });
                }
            }
            PodLocation::Nowhere if bound => pending.rows.push(row(State::Waiting(Reason::NoAddressYet))),
            PodLocation::Refused(reason) if bound => pending.rows.push(row(State::Refused(reason))),
            PodLocation::Said(..) | PodLocation::Nowhere | PodLocation::Refused(_) => {}
        }
    }
}

/// A NIC, or what is built upon one, and nothing that leads to workloads.
fn is_nic(link: &Link) -> bool {
    match &link.kind {
        LinkKind::Bond | LinkKind::Vlan | LinkKind::Macvlan | LinkKind::Ipvlan => true,
        LinkKind::Other(kind) => kind.is_empty(),
        _ => false,
    }
}

/// It runs in a network namespace of its own.
fn has_namespace(sandbox: &Sandbox) -> bool {
    matches!(sandbox.network, NetworkNamespace::Named(_) | NetworkNamespace::Numbered(_))
}

fn pod_at(pod: &Arc<Pod>, index: &PodIndex, place: PodLocation) -> Workload {
    Workload { subject: Subject::Pod(Arc::clone(pod)), held: index.of(pod), place }
}

/// A container that no kubelet made.
fn alone_at(name: &str, asked: Option<&Arc<Asked>>, place: PodLocation) -> Workload {
    Workload { subject: Subject::Bare(name.to_owned()), held: asked.and_then(Held::label).into_iter().collect(), place }
}

#[cfg(test)]
mod tests;
