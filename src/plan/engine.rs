//! What an engine is asked to do: managed networks, and containers put where their labels say.

use std::collections::BTreeSet;

use crate::model::binding::{ManagedNetwork, Placement};
use crate::model::resolve::Facts;

/// The label of networks that we made.
pub const MANAGED: &str = "egressd.dev/managed";

/// One call to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStep {
    CreateNetwork(ManagedNetwork),
    /// By name; stays while containers are on it.
    RemoveNetwork(String),
    Place {
        container: String,
        placement: Placement,
    },
}

impl EngineStep {
    /// What the call is about, for status.
    pub fn object(&self) -> String {
        match self {
            Self::CreateNetwork(network) => format!("EgressNetwork {}", network.name),
            Self::RemoveNetwork(name) => format!("EgressNetwork {name}"),
            Self::Place { container, .. } => format!("container {container}"),
        }
    }
}

/// Calls that would bring the engine where manifests and labels want it.
pub fn steps(facts: &Facts) -> Vec<EngineStep> {
    let there: BTreeSet<&str> = facts.networks.values().map(|n| n.name.as_str()).collect();
    let wanted: BTreeSet<&str> = facts.manifests.networks.iter().map(|n| n.name.as_str()).collect();
    let missing = facts.manifests.networks.iter().filter(|n| !there.contains(n.name.as_str()));
    let mut steps: Vec<EngineStep> = missing.cloned().map(EngineStep::CreateNetwork).collect();
    let ours = facts.networks.values().filter(|n| n.labels.contains_key(MANAGED) && !wanted.contains(n.name.as_str()));
    steps.extend(ours.map(|n| EngineStep::RemoveNetwork(n.name.clone())));
    for container in facts.containers.values().filter(|c| !c.running) {
        let Some(placement) = container.asked.as_ref().map(|a| &a.placement) else { continue };
        let Some(network) = &placement.network else { continue };
        let [only] = container.attachments.as_slice() else {
            if !container.attachments.is_empty() {
                steps.push(EngineStep::Place { container: container.id.clone(), placement: placement.clone() });
            }
            continue;
        };
        if only.network != *network && only.network_id != *network {
            steps.push(EngineStep::Place { container: container.id.clone(), placement: placement.clone() });
        }
    }
    steps
}
