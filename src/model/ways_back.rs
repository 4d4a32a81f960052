//! Which servers' answers have to be led back through this host in their network namespaces.

use std::collections::BTreeSet;

use super::facts::KernelFacts;
use super::inbound::ClientSource;
use super::outcome::Outcome;
use super::route_back::RouteBack;
use super::services::{Server, Service};

/// What a server needs; `None` where its answers are not routed back, or its namespace is not one of this host.
pub fn way_back(service: &Service, server: &Server, kernel: &KernelFacts) -> Option<RouteBack> {
    let via = server.route_back.filter(|_| service.client_source == ClientSource::RouteBack)?;
    let link = kernel.near_ends_of(server.address).find(|link| link.index == server.entry.link())?;
    let (nsid, port) = (link.peer_nsid?, server.port.unwrap_or(service.ports.first));
    Some(RouteBack { nsid, address: server.address, protocol: service.ports.protocol, port, via })
}

/// All that an outcome needs.
pub fn ways_back(outcome: &Outcome, kernel: &KernelFacts) -> BTreeSet<RouteBack> {
    let services = outcome.inbound.all.iter().filter(|service| service.client_source == ClientSource::RouteBack);
    services.flat_map(|service| service.servers.iter().filter_map(|server| way_back(service, server, kernel))).collect()
}
