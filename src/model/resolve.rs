//! From facts to rows: the whole of the model, in one pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{Binding, Manifests, RoutedSource, Selector};
use super::facts::{Attachment, Container, EngineChange, IfIndex, KernelFacts, Link, LinkKind, Network, RouteKind};
use super::ground::{Ground, MAIN, Memory};
use super::reason::Reason;
use super::select::{Held, Index, precedence};
use super::served::{refuse_driver, refuse_mode};
use super::workload::{Doors, Entry, Row, State, Subject, Wanted, choose};

/// All that the sources said.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub kernel: KernelFacts,
    pub containers: BTreeMap<String, Arc<Container>>,
    pub networks: BTreeMap<String, Arc<Network>>,
    pub manifests: Arc<Manifests>,
    /// When the engine last spoke of a container, as a count of its words.
    told: HashMap<String, u64>,
    words: u64,
}

impl Facts {
    /// Takes in one change of an engine.
    pub fn apply(&mut self, change: EngineChange) {
        self.words += 1;
        match change {
            EngineChange::Snapshot { containers, networks } => {
                self.told = containers.iter().map(|c| (c.id.clone(), self.words)).collect();
                self.containers = containers.into_iter().map(|c| (c.id.clone(), Arc::new(c))).collect();
                self.networks = networks.into_iter().map(|n| (n.id.clone(), Arc::new(n))).collect();
            }
            EngineChange::Container(container) => {
                self.told.insert(container.id.clone(), self.words);
                self.containers.insert(container.id.clone(), Arc::from(container));
            }
            EngineChange::ContainerGone(id) => {
                self.told.remove(&id);
                self.containers.remove(&id);
            }
            EngineChange::Network(network) => drop(self.networks.insert(network.id.clone(), Arc::from(network))),
            EngineChange::NetworkGone(id) => drop(self.networks.remove(&id)),
            EngineChange::Lost => {}
        }
    }

    fn told(&self, container: &str) -> u64 {
        self.told.get(container).copied().unwrap_or_default()
    }
}

/// How strict a bridge is with a source that nobody vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It has no way out by an uplink.
    Closed,
    /// It goes the host's way.
    Open,
}

/// Who gets what, as of now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub ground: Ground,
    pub rows: Vec<Row>,
    /// Bridges that carry bound workloads, or whose network asks for a guard.
    pub guards: BTreeMap<IfIndex, Guard>,
}

/// What outlives one resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    pub memory: Memory,
    pub doors: Doors,
}

/// Decides everything anew. Deterministic in facts and past.
pub fn resolve(facts: &Facts, past: &mut Past) -> Outcome {
    let index = Index::new(&facts.manifests);
    let bound: Vec<(&Arc<Container>, Vec<Held>)> = facts.containers.values().map(|c| (c, index.of(c))).collect();
    let mut bindings: Vec<&Binding> = facts.manifests.bindings.iter().collect();
    bindings.extend(bound.iter().flat_map(|(_, held)| held).filter(|h| matches!(h, Held::Label(_))).map(|h| &**h));
    bindings.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
    let ground = Ground::survey(&facts.kernel, bindings.iter().copied(), &mut past.memory);
    let scene = Scene::new(facts, &ground);
    let guards = scene.guards(&bound);
    let mut rows = scene.containers(&bound, &guards, &mut past.doors);
    rows.extend(scene.manifests(&past.doors));
    let rows = without_overlaps(rows);
    Outcome { ground, rows, guards }
}

/// Facts by the keys that this needs.
struct Scene<'a> {
    facts: &'a Facts,
    ground: &'a Ground,
    bridges: HashMap<&'a str, IfIndex>,
    networks: HashMap<&'a str, &'a Network>,
}

impl<'a> Scene<'a> {
    fn new(facts: &'a Facts, ground: &'a Ground) -> Self {
        let links = facts.kernel.links.values().filter(|l| l.kind == LinkKind::Bridge);
        let mut networks: HashMap<&str, &Network> = HashMap::new();
        for network in facts.networks.values() {
            networks.insert(&network.id, network);
            networks.insert(&network.name, network);
        }
        Self { facts, ground, bridges: links.map(|l| (l.name.as_str(), l.index)).collect(), networks }
    }

