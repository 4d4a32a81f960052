//! From facts to rows: the whole of the model, in one pass.

mod inner;
mod pods;
mod programs;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::slice::from_ref;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{RoutedSource, Selector};
use super::facts::{Attachment, Container, IfIndex, Link, LinkKind, Network, RouteKind, is_link_local};
use super::known::{Facts, Known};
pub use super::outcome::{Guard, Outcome};
use super::overlap::without_overlaps;
use super::port_owners::{Answer, PortOwners, Request};
use super::reason::Reason;
use super::select::Held;
use super::served::{refuse_mode, refuse_network};
use super::services::{Served, Services, services};
use super::spread::spreads;
use super::uplinks::outside::MAIN;
use super::uplinks::{Memory, Uplinks};
use super::workload::{Entry, Row, State, Subject, choose};

/// What outlives one resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    pub memory: Memory,
    pub port_owners: PortOwners,
    /// Bridges that pods or runtimes' containers are, or were, on; guarded ones that an earlier run left among them.
    pub pod_bridges: BTreeSet<IfIndex>,
    /// Interface and source of who was bound until just now: their flows are being ended.
    pub departed: BTreeSet<(IfIndex, IpAddr)>,
    /// Ports that were served until now.
    pub served: Served,
}

impl Past {
    /// Keeps in mind which ports are served. Until every source has spoken, those of before may be again.
    pub fn serve(&mut self, services: &Services, whole: bool) {
        let served = services.served();
        if whole {
            self.served = served;
        } else {
            self.served.extend(served);
        }
    }
}

/// Decides everything anew. Deterministic in facts and past.
pub fn resolve(facts: &Facts, past: &mut Past) -> Outcome {
    let bound: Vec<(&Known, Vec<Held>)> = facts.containers.values().map(|known| (known, facts.manifests.of(&known.container))).collect();
    let labels = bound.iter().flat_map(|(_, held)| held).filter(|h| matches!(h, Held::Label(_))).map(|h| &**h);
    let granted = facts.cluster.granted();
    let listed = facts.manifests.bindings.iter().chain(granted.bindings()).chain(&facts.programs.bindings).map(Arc::as_ref);
    let inner = Resolver::inner(facts, &past.pod_bridges);
    let uplinks = Uplinks::discover(&facts.kernel, listed.chain(labels).chain(pods::labels(facts)), &inner, &mut past.memory);
    let resolver = Resolver::new(facts, &uplinks);
    let mut guards = resolver.guards(&bound);
    let mut pending = Pending::default();
    resolver.containers(&bound, &guards, &mut pending);
    let engines = pending.rows.len();
    resolver.pods(granted, &mut past.pod_bridges, &mut guards, &mut pending);
    resolver.manifests(&mut pending);
    pending.assign_ports(&mut past.port_owners);
    resolver.refuse_bypassed(&mut pending.rows);
    // What is beside a NIC on its own bridge is the network's, and nobody's to guard.
    guards.retain(|bridge, _| !uplinks.nics.contains_key(bridge));
    let rows = if pending.rows.len() > engines { without_overlaps(pending.rows) } else { pending.rows };
    let faces = resolver.faces(&rows, &guards);
    let programs = programs::programs(facts, &uplinks, &mut past.memory.numbers);
    let spreads = spreads(&rows, &uplinks, &facts.full);
    let inbound = services(&rows, facts, &uplinks, &past.served);
    Outcome { uplinks, rows, programs, spreads, inbound, guards, faces, inside: Arc::clone(&facts.cluster.inside) }
}

/// Rows, some of which still have to learn by which port they come in.
#[derive(Default)]
struct Pending {
    rows: Vec<Row>,
    /// With the place of its row.
    requests: Vec<(Request, usize)>,
}

impl Pending {
    fn assign_ports(&mut self, owners: &mut PortOwners) {
        // Of two owners that are said to have one address, what was said last is true.
        self.requests.sort_unstable_by_key(|(r, _)| (r.key, std::cmp::Reverse(r.told), r.owner));
        let requests: Vec<&Request> = self.requests.iter().map(|(request, _)| request).collect();
        for ((request, row), answer) in self.requests.iter().zip(owners.assign(&requests)) {
            match answer {
                Answer::Port(port) => self.rows[*row].entry = Some(Entry::Port { port, bridge: request.key.0 }),
                Answer::Taken(by) if request.proven => {
                    let by = self.rows[self.requests[by].1].subject.to_string();
                    self.rows[*row].state = State::Refused(Reason::OwnedByAnother { address: request.key.1, by });
                    self.rows[*row].entry = None;
                }
                Answer::Gone | Answer::Taken(_) => self.rows[*row].entry = None,
                Answer::Never => {}
            }
        }
    }

