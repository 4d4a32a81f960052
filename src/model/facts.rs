//! What is known of this node: plain data that the sources fill in and the model reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::IpNet;

use super::binding::{Asked, Placement};
use super::isolated::Isolated;
use super::ports::Protocol;
use super::replace;

mod link;
mod routing;

pub use super::address::{Family, Mac, is_link_local};
pub use link::{Address, IfIndex, Link, LinkKind, Place};
pub use routing::{NextHop, Route, RouteKind, Rule, RuleAction};

/// What the kernel said since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelChange {
    Link(Link),
    LinkGone(IfIndex),
    /// What a bridge says of a port: whether frames may leave by it that came in by it.
    Hairpin(IfIndex, bool),
    Address(Place, Address),
    AddressGone(Place, IpNet),
    /// All routes and rules that matter, read anew.
    Routing {
        routes: Vec<Route>,
        rules: Vec<Rule>,
    },
    /// Network namespaces that have a name (under /run/netns) and a number here.
    Namespaces(BTreeMap<String, i32>),
    /// A setting of forwarding or of filtering was changed: the settings have to be looked at again.
    Settings,
    /// A dump follows: forget links and addresses. The dump's changes and this come in one batch.
    Restart,
}

/// The kernel's own facts, with indexes that follow from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    pub links: BTreeMap<IfIndex, Link>,
    pub addresses: BTreeMap<Place, BTreeSet<Address>>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub namespaces: BTreeMap<String, i32>,
    names: HashMap<String, IfIndex>,
    /// How often each link has gone down since it was first seen.
    downs: HashMap<IfIndex, u32>,
    /// Where each address is.
    holders: HashMap<IpAddr, Vec<Place>>,
    /// Our end of each veth whose far end is in another namespace.
    near_ends: BTreeMap<Place, IfIndex>,
    /// Links that are on top of another one, or a veth's end whose peer may be here.
    stacked: BTreeSet<IfIndex>,
    /// Links that lead to programs in network namespaces of their own.
    isolated: BTreeSet<IfIndex>,
}

impl KernelFacts {
    /// Takes in one change; whether it said anything new.
    pub fn apply(&mut self, change: KernelChange) -> bool {
        match change {
            KernelChange::Link(link) if self.links.get(&link.index) == Some(&link) => return false,
            KernelChange::Link(link) => self.put_link(link),
            KernelChange::LinkGone(index) => {
                let held = self.forget(Place { nsid: None, index });
                let gone = self.links.remove(&index);
                self.downs.remove(&index);
                self.stacked.remove(&index);
                self.isolated.remove(&index);
                let new = held || gone.is_some();
                if let Some(link) = gone.as_ref().filter(|link| self.names.get(&link.name) == Some(&index)) {
                    self.names.remove(&link.name);
                }
                let far = gone.and_then(|link| link.far_end());
                // A namespace's number is given again before its links here are gone: the place may be a successor's by now.
                if let Some(far) = far.filter(|far| self.near_ends.get(far) == Some(&index)) {
                    self.near_ends.remove(&far);
                    self.forget(far);
                }
                return new;
            }
            KernelChange::Hairpin(index, on) => {
                return self.links.get_mut(&index).is_some_and(|link| replace(&mut link.hairpin, on));
            }
            KernelChange::Address(place, address) if self.addresses.get(&place).is_some_and(|all| all.contains(&address)) => return false,
            KernelChange::Address(place, address) => {
                self.drop_address(place, address.net);
                self.addresses.entry(place).or_default().insert(address);
                let places = self.holders.entry(address.net.addr()).or_default();
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            KernelChange::AddressGone(place, net) => return self.drop_address(place, net),
            KernelChange::Routing { routes, rules } => {
                let changed = replace(&mut self.routes, routes);
                return replace(&mut self.rules, rules) || changed;
            }
            KernelChange::Namespaces(names) => return replace(&mut self.namespaces, names),
            // They are no facts of here; whoever wants them reads them.
            KernelChange::Settings => {}
            KernelChange::Restart => {
                self.links.clear();
                self.addresses.clear();
                self.holders.clear();
                self.near_ends.clear();
                self.stacked.clear();
                self.isolated.clear();
                self.names.clear();
            }
        }
        true
    }

    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(self.names.get(name)?)
    }

