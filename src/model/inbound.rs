//! What is served on ports of exits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::health::{AllDown, HealthCheck};
use super::ipvs::{Engine, Thresholds};
use super::ports::Ports;
use super::reason::Reason;

/// Calls to the binding's exits that go to its workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The exit that is called; each of them when not given.
    pub address: Option<IpAddr>,
    /// The ports that are called.
    pub ports: Ports,
    /// The port that the workloads listen on; the one that is called when not given.
    pub target: Option<u16>,
    pub engine: Engine,
    /// Of [`Engine::Nftables`].
    pub balance: Balance,
    pub client_source: ClientSource,
    /// Each workload's part of the new connections, 1 to 100; one with 0 gets none, and goes on with those that it has.
    pub weight: u16,
    /// Weights of single workloads, by their addresses.
    pub weights: BTreeMap<IpAddr, u16>,
    /// Thresholds of single workloads, by their addresses: of [`Engine::Ipvs`].
    pub thresholds: BTreeMap<IpAddr, Thresholds>,
    /// How it is found out whether a workload serves; `None`: one does as long as it is there.
    pub health: Option<Arc<HealthCheck>>,
    pub all_down: AllDown,
    /// Where calls go while no workload takes new ones: at most one of each family.
    pub last_resort: Vec<LastResort>,
    /// Seconds that a workload which gets no new connections any more may take to end those that it has; `None`: as long as it likes.
    pub drain: Option<u32>,
    /// Seconds that a client goes to the same workload after its last new connection; `None`: each is shared out by itself.
    pub affinity: Option<u32>,
    pub limits: Limits,
    /// It is well written, and may not be published: nothing else of the binding depends on it.
    pub refusal: Option<Reason>,
}

/// A server of last resort: it is not asked for its health, and gets no call while a workload takes new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastResort {
    pub address: IpAddr,
    /// The port that it listens on; that of the workloads when not given.
    pub port: Option<u16>,
}

/// Which new connections are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections that a workload may have open at a time on its port.
    pub per_server: Option<u32>,
    /// New connections of one client's address in a second, and as many at once.
    pub per_client: Option<u32>,
}

/// How new connections are shared among the workloads that serve a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Balance {
    /// By turn, exactly.
    #[default]
    RoundRobin,
    Random,
    /// By a hash of the client's address.
    BySource,
}

/// The source address that a workload sees of who calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientSource {
    /// The client's own: answers have to come back through this host.
    #[default]
    Preserve,
    /// This host's address towards the workload.
    Masquerade,
    /// The client's own, beside the workload, too: a rule in the workload's network namespace leads its answers back through this host.
    RouteBack,
}
