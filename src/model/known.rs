//! All that the sources said, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::Cluster;
use super::facts::{Container, EngineChange, KernelFacts, Network};
use super::pod::{RuntimeChange, Sandbox};
use super::replace;
use super::select::Index;

/// Everything that is known of this node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub kernel: KernelFacts,
    pub containers: BTreeMap<String, Known>,
    pub networks: BTreeMap<String, Arc<Network>>,
    /// Containers that were just made and are on their way to where their labels say, by id. What carries the call out takes them out.
    pub moving: BTreeSet<String>,
    pub manifests: Index,
    /// What container runtimes run, by id; `None` where no runtime is asked.
    pub sandboxes: Option<BTreeMap<String, Arc<Sandbox>>>,
    /// The runtime does not answer: it may have begun something that is not among the sandboxes.
    pub runtime_away: bool,
    pub cluster: Cluster,
    words: u64,
}

/// A container, and when the engine last spoke of it (as a count of its words).
#[derive(Clone, Debug)]
pub struct Known {
    pub container: Arc<Container>,
    pub told: u64,
}

impl Facts {
    /// Nothing is known yet, but for how the cluster is to be read.
    pub fn of(cluster: Cluster) -> Self {
        Self { cluster, ..Self::default() }
    }

    /// Takes in one change of an engine.
    pub fn apply(&mut self, change: EngineChange) {
        self.words += 1;
        let told = self.words;
        match change {
            EngineChange::Snapshot { containers, networks } => {
                let known = |c: Container| (c.id.clone(), Known { container: Arc::new(c), told });
                self.containers = containers.into_iter().map(known).collect();
                self.networks = networks.into_iter().map(|n| (n.id.clone(), Arc::new(n))).collect();
            }
            EngineChange::Container(container) => {
                self.containers.insert(container.id.clone(), Known { container: Arc::from(container), told });
            }
            EngineChange::ContainerGone(id) => drop(self.containers.remove(&id)),
            EngineChange::Network(network) => drop(self.networks.insert(network.id.clone(), Arc::from(network))),
            EngineChange::NetworkGone(id) => drop(self.networks.remove(&id)),
            EngineChange::Made { container, .. } => drop(self.moving.insert(container)),
            EngineChange::Lost => {}
        }
    }

    /// Takes in one change of a container runtime; whether it said anything new.
    pub fn apply_runtime(&mut self, change: RuntimeChange) -> bool {
        let turned = replace(&mut self.runtime_away, matches!(change, RuntimeChange::Lost));
        let sandboxes = self.sandboxes.get_or_insert_default();
        let new = match change {
            RuntimeChange::Snapshot(all) => replace(sandboxes, all.into_iter().map(|s| (s.id.clone(), Arc::new(s))).collect()),
            RuntimeChange::Sandbox(one) => {
                let one: Arc<Sandbox> = Arc::from(one);
                sandboxes.insert(one.id.clone(), Arc::clone(&one)).is_none_or(|before| before != one)
            }
            RuntimeChange::Gone(id) => sandboxes.remove(&id).is_some(),
            RuntimeChange::Lost => false,
        };
        new || turned
    }

    /// The engine's containers.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values().map(|known| &known.container)
    }
}
