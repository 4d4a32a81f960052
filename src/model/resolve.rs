//! From facts to rows: the whole of the model, in one pass.

mod beside;
pub mod census;
mod containers;
pub mod few;
mod inner;
pub mod pods;
mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::slice::from_ref;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{Binding, RoutedSource, Selector};
use super::facts::{Attachment, IfIndex, KernelFacts, Link, LinkKind, Network, is_link_local};
use super::known::{Facts, Known};
pub use super::outcome::{Guard, Outcome};
use super::overlap::without_overlaps;
use super::port_owners::{Answer, PortOwners, ROUTED, Request};
use super::reason::Reason;
use super::select::Held;
use super::services::{Holders, Served, Services, services};
use super::spread::{keep_turns, spreads};
use super::toward::toward;
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
    /// Whose they were, of the run before as well.
    pub holders: Holders,
}

impl Past {
    /// Keeps in mind which ports are served. Until every source has spoken, those of before may be again.
    pub fn serve(&mut self, services: &Services, whole: bool) {
        let (served, holders) = (services.served(), services.holders());
        if whole {
            (self.served, self.holders) = (served, holders);
        } else {
            self.served.extend(served);
            self.holders.extend(holders);
        }
    }
}

/// Decides everything anew. Deterministic in facts and past.
pub fn resolve(facts: &Facts, past: &mut Past) -> Outcome {
    RowInputs::discover(facts, past).resolve(facts, past)
}

/// What rows are made from: which bindings select each container, and the uplinks that the bindings make.
pub struct RowInputs<'a> {
    bound: Vec<(&'a Known, Vec<Held>)>,
    exec: Vec<Arc<Binding>>,
    pub uplinks: Uplinks,
}

impl<'a> RowInputs<'a> {
    /// Finds the bindings of all containers, and the uplinks.
    pub fn discover(facts: &'a Facts, past: &mut Past) -> Self {
        let bound: Vec<(&Known, Vec<Held>)> =
            facts.containers.values().map(|known| (known, facts.manifests.of(&known.container))).collect();
        let labels = bound.iter().flat_map(|(_, held)| held).filter(|h| matches!(h, Held::Label(_))).map(|h| &**h);
        let listed = facts.manifests.bindings.iter().chain(facts.cluster.granted().bindings()).map(Arc::as_ref);
        let named: Vec<&Binding> = listed.chain(labels).chain(pods::labels(facts)).collect();
        let exec = programs::by_address(facts, &named);
        let inner = Resolver::inner(facts, &past.pod_bridges);
        let all = named.into_iter().chain(exec.iter().map(Arc::as_ref)).chain(facts.cluster.own_exits());
        let uplinks = Uplinks::discover(&facts.kernel, all, &inner, &mut past.memory);
        Self { bound, exec, uplinks }
    }

    /// The rows, and what follows from them. Facts and past are those of [`RowInputs::discover`].
    pub fn resolve(self, facts: &Facts, past: &mut Past) -> Outcome {
        let Self { bound, exec, uplinks } = self;
        let resolver = Resolver::new(facts, &uplinks);
        let mut guards = resolver.guards(&bound);
        let mut pending = Pending::default();
        pending.reserve(bound.len());
        bound.iter().for_each(|(known, held)| resolver.container(known, held, &guards, &mut pending));
        let engines = pending.rows.len();
        resolver.pods(facts.cluster.granted(), &past.port_owners, &mut past.pod_bridges, &mut guards, &mut pending);
        resolver.manifests(&mut pending);
        let answers = past.port_owners.assign(&pending.requests());
        pending.answered(answers);
        resolver.refuse_bypassed(&mut pending.rows);
        // What is beside a NIC on its own bridge is the network's, and nobody's to guard.
        guards.retain(|bridge, _| !uplinks.nics.contains_key(bridge));
        let mut rows = if pending.rows.len() > engines { without_overlaps(pending.rows) } else { pending.rows };
        resolver.find_beside(&mut rows);
        let faces = resolver.faces(&rows, &guards);
        let programs = programs::programs(facts, &exec, &uplinks, &mut past.memory.numbers);
        let mut spreads = spreads(&rows, &uplinks, &facts.full);
        keep_turns(&mut spreads, &facts.manifests.bindings, &uplinks, &facts.full);
        let inbound = services(&rows, facts, &uplinks, (&past.served, &past.holders));
        Outcome { uplinks, rows, programs, spreads, inbound, guards, faces, inside: Arc::clone(&facts.cluster.inside) }
    }
}