    /// The addresses of one interface.
    pub fn addresses_at(&self, place: Place) -> impl Iterator<Item = &Address> {
        self.addresses.get(&place).into_iter().flatten()
    }

    /// The addresses of this namespace's own interfaces.
    pub fn own_addresses(&self) -> impl Iterator<Item = (IfIndex, &Address)> {
        let here = |index| Place { nsid: None, index };
        let all = self.addresses.range(here(0)..=here(IfIndex::MAX));
        all.flat_map(|(place, addresses)| addresses.iter().map(|address| (place.index, address)))
    }

    /// Our end of the veth whose far end this is.
    pub fn near_end(&self, far: Place) -> Option<&Link> {
        self.links.get(self.near_ends.get(&far)?)
    }

    /// Our ends of all veths that lead into a namespace.
    pub fn ends_of(&self, nsid: i32) -> impl Iterator<Item = &Link> {
        let there = |index| Place { nsid: Some(nsid), index };
        self.near_ends.range(there(0)..=there(IfIndex::MAX)).filter_map(|(_, near)| self.links.get(near))
    }

    /// Links that are on top of another one, with that one: a VLAN or macvlan, or the end of a veth whose peer is in this namespace.
    pub fn stacked(&self) -> impl Iterator<Item = (&Link, &Link)> {
        let links = self.stacked.iter().filter_map(|index| self.links.get(index));
        links.filter_map(|link| Some((link, self.links.get(&link.lower?)?)))
    }

    /// Links that lead to programs in network namespaces of their own, each with its program.
    pub fn isolated(&self) -> impl Iterator<Item = (&Link, &Isolated)> {
        let links = self.isolated.iter().filter_map(|index| self.links.get(index));
        links.filter_map(|link| Some((link, link.isolated.as_deref()?)))
    }

    /// The addresses of those programs, each with its link.
    pub fn isolated_sources(&self) -> impl Iterator<Item = (IfIndex, IpAddr)> {
        self.isolated().flat_map(|(link, program)| program.addresses.iter().map(move |address| (link.index, *address)))
    }

    /// Links of this namespace whose far end (a veth's peer) holds the address.
    pub fn near_ends_of(&self, address: IpAddr) -> impl Iterator<Item = &Link> {
        let places = self.holders.get(&address).into_iter().flatten();
        places.filter_map(|place| self.near_end(*place))
    }

    /// Links of this namespace that hold the address themselves.
    pub fn own_links_with(&self, address: IpAddr) -> impl Iterator<Item = &Link> {
        let places = self.holders.get(&address).into_iter().flatten();
        places.filter(|p| p.nsid.is_none()).filter_map(|p| self.links.get(&p.index))
    }

    /// How often a link has gone down since it was first seen.
    pub fn downs(&self, index: IfIndex) -> u32 {
        self.downs.get(&index).copied().unwrap_or(0)
    }

    fn put_link(&mut self, link: Link) {
        if self.links.get(&link.index).is_some_and(|before| before.up && !link.up) {
            *self.downs.entry(link.index).or_default() += 1;
        }
        let old = self.links.get(&link.index).and_then(Link::far_end);
        if let Some(old) = old.filter(|old| self.near_ends.get(old) == Some(&link.index)) {
            self.near_ends.remove(&old);
        }
        if let Some(far) = link.far_end() {
            self.near_ends.insert(far, link.index);
        }
        if let Some(old) = self.links.get(&link.index).filter(|old| old.name != link.name) {
            self.names.remove(&old.name);
        }
        self.names.insert(link.name.clone(), link.index);
        for (links, is_one) in [(&mut self.stacked, link.lower.is_some()), (&mut self.isolated, link.isolated.is_some())] {
            if is_one {
                links.insert(link.index)
            } else {
                links.remove(&link.index)
            };
        }
        self.links.insert(link.index, link);
    }

