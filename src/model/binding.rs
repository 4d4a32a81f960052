//! What users ask for, after parsing: manifest and label end in the same types.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address::Family;
use super::field_error::FieldError;
use super::health::ExitProbe;
use super::inbound::Inbound;
use super::labels::LabelSelector;
use super::ports::{Ports, Protocol};
use super::rate::Rate;
use super::reason::Reason;
pub use super::source_ports::SourcePorts;
use crate::fnv::Fnv;

/// Where a binding was written. The order is that of precedence at equal priority: it comes ahead of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The API server.
    Api,
    File,
    Label,
    /// `egressd exec --ip`, or `--namespace`.
    Exec,
}

/// Full name of a binding: `api/shop/crawler`, `file/shop/crawler`, `label/web-1`, `exec/172.31.0.14`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BindingName {
    pub source: Source,
    /// `namespace/name` of an object or a manifest (namespace `default` when it has none); a container's name for labels; an
    /// exit's address for `egressd exec --ip`, with `--namespace` the link on the host.
    pub name: String,
}

impl fmt::Display for BindingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Api => "api",
            Source::File => "file",
            Source::Label => "label",
            Source::Exec => "exec",
        };
        write!(f, "{source}/{}", self.name)
    }
}

/// Who is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Pods of one namespace.
    Pods { namespace: String, labels: LabelSelector },
    /// The container that bears the labels, by id.
    Container(String),
    /// Containers that fit all that is given.
    Containers { names: Vec<String>, match_labels: BTreeMap<String, String>, compose: Option<Compose> },
    /// Sources that route through this host, each with the interface it comes in by (found by main's route to it when not given).
    Addresses(Vec<RoutedSource>),
    /// Network namespaces by name (as `ip netns` knows them).
    Namespaces(Vec<String>),
    /// Programs of this host itself.
    Host(HostSelector),
}

/// Programs of the host that a binding names, each kind by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSelector {
    /// Names of users, or their numbers.
    pub users: Vec<String>,
    /// Paths of control groups below the root of the hierarchy, `/batch`.
    pub cgroups: Vec<String>,
    /// Whole names of systemd units, `crawler.service`.
    pub units: Vec<String>,
    /// Every program that no other binding names.
    pub all: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compose {
    pub project: String,
    /// All services of the project when not given.
    pub service: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutedSource {
    pub net: IpNet,
    pub interface: Option<String>,
}

/// One exit as written: interface and gateway are found when not given. With an unspecified address (`0.0.0.0`, `::`) it is the interface's own
/// address of that family, whatever it is just now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitSpec {
    pub address: IpAddr,
    pub interface: Option<String>,
    pub gateway: Option<IpAddr>,
    /// Its part of the new flows where they are spread, 1 to 100.
    pub weight: u16,
    /// It takes no new flows; those that bear it go on.
    pub draining: bool,
    pub assignment: Assignment,
    /// What the outside sees of it, as far as somebody says; nothing follows from it.
    pub public: Option<IpAddr>,
    /// The source ports of its flows; `None`: what the kernel takes.
    pub source_ports: Option<SourcePorts>,
    /// What it has to reach; `None`: it is not asked.
    pub probe: Option<ExitProbe>,
}

/// Who puts an exit's address where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignment {
    /// Somebody else: it is on a NIC.
    #[default]
    Existing,
    /// egressd puts it on its NIC, and keeps it there.
    Managed,
    /// It is on no NIC: the network routes it to this host.
    Routed,
}

impl ExitSpec {
    /// As it was written: an address, or the name of the interface whose own address it is.
    pub fn written(&self) -> String {
        match &self.interface {
            Some(interface) if self.address.is_unspecified() => interface.clone(),
            _ => self.address.to_string(),
        }
    }

    /// An address, and nothing else said.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            interface: None,
            gateway: None,
            weight: 1,
            draining: false,
            assignment: Assignment::Existing,
            public: None,
            source_ports: None,
            probe: None,
        }
    }
}

/// How new flows are shared among the usable exits of their family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    /// All by the first one.
    #[default]
    FirstUsable,
    /// By turn, exactly.
    RoundRobin,
    Random,
    /// By a hash of the workload's address.
    BySource,
    /// By a hash of the destination's address.
    ByDestination,
}

/// For which traffic: what does not match uses the default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    number: u64,
    to: Arc<[Destination]>,
    ports: Arc<[Ports]>,
}

impl Traffic {
    /// What goes to one of these destinations by one of these ports. No destinations means all of them; no ports, every protocol and port.
    pub fn new(to: Vec<Destination>, ports: Vec<Ports>) -> Self {
        let mut hash = Fnv::default();
        (&to, &ports).hash(&mut hash);
        Self { number: hash.finish(), to: to.into(), ports: ports.into() }
    }

    /// Tells this traffic from any other, for ever: who compares it need not go through tens of thousands of destinations.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Empty means everywhere.
    pub fn to(&self) -> &[Destination] {
        &self.to
    }