/// Rows, some of which still have to learn by which port they come in.
#[derive(Default)]
struct Pending {
    rows: Vec<Row>,
    /// With the place of its row.
    requests: Vec<(Request, usize)>,
}

impl Pending {
    fn reserve(&mut self, containers: usize) {
        self.rows.reserve(containers);
        self.requests.reserve(containers);
    }

    /// What is asked, in the order in which it is answered: of two owners that are said to have one address, what was said last is true.
    fn requests(&mut self) -> Vec<&Request> {
        self.requests.sort_unstable_by_key(|(r, _)| (r.key, std::cmp::Reverse(r.told), r.owner));
        self.requests.iter().map(|(request, _)| request).collect()
    }

    /// Takes in the answers, in the order of the requests.
    fn answered(&mut self, answers: Vec<Answer>) {
        for ((request, row), answer) in self.requests.iter().zip(answers) {
            match answer {
                Answer::Port(port) if request.key.0 == ROUTED => self.rows[*row].entry = Some(Entry::Routed { interface: port }),
                Answer::Port(port) => self.rows[*row].entry = Some(Entry::Port { port, bridge: request.key.0 }),
                Answer::Taken(by) if request.proven || self.is_late(*row, &self.requests[by].0, request) => {
                    let by = self.rows[self.requests[by].1].subject.to_string();
                    self.rows[*row].state = State::Refused(Reason::OwnedByAnother { address: request.key.1, by });
                    self.rows[*row].entry = None;
                }
                Answer::Gone | Answer::Taken(_) => self.rows[*row].entry = None,
                Answer::Never => {}
            }
        }
    }

    /// Somebody asks for the address of one that was there before. (Who was there before is about to go.)
    fn is_late(&self, row: usize, owner: &Request, late: &Request) -> bool {
        self.rows[row].binding.is_some() && late.told >= owner.told
    }

    /// A row that is known by its network namespace. A bridge's port still has to be the first that has the address.
    fn proven(&mut self, entry: Entry, address: IpAddr, owner: u64, row: Row) {
        if let Entry::Port { port, bridge } = entry {
            let request = Request { key: (bridge, address), ports: vec![port], proven: true, told: 0, owner };
            self.requests.push((request, self.rows.len()));
        }
        self.rows.push(Row { address: Some(IpNet::from(address)), entry: Some(entry), ..row });
    }
}

/// The bridge of this name; nothing when there is no link of this name, or one that is no bridge.
fn bridge_named(kernel: &KernelFacts, name: &str) -> Option<IfIndex> {
    kernel.link(name).filter(|link| link.kind == LinkKind::Bridge).map(|link| link.index)
}

/// Facts by the keys that this needs.
struct Resolver<'a> {
    facts: &'a Facts,
    uplinks: &'a Uplinks,
    networks: BTreeMap<&'a str, &'a Network>,
}

impl<'a> Resolver<'a> {
    fn new(facts: &'a Facts, uplinks: &'a Uplinks) -> Self {
        let mut networks: BTreeMap<&str, &Network> = BTreeMap::new();
        for network in facts.networks.values() {
            networks.insert(&network.id, network);
            networks.insert(&network.name, network);
        }
        Self { facts, uplinks, networks }
    }

