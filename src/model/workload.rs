//! Who gets what: one row for each address of each workload.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{Binding, BindingName, Source, WhenUnavailable};
use super::facts::{Container, Family, IfIndex};
use super::pod::Pod;
use super::reason::Reason;
use super::select::Held;
use super::uplinks::{Exit, Uplinks};

/// A workload as people know it.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Container(Arc<Container>),
    Pod(Arc<Pod>),
    /// A container runtime's container, by the runtime's namespace and its name.
    Bare(String),
    Namespace(Arc<str>),
    Source(IpNet),
    /// Programs of this host, by what they are known by: `user/crawler`, `cgroup/batch`, `unit/crawler.service`, [`EVERYBODY`].
    Programs(Arc<str>),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(container) => f.write_str(&container.name),
            Self::Pod(pod) => write!(f, "pod/{}/{}", pod.namespace, pod.name),
            Self::Bare(name) => f.write_str(name),
            Self::Namespace(name) => write!(f, "netns/{name}"),
            Self::Source(net) => write!(f, "{net}"),
            Self::Programs(name) => f.write_str(name),
        }
    }
}

/// Where an address of a workload enters this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// By a port of a bridge: the port proves who it is.
    Port { port: IfIndex, bridge: IfIndex },
    /// By an interface of its own or of a subnet.
    Routed { interface: IfIndex },
    /// Not at all: sockets of this host that are bound to the address, which is one of the host's own.
    Socket,
    /// Not at all: sockets of this host that a user opened.
    User { uid: u32 },
    /// Not at all: sockets of this host that were made in or below a control group, so many levels below the root.
    Cgroup { id: u64, level: u32 },
    /// Not at all: sockets of this host that nothing else tells apart.
    Everybody,
}

/// What the rows of all the host's programs are called.
pub const EVERYBODY: &str = "host/all";

impl Entry {
    /// It is programs of this host, whatever address they have.
    pub fn is_of_host(self) -> bool {
        matches!(self, Self::User { .. } | Self::Cgroup { .. } | Self::Everybody)
    }

    /// The interface that the ip families see; 0 is none.
    pub fn interface(self) -> IfIndex {
        match self {
            Self::Port { bridge, .. } => bridge,
            Self::Routed { interface } => interface,
            Self::Socket | Self::User { .. } | Self::Cgroup { .. } | Self::Everybody => 0,
        }
    }

    /// The bridge, if it is by one.
    pub fn bridge(self) -> Option<IfIndex> {
        match self {
            Self::Port { bridge, .. } => Some(bridge),
            Self::Routed { .. } | Self::Socket | Self::User { .. } | Self::Cgroup { .. } | Self::Everybody => None,
        }
    }

    /// The link that leads to it.
    pub fn link(self) -> IfIndex {
        match self {
            Self::Port { port, .. } => port,
            Self::Routed { interface } => interface,
            Self::Socket | Self::User { .. } | Self::Cgroup { .. } | Self::Everybody => 0,
        }
    }
}

/// What is known of one address of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub subject: Subject,
    /// Docker network.
    pub network: Option<String>,
    /// The container's default route goes by this network.
    pub default_route: bool,
    /// A host address, except for a routed subnet. Of the host's programs all of the family, whatever address they have.
    pub address: Option<IpNet>,
    pub entry: Option<Entry>,
    /// By which other links of the same workload packets with this address come in.
    pub beside: Vec<Entry>,
    pub binding: Option<Held>,
    /// Bindings that would have had it too.
    pub losers: Vec<BindingName>,
    pub state: State,
}

impl Row {
    /// Wherever its packets enter this host.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entry.into_iter().chain(self.beside.iter().copied().filter(|_| self.entry.is_some()))
    }

    /// Why it is not served, or not yet.
    pub fn reason(&self) -> Option<&Reason> {
        match &self.state {
            State::Bound(_) if self.entry.is_none() => Some(&Reason::NotSeenYet),
            state => state.reason(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Bound(Exit),
    /// Bound without a usable exit: nothing leaves.
    Dropped(Reason),
    /// Bound without a usable exit: it uses the default route, as its binding allows.
    FellBack(Reason),
    /// Known, and bound by nobody; or its binding is for nothing of this family.
    Free,
    /// No address yet.
    Waiting(Reason),
    /// Not possible for this workload, on this network.
    Refused(Reason),
}

impl State {
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Bound(_) | Self::Free => None,
            Self::Dropped(reason) | Self::FellBack(reason) | Self::Waiting(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

impl Row {
    /// Its binding has no exit of its family. While its workload leaves by the other family that is as it was asked for.
    pub fn is_of_no_family(&self) -> bool {
        matches!(self.state, State::Dropped(Reason::NoExitInFamily(_)))
    }
}

/// The exit that a binding gives to an address: the first usable one of its family.
pub fn choose(uplinks: &Uplinks, binding: &Binding, address: IpAddr) -> State {
    let without = |reason| match (binding.when_unavailable, &reason) {
        // A family that none was named for is not one whose exits are away: what identity it would show was not asked for.
        (WhenUnavailable::Drop, _) | (_, Reason::NoExitInFamily(_)) => State::Dropped(reason),
        (WhenUnavailable::Fallback, _) => State::FellBack(reason),
    };
    if let Some(error) = binding.errors.first() {
        return without(Reason::Invalid(error.clone()));
    }
    if let Some(reason) = &binding.refusal {
        return without(reason.clone());
    }
    let mut first = None;
    for spec in binding.exits.iter().filter(|e| e.address.is_ipv4() == address.is_ipv4()) {
        if spec.draining {
            _ = first.get_or_insert(Reason::Draining { address: spec.address });
            continue;
        }
        match uplinks.exit(spec) {
            Some(Ok(exit)) => return State::Bound(*exit),
            // A cluster's binding has exits on other nodes, too.
            Some(Err(Reason::AddressNotFound { .. })) if binding.name.source == Source::Api => {
                _ = first.get_or_insert(Reason::NoExitOnNode);
            }
            Some(Err(reason)) => drop(first.get_or_insert_with(|| reason.clone())),
            None => drop(first.get_or_insert(Reason::AddressNotFound { address: spec.address })),
        }
    }
    let family = Family::of(address);
    match first {
        Some(reason) => without(reason),
        // All of the family is what the binding is not for.
        None if !binding.traffic.concerns(family) => State::Free,
        None => without(Reason::NoExitInFamily(family)),
    }
}