    /// Whether the place had any.
    fn forget(&mut self, place: Place) -> bool {
        let gone = self.addresses.remove(&place).unwrap_or_default();
        gone.iter().for_each(|address| self.drop_holder(place, address.net.addr()));
        !gone.is_empty()
    }

    /// Whether it was there.
    fn drop_address(&mut self, place: Place, net: IpNet) -> bool {
        // One place may have thousands: it is looked through only for one that is there.
        if !self.holders.get(&net.addr()).is_some_and(|places| places.contains(&place)) {
            return false;
        }
        let Some(all) = self.addresses.get_mut(&place) else { return false };
        let before = all.len();
        all.retain(|a| a.net != net);
        let gone = all.len() < before;
        // An address may be there twice, with two prefix lengths.
        let held = all.iter().any(|a| a.net.addr() == net.addr());
        if all.is_empty() {
            self.addresses.remove(&place);
        }
        if !held {
            self.drop_holder(place, net.addr());
        }
        gone
    }

    fn drop_holder(&mut self, place: Place, address: IpAddr) {
        if let Some(places) = self.holders.get_mut(&address) {
            places.retain(|p| *p != place);
            if places.is_empty() {
                self.holders.remove(&address);
            }
        }
    }
}

/// A Docker network, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub driver: String,
    /// Name of the bridge device (`com.docker.network.bridge.name`, `docker0`, or `br-` and 12 digits of the id).
    pub bridge: Option<String>,
    pub subnets: Vec<IpNet>,
    pub internal: bool,
    /// Made by us (`egressd.dev/managed`).
    pub managed: bool,
    /// `egress.guard`; `None` leaves it to whether a bound container is on the network.
    pub guard: Option<bool>,
    /// What is wrong with its labels.
    pub problems: Vec<String>,
}

/// One network that a container is on, or will be on once it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Network's id; empty when only the name is known yet.
    pub network_id: String,
    pub network: String,
    /// Empty while the container does not run.
    pub addresses: Vec<IpAddr>,
    /// `GwPriority`: which network carries the default route (API 1.48); then the name decides.
    pub gateway_priority: i64,
}

impl Attachment {
    /// Whether this is the network that is asked for, if one is.
    pub fn is_asked_by(&self, placement: &Placement) -> bool {
        placement.network.as_ref().is_none_or(|wanted| self.network == *wanted || self.network_id == *wanted)
    }

    /// Whether an address on it is one that is asked for.
    pub fn fits(&self, placement: &Placement, address: IpAddr) -> bool {
        self.is_asked_by(placement) && placement.address.is_none_or(|wanted| wanted == address || wanted.is_ipv4() != address.is_ipv4())
    }
}

/// A port of the host that an engine publishes for a container (`docker run -p`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub protocol: Protocol,
    /// The host's port.
    pub port: u16,
    /// Unspecified for all addresses of its family.
    pub address: IpAddr,
}

/// A container of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// `host`, `none`, `container:ID`, `default`, `bridge`, or a network's name or id.
    pub network_mode: String,
    /// Attached to networks with addresses, or on its way there: not merely created or exited.
    pub running: bool,
    /// Seconds since the epoch.
    pub created: u64,
    pub attachments: Vec<Attachment>,
    /// Ports of the host that the engine publishes for it; none unless it runs.
    pub published: Vec<Published>,
    /// What its labels ask for, parsed once; `None` when it bears no `egress.` label.
    pub asked: Option<std::sync::Arc<Asked>>,
}

/// What an engine said since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChange {
    /// The whole truth as of now: what is not in it is gone.
    Snapshot {
        containers: Vec<Container>,
        networks: Vec<Network>,
    },
    /// It was made a moment ago and its labels say where it is to be put. It is told as a container besides, once more is known.
    Made {
        /// Its id.
        container: String,
        name: String,
        placement: Placement,
    },
    Container(Box<Container>),
    ContainerGone(String),
    Network(Box<Network>),
    NetworkGone(String),
    /// What of the engine's answers could not be read or had: all of it, by what it is about.
    Problems(BTreeMap<String, String>),
    /// The engine is away, and why; what was known of it stays.
    Lost(String),
}

#[cfg(test)]
mod tests;