    fn network(&self, attachment: &Attachment) -> Option<&'a Network> {
        self.networks.get(attachment.network_id.as_str()).or_else(|| self.networks.get(attachment.network.as_str())).copied()
    }

    fn bridge(&self, network: &Network) -> Option<IfIndex> {
        self.bridges.get(network.bridge.as_deref()?).copied()
    }

    /// A bridge is guarded from the moment that a container that asks for an exit is made for it, until that one is removed.
    fn guards(&self, bound: &[(&Arc<Container>, Vec<Held>)]) -> BTreeMap<IfIndex, Guard> {
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        for (container, _) in bound.iter().filter(|(_, held)| !held.is_empty()) {
            let mode = match container.network_mode.as_str() {
                "default" => "bridge",
                other => other,
            };
            let named = container.attachments.iter().filter_map(|a| self.network(a));
            asked.extend(named.chain(self.networks.get(mode).copied()).map(|n| n.id.as_str()));
        }
        let guard = |network: &Network| match network.guard {
            Some(true) => Some(Guard::Closed),
            Some(false) => asked.contains(network.id.as_str()).then_some(Guard::Open),
            None => asked.contains(network.id.as_str()).then_some(Guard::Closed),
        };
        let bridges = self.facts.networks.values().filter(|n| n.driver == "bridge");
        bridges.filter_map(|n| Some((self.bridge(n)?, guard(n)?))).collect()
    }

    fn containers(&self, bound: &[(&Arc<Container>, Vec<Held>)], guards: &BTreeMap<IfIndex, Guard>, doors: &mut Doors) -> Vec<Row> {
        let mut rows = Vec::with_capacity(bound.len());
        let mut wanted: BTreeMap<(IfIndex, IpAddr), Wanted> = BTreeMap::new();
        for (container, held) in bound {
            let mode = refuse_mode(&container.network_mode);
            if let (Some(error), Some(binding)) = (mode, held.first()) {
                rows.push(row(container, None, Some(binding), held, State::Refused(Reason::NotServed(error))));
                continue;
            }
            if !container.running {
                continue;
            }
            let default_route = self.default_route(container);
            for attachment in &container.attachments {
                let Some(network) = self.network(attachment) else { continue };
                let guarded = self.bridge(network).is_some_and(|b| guards.contains_key(&b));
                let binding = held.first();
                if binding.is_none() && !guarded {
                    continue;
                }
                let mut of = |state, address: Option<IpAddr>| {
                    let mut row = row(container, Some(attachment), binding, held, state);
                    row.address = address.map(IpNet::from);
                    row.default_route = default_route == Some(attachment.network.as_str());
                    rows.push(row);
                };
                if let Some(error) = refuse_driver(&network.driver) {
                    of(State::Refused(Reason::NotServed(error)), None);
                    continue;
                }
                if attachment.addresses.is_empty() && binding.is_some() {
                    of(State::Waiting(Reason::NoAddressYet), None);
                }
                for address in &attachment.addresses {
                    let state = binding.map_or(State::Free, |b| choose(self.ground, b, *address));
                    of(state, Some(*address));
                    if let Some(bridge) = self.bridge(network) {
                        let ports = self.facts.kernel.near_ends_of(*address).into_iter().filter(|l| l.master == Some(bridge));
                        let claim = Wanted { ports: ports.map(|l| l.index).collect(), told: self.facts.told(&container.id) };
                        // Of two containers that are said to have it, what was said last is true.
                        let latest = wanted.entry((bridge, *address)).or_insert_with(|| claim.clone());
                        if latest.told < claim.told {
                            *latest = claim;
                        }
                    }
                }
            }
        }
        for (key, claim) in self.single_sources() {
            wanted.entry(key).or_insert(claim);
        }
        let settled = doors.settle(&wanted);
        for row in &mut rows {
            let (Some(network), Some(address)) = (row.network.as_deref().and_then(|n| self.networks.get(n)), row.address) else { continue };
            let (Some(bridge), Subject::Container(container)) = (self.bridge(network), &row.subject) else { continue };
            let key = (bridge, address.addr());
            if wanted.get(&key).is_some_and(|w| w.told == self.facts.told(&container.id)) {
                row.entry = settled.get(&key).map(|port| Entry::Port { port: *port, bridge });
            }
        }
        rows
    }

    /// Docker's own rule: the highest gateway priority, then the first name; internal networks carry none.
    fn default_route<'c>(&self, container: &'c Container) -> Option<&'c str> {
        // One without an address is being left.
        let carries = |a: &&Attachment| !a.addresses.is_empty() && self.network(a).is_none_or(|n| !n.internal);
        let best = container.attachments.iter().filter(carries).min_by_key(|a| (std::cmp::Reverse(a.gateway_priority), &a.network));
        best.map(|a| a.network.as_str())
    }

    /// Single addresses that are bound as such, and held by a bridge's ports. Nobody speaks for them: a newer port counts as word of it.
    fn single_sources(&self) -> BTreeMap<(IfIndex, IpAddr), Wanted> {
        let mut wanted = BTreeMap::new();
        for binding in &self.facts.manifests.bindings {
            let Selector::Addresses(sources) = &binding.selector else { continue };
            for source in sources {
                let Some((link, address)) = single(source).zip(self.link_of(source).ok()).map(|(a, l)| (l, a)) else { continue };
                let near_ends = self.facts.kernel.near_ends_of(address);
                let ports: Vec<IfIndex> = near_ends.into_iter().filter(|p| p.master == Some(link.index)).map(|p| p.index).collect();
                let told = ports.iter().copied().max().unwrap_or(0).into();
                wanted.insert((link.index, address), Wanted { ports, told });
            }
        }
        wanted
    }

    /// Namespaces and routed sources.
    fn manifests(&self, doors: &Doors) -> Vec<Row> {
        let mut rows = Vec::new();
        let manifests = &self.facts.manifests;
        for (at, binding) in manifests.bindings.iter().enumerate() {
            let held = Held::File(Arc::clone(manifests), at);
            match &binding.selector {
                Selector::Namespaces(names) => names.iter().for_each(|name| rows.extend(self.namespace(&held, name))),
                Selector::Addresses(sources) => rows.extend(sources.iter().map(|source| self.source(&held, source, doors))),
                Selector::Container(_) | Selector::Containers { .. } => {}
            }
        }
        rows
    }

    fn namespace(&self, held: &Held, name: &str) -> Vec<Row> {
        let bare = |state| Row { state, ..blank(Subject::Namespace(name.to_owned()), held) };
        let Some(nsid) = self.facts.kernel.namespaces.get(name) else {
            return vec![bare(State::Waiting(Reason::NoSuchNamespace { name: name.to_owned() }))];
        };
        let links = self.facts.kernel.links.values().filter(|l| l.peer_nsid == Some(*nsid));
        let mut rows = Vec::new();
        for link in links {
            let Some(far) = link.far_end() else { continue };
            for address in self.facts.kernel.addresses_at(far).map(|a| a.net.addr()).filter(leaves) {
                let mut row = bare(choose(self.ground, held, address));
                row.address = Some(IpNet::from(address));
                row.entry = Some(self.entry(link));
                rows.push(row);
            }
        }
        if rows.is_empty() {
            rows.push(bare(State::Waiting(Reason::NoAddressYet)));
        }
        rows
    }

    fn source(&self, held: &Held, source: &RoutedSource, doors: &Doors) -> Row {
        let mut row = blank(Subject::Source(source.net), held);
        row.address = Some(source.net);
        match self.link_of(source) {
            Ok(link) => {
                // A host that is known to hang on one port is bound to that port.
                row.entry = match single(source).and_then(|address| doors.of(link.index, address)) {
                    Some(door) => door.map(|port| Entry::Port { port, bridge: link.index }),
                    None => Some(self.entry(link)),
                };
                row.state = choose(self.ground, held, source.net.addr());
            }
            Err(reason) => row.state = State::Waiting(reason),
        }
        row
    }

    /// The interface that a source comes in by.
    fn link_of(&self, source: &RoutedSource) -> Result<&'a Link, Reason> {
        match &source.interface {
            Some(name) => self.facts.kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() }),
            None => self.toward(source.net).ok_or(Reason::NoRouteToSource { net: source.net }),
        }
    }

    fn entry(&self, link: &Link) -> Entry {
        let bridge = link.master.filter(|m| self.facts.kernel.links.get(m).is_some_and(|l| l.kind == LinkKind::Bridge));
        match bridge {
            Some(bridge) => Entry::Port { port: link.index, bridge },
            None => Entry::Routed { interface: link.index },
        }
    }

    /// The interface that main's most specific route to a subnet names.
    fn toward(&self, net: IpNet) -> Option<&'a Link> {
        let routes = self.facts.kernel.routes.iter().filter(|r| r.table == MAIN && r.kind == RouteKind::Unicast);
        let covers = routes.filter(|r| r.destination.prefix_len() > 0 && r.destination.contains(&net));
        let best = covers.max_by_key(|r| (r.destination.prefix_len(), std::cmp::Reverse(r.metric)))?;
        self.facts.kernel.links.get(&best.interface?)
    }
}