    fn network(&self, attachment: &Attachment) -> Option<&'a Network> {
        self.networks.get(attachment.network_id.as_str()).or_else(|| self.networks.get(attachment.network.as_str())).copied()
    }

    fn bridge(&self, network: &Network) -> Option<IfIndex> {
        bridge_named(&self.facts.kernel, network.bridge.as_deref()?)
    }

    /// The ports of a bridge that hold an address, oldest first; of [`ROUTED`] the links that are ports of none.
    fn ports(&self, bridge: IfIndex, address: IpAddr) -> Vec<IfIndex> {
        let is_one = |l: &&Link| if bridge == ROUTED { self.entry(l).bridge().is_none() } else { l.master == Some(bridge) };
        let near = self.facts.kernel.near_ends_of(address).filter(is_one);
        let mut ports: Vec<IfIndex> = near.map(|l| l.index).collect();
        ports.sort_unstable();
        ports
    }

    /// The addresses in a namespace, with where each enters here.
    fn sources(&self, nsid: i32) -> Vec<(Entry, IpAddr)> {
        let mut sources = Vec::new();
        for link in self.facts.kernel.ends_of(nsid) {
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
            let has_link = self.facts.kernel.ends_of(*nsid).next().is_some();
            pending.rows.push(bare(State::Waiting(if has_link { Reason::NoAddressYet } else { Reason::NoLinkYet })));
        }
        let owner = u64::MAX - pending.rows.len() as u64;
        for (entry, address) in sources {
            pending.proven(entry, address, owner, bare(choose(self.uplinks, held, address)));
        }
    }

    fn source(&self, held: &Held, source: &RoutedSource, pending: &mut Pending) {
        let mut row = Row { address: Some(source.net), ..blank(Subject::Source(source.net), from_ref(held)) };
        if let Some(link) = self.own(source) {
            // Which address programs have that choose none is the host's own business.
            if self.uplinks.nics.contains_key(&link.index) {
                row.state = State::Refused(Reason::OfUplink { interface: link.name.clone() });
            } else {
                row.entry = Some(Entry::Socket);
                row.state = choose(self.uplinks, held, source.net.addr());
            }
            pending.rows.push(row);
            return;
        }
        match self.link_of(source) {
            Ok(link) => {
                row.entry = Some(self.entry(link));
                row.state = choose(self.uplinks, held, source.net.addr());
                if source.net.prefix_len() == source.net.max_prefix_len() {
                    // A host that is known to hang on one port is bound to that port. Nobody speaks for it: a newer port is word of it.
                    let ports = self.ports(link.index, source.net.addr());
                    let told = ports.last().copied().unwrap_or(0).into();
                    let key = (link.index, source.net.addr());
                    let owner = u64::MAX - pending.rows.len() as u64;
                    pending.requests.push((Request { key, ports, proven: false, told, owner }, pending.rows.len()));
                }
            }
            Err(reason) => row.state = State::Waiting(reason),
        }
        pending.rows.push(row);
    }

    /// The link that has a source as an address of this host itself.
    fn own(&self, source: &RoutedSource) -> Option<&'a Link> {
        let is_one = source.net.prefix_len() == source.net.max_prefix_len();
        let mut links = self.facts.kernel.own_links_with(source.net.addr()).filter(|_| is_one);
        links.find(|link| source.interface.as_ref().is_none_or(|name| *name == link.name))
    }

    /// The interface that a source comes in by.
    fn link_of(&self, source: &RoutedSource) -> Result<&'a Link, Reason> {
        match &source.interface {
            Some(name) => self.facts.kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() }),
            None => toward(&self.facts.kernel, source.net).ok_or(Reason::NoRouteToSource { net: source.net }),
        }
    }

    fn entry(&self, link: &Link) -> Entry {
        let bridge = link.master.filter(|m| self.facts.kernel.links.get(m).is_some_and(|l| l.kind == LinkKind::Bridge));
        match bridge {
            Some(bridge) => Entry::Port { port: link.index, bridge },
            None => Entry::Routed { interface: link.index },
        }
    }
}

/// An address that can be a source on another link.
fn leaves(address: &IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(*address)
}

/// A workload with the bindings that it falls under, the winner first, of which nothing else is known.
fn blank(subject: Subject, held: &[Held]) -> Row {
    Row {
        subject,
        network: None,
        default_route: false,
        address: None,
        entry: None,
        beside: Vec::new(),
        binding: held.first().cloned(),
        losers: held.iter().skip(1).map(|h| h.name.clone()).collect(),
        state: State::Waiting(Reason::NoAddressYet),
    }
}
