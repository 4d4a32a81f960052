//! Servers whose answers are led back through this host by a rule in their network namespaces, where egressd makes and keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::KernelFacts;
use super::inbound::ClientSource;
use super::ports::Protocol;
use super::resolve::Outcome;
use super::services::{Server, Service};

/// A port of a server in a network namespace behind a link of this host, and where its answers are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteBack {
    /// The number that the namespace has here.
    pub nsid: i32,
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    /// This host's address beside it.
    pub via: IpAddr,
}

/// What became of each: why there is no rule, if so.
pub type RoutedBack = BTreeMap<RouteBack, Result<(), String>>;

impl RouteBack {
    /// What a server needs; `None` where its answers are not routed back, or its namespace is not one of this host.
    pub fn of(service: &Service, server: &Server, kernel: &KernelFacts) -> Option<Self> {
        let via = server.route_back.filter(|_| service.client_source == ClientSource::RouteBack)?;
        let link = kernel.near_ends_of(server.address).find(|link| link.index == server.entry.link())?;
        let (nsid, port) = (link.peer_nsid?, server.port.unwrap_or(service.ports.first));
        Some(Self { nsid, address: server.address, protocol: service.ports.protocol, port, via })
    }
}

/// All that an outcome needs.
pub fn wanted(outcome: &Outcome, kernel: &KernelFacts) -> BTreeSet<RouteBack> {
    let services = outcome.inbound.all.iter().filter(|service| service.client_source == ClientSource::RouteBack);
    services.flat_map(|service| service.servers.iter().filter_map(|server| RouteBack::of(service, server, kernel))).collect()
}