/// The address, when it is one alone.
fn single(source: &RoutedSource) -> Option<IpAddr> {
    (source.net.prefix_len() == source.net.max_prefix_len()).then(|| source.net.addr())
}

/// An address that can be a source on another link.
fn leaves(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

fn row(container: &Arc<Container>, attachment: Option<&Attachment>, binding: Option<&Held>, held: &[Held], state: State) -> Row {
    Row {
        subject: Subject::Container(Arc::clone(container)),
        network: attachment.map(|a| a.network.clone()),
        default_route: false,
        address: None,
        entry: None,
        binding: binding.cloned(),
        losers: held.iter().skip(1).map(|h| h.name.clone()).collect(),
        state,
    }
}

fn blank(subject: Subject, held: &Held) -> Row {
    Row {
        subject,
        network: None,
        default_route: false,
        address: None,
        entry: None,
        binding: Some(held.clone()),
        losers: Vec::new(),
        state: State::Waiting(Reason::NoAddressYet),
    }
}

/// One winner for each source: of two rows that claim the same, or two subnets of which one lies in the other, the one whose binding
/// takes precedence stays. (A single address inside a bound subnet is no conflict: it is the more specific.)
fn without_overlaps(mut rows: Vec<Row>) -> Vec<Row> {
    let rank = |row: &Row| row.binding.clone();
    rows.sort_by(|a, b| match (rank(a), rank(b)) {
        (Some(a), Some(b)) => precedence(&a).cmp(&precedence(&b)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    let mut singles: HashMap<(IfIndex, IpNet), usize> = HashMap::new();
    let mut subnets: BTreeMap<(IfIndex, IpNet), usize> = BTreeMap::new();
    for at in 0..rows.len() {
        let (Some(entry), Some(net)) = (rows[at].entry, rows[at].address) else { continue };
        let key = (entry.interface(), net);
        let winner = if net.prefix_len() == net.max_prefix_len() { singles.get(&key).copied() } else { overlapping(&subnets, key) };
        let Some(winner) = winner else {
            if net.prefix_len() == net.max_prefix_len() {
                singles.insert(key, at)
            } else {
                subnets.insert(key, at)
            };
            continue;
        };
        let with = rows[winner].binding.as_ref().map_or_else(String::new, |b| b.name.to_string());
        if let Some(loser) = rows[at].binding.as_ref().map(|b| b.name.clone()) {
            rows[winner].losers.push(loser);
        }
        rows[at].entry = None;
        rows[at].state = State::Refused(Reason::Overlap { with });
    }
    rows.retain(|row| !(matches!(row.state, State::Refused(Reason::Overlap { .. })) && row.binding.is_none()));
    rows
}

/// A subnet on the same interface that contains this one or lies in it. Those kept never overlap each other, so a neighbour tells.
fn overlapping(subnets: &BTreeMap<(IfIndex, IpNet), usize>, (interface, net): (IfIndex, IpNet)) -> Option<usize> {
    let before = subnets.range(..=(interface, net)).next_back();
    let after = subnets.range((interface, net)..).next();
    let near = before.into_iter().chain(after).filter(|((i, _), _)| *i == interface);
    near.filter(|((_, other), _)| other.contains(&net) || net.contains(other)).map(|(_, at)| *at).next()
}