    /// A row that is known by its network namespace. A bridge's port still has to be the first that has the address.
    fn proven(&mut self, entry: Entry, address: IpAddr, owner: usize, row: Row) {
        if let Entry::Port { port, bridge } = entry {
            let request = Request { key: (bridge, address), ports: vec![port], proven: true, told: 0, owner };
            self.requests.push((request, self.rows.len()));
        }
        self.rows.push(Row { address: Some(IpNet::from(address)), entry: Some(entry), ..row });
    }
}

/// Facts by the keys that this needs.
struct Resolver<'a> {
    facts: &'a Facts,
    uplinks: &'a Uplinks,
    bridges: BTreeMap<&'a str, IfIndex>,
    networks: BTreeMap<&'a str, &'a Network>,
    /// Our ends of the veths that lead into each namespace; looked up only when somebody is known by the namespace.
    ends: OnceCell<HashMap<i32, Vec<&'a Link>>>,
}

impl<'a> Resolver<'a> {
    fn new(facts: &'a Facts, uplinks: &'a Uplinks) -> Self {
        let links = facts.kernel.links.values().filter(|l| l.kind == LinkKind::Bridge);
        let mut networks: BTreeMap<&str, &Network> = BTreeMap::new();
        for network in facts.networks.values() {
            networks.insert(&network.id, network);
            networks.insert(&network.name, network);
        }
        let bridges = links.map(|l| (l.name.as_str(), l.index)).collect();
        Self { facts, uplinks, bridges, networks, ends: OnceCell::new() }
    }

