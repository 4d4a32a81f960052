//! All that the sources said, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use foldhash::HashMap;

use super::cloud::AddressReports;
use super::cluster::Cluster;
use super::facts::{Container, EngineChange, IfIndex, KernelChange, KernelFacts, Network};
use super::gateways::Answers;
use super::health::{Check, Verdict};
use super::ipvs::KernelIpvs;
use super::listeners::Listeners;
use super::managed::Probes;
use super::pod::{NetworkNamespace, Owner, RuntimeChange, Sandbox};
use super::port_use::Full;
use super::programs::ProgramFacts;
use super::replace;
use super::route_back::RoutedBack;
use super::select::Index;
use super::touched::Touched;

/// Everything that is known of this node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub kernel: KernelFacts,
    pub containers: BTreeMap<String, Known>,
    pub networks: BTreeMap<String, Arc<Network>>,
    /// What of the engine's answers could not be read, by what it is about.
    pub engine_problems: BTreeMap<String, String>,
    /// The same of the container runtime's.
    pub runtime_problems: BTreeMap<String, String>,
    /// Containers that were just made and are on their way to where their labels say, by id. What carries the call out takes them out.
    pub moving: BTreeSet<String>,
    pub manifests: Index,
    /// What container runtimes run, by id; `None` where no runtime is asked.
    pub sandboxes: Option<BTreeMap<String, Arc<Sandbox>>>,
    /// The runtime does not answer: it may have begun something that is not among the sandboxes.
    pub runtime_away: bool,
    leaving: Vec<Leaving>,
    /// Users and control groups of this host's programs.
    pub programs: ProgramFacts,
    /// Who listens on ports that bindings publish; `None` where nobody looks.
    pub listeners: Option<Listeners>,
    /// Whether servers of published ports, and what exits are to reach, answer: of those that have been asked often enough.
    pub verdicts: HashMap<Check, Verdict>,
    /// What is known of IPVS; `None` while nobody has looked. It is looked at once a binding asks for it.
    pub ipvs: Option<KernelIpvs>,
    /// What became of the routes back of servers that are in network namespaces of this host.
    pub routed_back: RoutedBack,
    pub cluster: Cluster,
    /// What the cloud shows of addresses.
    pub cloud: AddressReports,
    /// What was found of the addresses that egressd is to put on NICs.
    pub probes: Probes,
    /// Exits whose source ports to a destination run out.
    pub full: Full,
    /// Which gateways answer, and which do not any more.
    pub answers: Answers,
    /// Whom the changes since the last round are about, as far as they were taken in here.
    pub touched: Touched,
    words: u64,
}

/// A container, and when the engine last spoke of it (as a count of its words).
#[derive(Clone, Debug)]
pub struct Known {
    pub container: Arc<Container>,
    pub told: u64,
}

/// A runtime's container that is over, while its network namespace is not. A socket that its program closed with data or its end
/// unacknowledged holds the namespace until the kernel gives up on it, up to two minutes (`tcp_orphan_retries`), and goes on sending.
#[derive(Clone, Debug)]
pub struct Leaving {
    pub sandbox: Arc<Sandbox>,
    /// The kernel's number of the namespace, which may be another one's once the ports are gone.
    pub nsid: i32,
    ports: BTreeSet<IfIndex>,
}

impl Leaving {
    /// Whether this link leads into the namespace. The kernel gives no index twice.
    pub fn leads(&self, port: IfIndex) -> bool {
        self.ports.contains(&port)
    }
}

impl Facts {
    /// Nothing is known yet, but for how the cluster is to be read.
    pub fn of(cluster: Cluster) -> Self {
        Self { cluster, ..Self::default() }
    }

    /// Takes in one change of the kernel; whether it said anything new.
    pub fn apply_kernel(&mut self, change: KernelChange) -> bool {
        let all = self.touched.by_kernel(&change, &self.kernel);
        let new = self.kernel.apply(change);
        self.touched.all |= all && new;
        new
    }