    /// Empty means every protocol and port.
    pub fn ports(&self) -> &[Ports] {
        &self.ports
    }

    /// Whether some of it goes to destinations of this family.
    pub fn concerns(&self, family: Family) -> bool {
        self.to.is_empty() || self.to.iter().any(|destination| Family::of(destination.cidr.addr()) == family)
    }

    /// Whether it is for some port of a destination.
    pub fn reaches(&self, to: IpAddr) -> bool {
        let fits = |d: &Destination| d.cidr.contains(&to) && !d.except.iter().any(|e| e.contains(&to));
        self.to.is_empty() || self.to.iter().any(fits)
    }

    /// Whether it is for what goes there.
    pub fn is_for(&self, to: SocketAddr, protocol: Protocol) -> bool {
        let has = |ports: &Ports| ports.protocol == protocol && (ports.first..=ports.last).contains(&to.port());
        self.reaches(to.ip()) && (self.ports.is_empty() || self.ports.iter().any(has))
    }

    /// Nothing is left to the default route.
    pub fn is_everything(&self) -> bool {
        self.to.is_empty() && self.ports.is_empty()
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    pub cidr: IpNet,
    pub except: Vec<IpNet>,
}

/// What happens to a workload none of whose exits is usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnavailable {
    #[default]
    Drop,
    /// The host's default way.
    Fallback,
}

/// What happens to open connections when the exit changes. UDP, and calls that nobody has answered yet, begin anew always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExistingFlows {
    #[default]
    Keep,
    Reset,
}

/// Addresses of a pool, as a binding asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRequest {
    pub pool: String,
    pub wanted: Wanted,
}

/// Which addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These; others may name them, too.
    These(Vec<IpAddr>),
    /// So many, for this binding alone.
    Any(usize),
}

/// Workloads to exits. With `errors` it counts as a binding that has no usable exit: a typing error never lets a workload leave by masquerade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub name: BindingName,
    /// The binding that this one is a copy of, for a program of `egressd exec --namespace`.
    pub copy_of: Option<BindingName>,
    pub selector: Selector,
    /// What it names itself; of a binding with a pool, what the pool gave it.
    pub exits: Vec<ExitSpec>,
    pub spread: Spread,
    /// How fast its workloads send outside, all of them together on this node; `None`: as fast as they can.
    pub rate: Option<Rate>,
    /// What comes in by the exits.
    pub inbound: Vec<Inbound>,
    pub pool: Option<PoolRequest>,
    pub traffic: Traffic,
    pub when_unavailable: WhenUnavailable,
    pub existing_flows: ExistingFlows,
    /// Higher wins; then the source (API, file, label), then the older one, then the name.
    pub priority: i32,
    /// Seconds since the epoch, as the API server or the engine says when the object or the container was made; 0: a file has no age.
    pub created: u64,
    pub errors: Vec<FieldError>,
    /// With errors: exits and ports are what they were before these. Nobody leaves by them, and nothing of them is taken away.
    pub lapsed: bool,
    /// It is well written, and may not have, or has not got, what it asks for. Counts as no usable exit, too.
    pub refusal: Option<Reason>,
    /// Said in status; nothing else follows from them (unknown label, for instance).
    pub warnings: Vec<String>,
}

impl Binding {
    /// It is well written, and has what it asks for.
    pub fn is_accepted(&self) -> bool {
        self.errors.is_empty() && self.refusal.is_none()
    }

    /// What it puts on NICs and serves is there: it is accepted, or was until it got errors.
    pub fn stands(&self) -> bool {
        self.refusal.is_none() && (self.errors.is_empty() || self.lapsed)
    }

    /// Whose turn and rate it has part in: a binding's are one with those of its copies.
    pub fn shared_name(&self) -> &BindingName {
        self.copy_of.as_ref().unwrap_or(&self.name)
    }
}

impl Binding {
    /// One that asks for nothing but what is the default.
    pub fn plain(source: Source, name: &str, selector: Selector) -> Self {
        Self {
            name: BindingName { source, name: name.to_owned() },
            copy_of: None,
            selector,
            exits: Vec::new(),
            spread: Spread::FirstUsable,
            rate: None,
            inbound: Vec::new(),
            pool: None,
            traffic: Traffic::default(),
            when_unavailable: WhenUnavailable::Drop,
            existing_flows: ExistingFlows::Keep,
            priority: 0,
            created: 0,
            errors: Vec::new(),
            lapsed: false,
            refusal: None,
            warnings: Vec::new(),
        }
    }
}

/// Where a container is to be put when it is made (`egress.network`, `egress.container-ip`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub network: Option<String>,
    pub address: Option<IpAddr>,
    /// What is wrong with the labels when there is no binding to say it, or with those that place the container, which then stays where it is.
    pub errors: Vec<FieldError>,
}

impl Placement {
    /// Something is asked for.
    pub fn asks(&self) -> bool {
        self.network.is_some() || self.address.is_some()
    }
}

/// All that a container's labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `None` when the labels only place the container.
    pub binding: Option<Binding>,
    pub placement: Placement,
}