    fn network(&self, attachment: &Attachment) -> Option<&'a Network> {
        self.networks.get(attachment.network_id.as_str()).or_else(|| self.networks.get(attachment.network.as_str())).copied()
    }

    fn bridge(&self, network: &Network) -> Option<IfIndex> {
        self.bridges.get(network.bridge.as_deref()?).copied()
    }

    /// A bridge is guarded from the moment that a container that asks for an exit is made for it, until that one is removed.
    fn guards(&self, bound: &[(&Known, Vec<Held>)]) -> BTreeMap<IfIndex, Guard> {
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        for (Known { container, .. }, _) in bound.iter().filter(|(_, held)| !held.is_empty()) {
            let mode = match container.network_mode.as_str() {
                "default" => "bridge",
                other => other,
            };
            let named = container.attachments.iter().filter_map(|a| self.network(a));
            // The engine says nothing of a made container that is put on another network before it starts there.
            let placed = container.asked.as_ref().and_then(|asked| asked.placement.network.as_deref());
            let by_name = [Some(mode), placed].into_iter().flatten().filter_map(|name| self.networks.get(name).copied());
            asked.extend(named.chain(by_name).map(|n| n.id.as_str()));
        }
        let guard = |network: &Network| match network.guard {
            Some(true) => Some(Guard::Closed),
            Some(false) => asked.contains(network.id.as_str()).then_some(Guard::Open),
            None => asked.contains(network.id.as_str()).then_some(Guard::Closed),
        };
        let bridges = self.facts.networks.values().filter(|n| n.driver == "bridge");
        bridges.filter_map(|n| Some((self.bridge(n)?, guard(n)?))).collect()
    }

    fn containers(&self, bound: &[(&Known, Vec<Held>)], guards: &BTreeMap<IfIndex, Guard>, pending: &mut Pending) {
        pending.rows.reserve(bound.len());
        pending.requests.reserve(bound.len());
        for (owner, (Known { container, told }, held)) in bound.iter().enumerate() {
            let binding = held.first();
            if let (Some(error), Some(_)) = (refuse_mode(&container.network_mode), binding) {
                pending.rows.push(row(container, None, held, State::Refused(Reason::NotServed(error))));
                continue;
            }
            if !container.running {
                continue;
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
                    pending.rows.push(of(State::Refused(Reason::NotServed(error))));
                    continue;
                }
                if attachment.addresses.is_empty() && binding.is_some() {
                    pending.rows.push(of(State::Waiting(Reason::NoAddressYet)));
                }
                for address in &attachment.addresses {
                    if let Some(bridge) = bridge {
                        let ports = self.ports(bridge, *address);
                        pending
                            .requests
                            .push((Request { key: (bridge, *address), ports, proven: false, told: *told, owner }, pending.rows.len()));
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
    }

    /// The container is being moved, and this is not where to: a flow that began here would hang once the address is gone.
    fn leaves(&self, container: &Container, attachment: &Attachment, address: IpAddr) -> bool {
        let asked = container.asked.as_ref().filter(|_| self.facts.moving.contains(&container.id));
        asked.is_some_and(|asked| !asked.placement.fits(attachment, address))
    }

    /// The ports of a bridge that hold an address, oldest first.
    fn ports(&self, bridge: IfIndex, address: IpAddr) -> Vec<IfIndex> {
        let near = self.facts.kernel.near_ends_of(address).filter(|l| l.master == Some(bridge));
        let mut ports: Vec<IfIndex> = near.map(|l| l.index).collect();
        ports.sort_unstable();
        ports
    }

    /// Docker's own rule: the highest gateway priority, then the first name; internal networks carry none.
    fn default_route<'c>(&self, container: &'c Container) -> Option<&'c str> {
        // One without an address is being left.
        let carries = |a: &&Attachment| !a.addresses.is_empty() && self.network(a).is_none_or(|n| !n.internal);
        let best = container.attachments.iter().filter(carries).min_by_key(|a| (std::cmp::Reverse(a.gateway_priority), &a.network));
        best.map(|a| a.network.as_str())
    }

    /// Our ends of the veths that lead into a namespace.
    fn ends(&self, nsid: i32) -> &[&'a Link] {
        let ends = self.ends.get_or_init(|| {
            let mut ends: HashMap<i32, Vec<&Link>> = HashMap::new();
            for link in self.facts.kernel.links.values() {
                link.peer_nsid.into_iter().for_each(|nsid| ends.entry(nsid).or_default().push(link));
            }
            ends
        });
        ends.get(&nsid).map_or(&[], Vec::as_slice)
    }

    /// The addresses in a namespace, with where each enters here.
    fn sources(&self, nsid: i32) -> Vec<(Entry, IpAddr)> {
        let mut sources = Vec::new();
        for link in self.ends(nsid) {
            let Some(far) = link.far_end() else { continue };
            let entry = self.entry(link);
            let addresses = self.facts.kernel.addresses_at(far).map(|a| a.net.addr()).filter(leaves);
            sources.extend(addresses.map(|address| (entry, address)));
        }
        sources
    }

    /// Namespaces and routed sources.
    fn manifests(&self, pending: &mut Pending) {
        let manifests = &self.facts.manifests;
        for (at, binding) in manifests.bindings.iter().enumerate() {
            let held = manifests.held(at);
            match &binding.selector {
                Selector::Namespaces(names) => names.iter().for_each(|name| self.namespace(&held, name, pending)),
                Selector::Addresses(sources) => sources.iter().for_each(|source| self.source(&held, source, pending)),
                Selector::Container(_) | Selector::Containers { .. } | Selector::Pods { .. } | Selector::Host(_) => {}
            }
        }
    }

    fn namespace(&self, held: &Held, name: &str, pending: &mut Pending) {
        let subject = Subject::Namespace(name.into());
        let bare = |state| Row { state, ..blank(subject.clone(), from_ref(held)) };
        let Some(nsid) = self.facts.kernel.namespaces.get(name) else {
            pending.rows.push(bare(State::Waiting(Reason::NoSuchNamespace { name: name.to_owned() })));
            return;
        };
        let sources = self.sources(*nsid);
        if sources.is_empty() {
            pending.rows.push(bare(State::Waiting(Reason::NoAddressYet)));
        }
        let owner = usize::MAX - pending.rows.len();
        for (entry, address) in sources {
            pending.proven(entry, address, owner, bare(choose(self.uplinks, held, address)));
        }
    }

    fn source(&self, held: &Held, source: &RoutedSource, pending: &mut Pending) {
        let mut row = Row { address: Some(source.net), ..blank(Subject::Source(source.net), from_ref(held)) };
        match self.link_of(source) {
            Ok(link) => {
                row.entry = Some(self.entry(link));
                row.state = choose(self.uplinks, held, source.net.addr());
                if source.net.prefix_len() == source.net.max_prefix_len() {
                    // A host that is known to hang on one port is bound to that port. Nobody speaks for it: a newer port is word of it.
                    let ports = self.ports(link.index, source.net.addr());
                    let told = ports.last().copied().unwrap_or(0).into();
                    let key = (link.index, source.net.addr());
                    let owner = usize::MAX - pending.rows.len();
                    pending.requests.push((Request { key, ports, proven: false, told, owner }, pending.rows.len()));
                }
            }
            Err(reason) => row.state = State::Waiting(reason),
        }
        pending.rows.push(row);
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

/// An address that can be a source on another link.
fn leaves(address: &IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(*address)
}

fn row(container: &Arc<Container>, attachment: Option<&Attachment>, held: &[Held], state: State) -> Row {
    Row { network: attachment.map(|a| a.network.clone()), state, ..blank(Subject::Container(Arc::clone(container)), held) }
}

/// A workload with the bindings that it falls under, the winner first, of which nothing else is known.
fn blank(subject: Subject, held: &[Held]) -> Row {
    Row {
        subject,
        network: None,
        default_route: false,
        address: None,
        entry: None,
        binding: held.first().cloned(),
        losers: held.iter().skip(1).map(|h| h.name.clone()).collect(),
        state: State::Waiting(Reason::NoAddressYet),
    }
}
