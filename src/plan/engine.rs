//! What an engine is asked to do: managed networks, and containers put where their labels say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::binding::Placement;
use crate::model::facts::{Container, LinkKind, Network};
use crate::model::known::Facts;
use crate::model::manifests::ManagedNetwork;

/// One call to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStep {
    CreateNetwork(ManagedNetwork),
    /// By name; stays while containers are on it.
    RemoveNetwork(String),
    /// Puts a container where its labels say.
    Place {
        container: String,
        name: String,
        placement: Placement,
        made: Made,
    },
}

/// When a container that is to be placed was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A while ago: it is left where it is if it has started since.
    Before,
    /// Just now: `docker run` starts it in the same breath, and it is moved even if the start comes first. With the network, when that is
    /// known and has the address to give, so that nothing need be asked before.
    Now(Option<Arc<Network>>),
}

impl EngineStep {
    /// What the call is about, for status.
    pub fn object(&self) -> String {
        match self {
            Self::CreateNetwork(network) => format!("EgressNetwork {}", network.name),
            Self::RemoveNetwork(name) => format!("EgressNetwork {name}"),
            Self::Place { name, .. } => format!("container {name}"),
        }
    }
}

/// Calls that would bring the engine where manifests and labels want it.
pub fn steps(facts: &Facts) -> Vec<EngineStep> {
    let there: BTreeMap<&str, &Network> = facts.networks.values().map(|n| (n.name.as_str(), &**n)).collect();
    let wanted: BTreeSet<&str> = facts.manifests.networks.iter().map(|n| n.name.as_str()).collect();
    // The engine changes no network: making one that differs is refused, and that refusal names the difference.
    let missing = facts.manifests.networks.iter().filter(|n| there.get(n.name.as_str()).is_none_or(|found| !same(n, found)));
    let missing = missing.filter(|network| over_a_nic(facts, network).is_none());
    let mut steps: Vec<EngineStep> = missing.cloned().map(EngineStep::CreateNetwork).collect();
    let ours = facts.networks.values().filter(|n| n.managed && !wanted.contains(n.name.as_str()));
    steps.extend(ours.map(|n| EngineStep::RemoveNetwork(n.name.clone())));
    let misplaced = facts.containers().filter_map(|c| Some((c, misplaced(c)?))).filter(|(c, _)| !c.running);
    steps.extend(misplaced.map(|(c, placement)| EngineStep::Place {
        container: c.id.clone(),
        name: c.name.clone(),
        placement: placement.clone(),
        made: Made::Before,
    }));
    steps
}

/// The call for a container that is just being made.
pub fn place(facts: &Facts, container: &str, name: &str, placement: &Placement) -> EngineStep {
    let named = |n: &&Arc<Network>| placement.network.as_ref().is_some_and(|wanted| n.name == *wanted || n.id == *wanted);
    let network = facts.networks.values().find(named).filter(|n| placement.address.is_none_or(|a| may_have(facts, n, a)));
    EngineStep::Place {
        container: container.to_owned(),
        name: name.to_owned(),
        placement: placement.clone(),
        made: Made::Now(network.cloned()),
    }
}

/// Whether an address of a network is free to be given, as far as facts tell; the first one of a subnet is its gateway's.
fn may_have(facts: &Facts, network: &Network, address: IpAddr) -> bool {
    let fits = network.subnets.iter().any(|subnet| subnet.contains(&address) && subnet.hosts().next() != Some(address));
    let attachments = facts.containers().flat_map(|c| &c.attachments).filter(|a| a.network_id == network.id);
    fits && !attachments.into_iter().any(|a| a.addresses.contains(&address))
}

/// Where a container should be put, when it is known to be elsewhere.
fn misplaced(container: &Container) -> Option<&Placement> {
    let placement = &container.asked.as_ref()?.placement;
    // Of one that runs, a network without an address is being left.
    let on: Vec<_> = container.attachments.iter().filter(|a| !container.running || !a.addresses.is_empty()).collect();
    let placed = match on.as_slice() {
        [] => true,
        // Its address is known once it runs, and then it is not moved.
        [only] => {
            only.is_asked_by(placement)
                && (placement.address.is_none_or(|a| if container.running { only.addresses.contains(&a) } else { false }))
        }
        _ => false,
    };
    (placement.asks() && !placed).then_some(placement)
}

/// What labels of networks and placements could not have, for status.
pub fn problems(facts: &Facts) -> Vec<String> {
    let mut problems: Vec<String> = facts.networks.values().flat_map(|n| n.problems.iter().cloned()).collect();
    problems.extend(facts.manifests.networks.iter().filter_map(|network| over_a_nic(facts, network)));
    for container in facts.containers() {
        let Some(asked) = &container.asked else { continue };
        problems.extend(asked.placement.errors.iter().map(|e| format!("container {}: {e}", container.name)));
        if container.running
            && !facts.moving.contains(&container.id)
            && let Some(placement) = misplaced(container)
        {
            let name = &container.name;
            problems.push(match unfit(facts, container, placement) {
                Some(why) => {
                    format!("container {name}: {why}; then remove the container and create it again: a running container is not moved")
                }
                None => format!(
                    "container {name}: a running container is not moved; remove it and create it again to put it on its labels' network"
                ),
            });
        }
    }
    problems
}

/// Why a network would take what is behind a NIC away from this host, the NIC's gateway too: it would be on the network's bridge.
fn over_a_nic(facts: &Facts, network: &ManagedNetwork) -> Option<String> {
    let (kernel, subnets) = (&facts.kernel, network.subnets.iter().enumerate());
    let own = || kernel.own_addresses().filter_map(|(index, address)| Some((kernel.links.get(&index)?, address.net.addr())));
    let met = |net: &IpNet| own().find(|(link, address)| link.kind != LinkKind::Bridge && net.contains(address));
    let (at, net, (link, address)) = subnets.filter_map(|(at, net)| Some((at, net, met(net)?))).next()?;
    let name = &network.name;
    Some(format!(
        "EgressNetwork {name}: spec.subnets[{at}]: `{net}` has {}'s own address {address}; choose a subnet that no NIC has",
        link.name
    ))
}

/// Why a container could not be put where its labels say though it were made anew, with the cure.
fn unfit(facts: &Facts, container: &Container, placement: &Placement) -> Option<String> {
    let on = placement.network.as_ref().or(container.attachments.first().map(|attachment| &attachment.network))?;
    let Some(network) = facts.networks.values().find(|network| network.name == *on || network.id == *on) else {
        return Some(format!("there is no network {on}; make it with `docker network create {on}`"));
    };
    let address = placement.address?;
    if !network.subnets.iter().any(|net| net.contains(&address)) {
        return Some(format!("{address} is not in the subnet of the network {on}; give it another egress.container-ip"));
    }
    let has = |other: &&Arc<Container>| {
        other.id != container.id && other.attachments.iter().any(|at| at.network == network.name && at.addresses.contains(&address))
    };
    let holder = facts.containers().find(has)?;
    Some(format!("{address} on network {on} belongs to container {}; give one of them another address", holder.name))
}

/// Whether a network is as a manifest wants it, as far as facts tell.
fn same(wanted: &ManagedNetwork, found: &Network) -> bool {
    let subnets = wanted.subnets.is_empty() || wanted.subnets.iter().all(|net| found.subnets.contains(net));
    let bridge = wanted.bridge.is_none() || wanted.bridge == found.bridge;
    subnets && bridge && (wanted.guard.is_none() || wanted.guard == found.guard)
}