    /// Takes in one change of an engine.
    pub fn apply(&mut self, change: EngineChange) {
        self.touched.by_engine(&change, |id| self.containers.get(id).map(|known| Arc::clone(&known.container)));
        self.words += 1;
        let told = self.words;
        match change {
            EngineChange::Snapshot { containers, networks } => {
                let known = |c: Container| (c.id.clone(), Known { container: Arc::new(c), told });
                self.containers = containers.into_iter().map(known).collect();
                self.networks = networks.into_iter().map(|n| (n.id.clone(), Arc::new(n))).collect();
                self.engine_problems.clear();
            }
            EngineChange::Container(container) => {
                self.containers.insert(container.id.clone(), Known { container: Arc::from(container), told });
            }
            EngineChange::ContainerGone(id) => drop(self.containers.remove(&id)),
            EngineChange::Network(network) => drop(self.networks.insert(network.id.clone(), Arc::from(network))),
            EngineChange::NetworkGone(id) => drop(self.networks.remove(&id)),
            EngineChange::Made { container, .. } => drop(self.moving.insert(container)),
            EngineChange::Problems(problems) => self.engine_problems = problems,
            EngineChange::Lost(_) => {}
        }
    }

    /// Takes in one change of a container runtime; whether it said anything new.
    pub fn apply_runtime(&mut self, change: RuntimeChange) -> bool {
        let turned = replace(&mut self.runtime_away, matches!(change, RuntimeChange::Lost(_)));
        let sandboxes = self.sandboxes.get_or_insert_default();
        let (new, before): (bool, Vec<Arc<Sandbox>>) = match change {
            RuntimeChange::Snapshot(all) => {
                self.runtime_problems.clear();
                let before = mem::replace(sandboxes, all.into_iter().map(|s| (s.id.clone(), Arc::new(s))).collect());
                (before != *sandboxes, before.into_values().collect())
            }
            RuntimeChange::Sandbox(one) => {
                let one: Arc<Sandbox> = Arc::from(one);
                let before = sandboxes.insert(one.id.clone(), Arc::clone(&one));
                (before.as_ref() != Some(&one), before.into_iter().collect())
            }
            RuntimeChange::Gone(id) => {
                let before = sandboxes.remove(&id);
                (before.is_some(), before.into_iter().collect())
            }
            RuntimeChange::Problems(problems) => {
                self.runtime_problems = problems;
                (false, Vec::new())
            }
            RuntimeChange::Lost(_) => (false, Vec::new()),
        };
        before.into_iter().for_each(|sandbox| self.leave(sandbox));
        new || turned
    }

    /// Containers that are over, and may still send.
    pub fn leaving(&self) -> impl Iterator<Item = &Leaving> {
        self.leaving.iter().filter(|one| remains(&self.kernel, one))
    }

    /// What was said of a sandbox is true no longer. A namespace that has a name is whoever's has that name.
    fn leave(&mut self, sandbox: Arc<Sandbox>) {
        self.leaving.retain(|one| remains(&self.kernel, one));
        let (Owner::Container { .. }, NetworkNamespace::Numbered(nsid)) = (&sandbox.owner, &sandbox.network) else { return };
        let now = self.sandboxes.as_ref().and_then(|all| all.get(&sandbox.id));
        if now.is_some_and(|now| now.network == sandbox.network) {
            return;
        }
        let (nsid, links) = (*nsid, self.kernel.links.values());
        let ports: BTreeSet<IfIndex> = links.filter(|link| link.peer_nsid == Some(nsid)).map(|link| link.index).collect();
        if !ports.is_empty() {
            self.leaving.push(Leaving { sandbox, nsid, ports });
        }
    }

    /// Takes in the programs that `egressd exec` isolated, which the kernel's links tell of.
    pub fn isolate(&mut self) {
        self.manifests.isolate(self.kernel.isolated().map(|(link, program)| (link.name.as_str(), program)));
    }

    /// The engine's containers.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values().map(|known| &known.container)
    }
}

fn remains(kernel: &KernelFacts, leaving: &Leaving) -> bool {
    leaving.ports.iter().any(|port| kernel.links.contains_key(port))
}
