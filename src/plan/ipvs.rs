//! Virtual services of IPVS: what published ports need, and the steps from what there is. Only services that are ours are touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::inbound::ServerCut;
use super::sysctls;
use crate::model::facts::KernelFacts;
use crate::model::ipvs::table::{Persistent, RealServer, Settings, Table, Virtual};
use crate::model::ports::Called;
use crate::model::ports::Protocol;
use crate::model::resolve::Outcome;
use crate::model::services::{Endpoint, Served, Server, Service, Services};

/// Settings of `/proc/sys` that virtual services stand on, and their values. They are of the network namespace, and so of all its services.
const SYSCTLS: [(&str, &str); 3] = [
    // Without it no packet of IPVS belongs to a flow: source NAT misses it, and the seal drops the answers of bound servers.
    ("net/ipv4/vs/conntrack", "1"),
    // What comes for a server that is gone goes to another one, or is refused, instead of being dropped without a word.
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    // A persistent client of a server with weight 0 goes to another one.
    ("net/ipv4/vs/expire_quiescent_template", "1"),
];

/// All settings, with those of links whose neighbours must not be told of a better router than this host.
pub fn sysctls(redirects: &BTreeSet<String>) -> Vec<(String, &'static str)> {
    let all = (!redirects.is_empty()).then(|| sysctls::ALL_REDIRECTS.to_owned());
    let of_links = redirects.iter().map(|link| sysctls::redirects(link)).chain(all).map(|key| (key, "0"));
    SYSCTLS.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(of_links).collect()
}

/// Names of the links that servers of virtual services are behind: their answers may leave by the link that they come in by, and the kernel
/// would tell them to send these to the client itself.
pub fn redirects(outcome: &Outcome, kernel: &KernelFacts) -> BTreeSet<String> {
    let virtual_services = outcome.inbound.all.iter().filter(|service| service.engine.ipvs().is_some() && service.address.is_ipv4());
    let entries = virtual_services.flat_map(Service::places).map(|(_, _, entry)| entry.bridge().unwrap_or(entry.interface()));
    entries.filter_map(|index| Some(kernel.links.get(&index)?.name.clone())).collect()
}

/// Who got new connections of these services until now.
pub fn served(table: &Table, ours: &BTreeSet<Called>) -> Served {
    let ours = table.iter().filter(|(called, _)| ours.contains(called));
    let takes = |service: &Virtual| service.servers.iter().filter(|(_, server)| server.weight > 0).map(|(endpoint, _)| *endpoint).collect();
    ours.map(|(called, service)| (*called, takes(service))).collect()
}

/// A change of a virtual service or of one of its servers. Each says how it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpvsStep {
    AddService(Called, Settings),
    EditService(Called, Settings),
    /// Its connections end.
    DeleteService(Called),
    AddServer(Called, Endpoint, RealServer),
    EditServer(Called, Endpoint, RealServer),
    /// Its connections end.
    DeleteServer(Called, Endpoint),
}

impl IpvsStep {
    /// The service that it is about.
    pub fn called(&self) -> Called {
        match self {
            Self::AddService(called, _) | Self::EditService(called, _) | Self::DeleteService(called) => *called,
            Self::AddServer(called, ..) | Self::EditServer(called, ..) | Self::DeleteServer(called, _) => *called,
        }
    }
}

/// The step as a command.
impl fmt::Display for IpvsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, server) = match self {
            Self::AddService(..) => ("-A", None),
            Self::EditService(..) => ("-E", None),
            Self::DeleteService(_) => ("-D", None),
            Self::AddServer(_, endpoint, _) => ("-a", Some(endpoint)),
            Self::EditServer(_, endpoint, _) => ("-e", Some(endpoint)),
            Self::DeleteServer(_, endpoint) => ("-d", Some(endpoint)),
        };
        let (address, ports) = self.called();
        let option = match ports.protocol {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
            Protocol::Sctp => "--sctp-service",
        };
        write!(f, "ipvsadm {service} {option} {}", SocketAddr::new(address, ports.first))?;
        if let Some((address, port)) = server {
            write!(f, " -r {}", SocketAddr::new(*address, *port))?;
        }
        match self {
            Self::AddService(_, Settings { scheduler, persistence, .. })
            | Self::EditService(_, Settings { scheduler, persistence, .. }) => {
                write!(f, " -s {scheduler}")?;
                persistence.map_or(Ok(()), |Persistent { seconds, prefix_length }| write!(f, " -p {seconds} -M {prefix_length}"))
            }
            Self::AddServer(_, _, server) | Self::EditServer(_, _, server) => {
                write!(f, " -m -w {} -x {} -y {}", server.weight, server.thresholds.upper, server.thresholds.lower)
            }
            Self::DeleteService(_) | Self::DeleteServer(..) => Ok(()),
        }
    }
}

/// The virtual services that published ports need, those without a server, too: what is open there goes on.
pub fn desired(services: &Services) -> Table {
    services.all.iter().filter_map(|service| Some(((service.address, service.ports), of_service(service)?))).collect()
}

fn of_service(service: &Service) -> Option<Virtual> {
    let balancer = service.engine.ipvs()?;
    let persistence = balancer.persistence.map(|persistence| Persistent {
        seconds: persistence.seconds,
        prefix_length: if service.address.is_ipv6() { persistence.ipv6_prefix_length } else { persistence.ipv4_prefix_length },
    });
    let weights: BTreeMap<Endpoint, u16> = service.weighted().into_iter().collect();
    let server = |server: &Server| {
        let weight = weights.get(&server.endpoint()).copied().unwrap_or_default().into();
        (server.endpoint(), RealServer { weight, thresholds: server.thresholds, ..RealServer::default() })
    };
    let settings = Settings { scheduler: balancer.scheduler.name().to_owned(), persistence, flags: 0 };
    // What is open of the server of last resort drains once servers are back, as with any that is wanted no more.
    let last = service.resorted().map(|last| (last.endpoint(), RealServer { weight: 1, ..RealServer::default() }));
    Some(Virtual { settings, servers: service.servers.iter().map(server).chain(last).collect() })
}

/// What is known of servers beside what is wanted of them.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Addresses whose workloads are gone.
    pub gone: BTreeSet<IpAddr>,
    /// Servers whose time to drain is over.
    pub drained: BTreeSet<(Called, IpAddr)>,
}

/// The steps from what there is to what is wanted, of the services that are `ours`.
///
/// A server that gets no new connections goes on with those that it has, with weight 0. Datagrams have no end of their own: their server is
/// deleted, as is one that is gone, or has drained.
pub fn steps(desired: &Table, observed: &Table, ours: &BTreeSet<Called>, ends: &Ends) -> Vec<IpvsStep> {
    let mut steps = Vec::new();
    for called in ours {
        match (desired.get(called), observed.get(called)) {
            (Some(wanted), found) => service_steps(*called, wanted, found, ends, &mut steps),
            (None, Some(_)) => steps.push(IpvsStep::DeleteService(*called)),
            (None, None) => {}
        }
    }
    steps
}

fn service_steps(called: Called, wanted: &Virtual, found: Option<&Virtual>, ends: &Ends, steps: &mut Vec<IpvsStep>) {
    let none = BTreeMap::new();
    let servers = found.map_or(&none, |found| &found.servers);
    let mut of_servers = Vec::new();
    let mut left = 0;
    for (endpoint, server) in &wanted.servers {
        match servers.get(endpoint) {
            None if server.weight == 0 => {}
            None => of_servers.push(IpvsStep::AddServer(called, *endpoint, *server)),
            Some(there) if server.weight == 0 && ended(called, *endpoint, there, ends) => {
                of_servers.push(IpvsStep::DeleteServer(called, *endpoint));
                continue;
            }
            Some(there) if there.is_set_as(server) => {}
            Some(_) => of_servers.push(IpvsStep::EditServer(called, *endpoint, *server)),
        }
        left += 1;
    }
    for (endpoint, there) in servers.iter().filter(|(endpoint, _)| !wanted.servers.contains_key(endpoint)) {
        let drains = RealServer { weight: 0, ..*there };
        if there.connections == 0 || ended(called, *endpoint, there, ends) {
            of_servers.push(IpvsStep::DeleteServer(called, *endpoint));
            continue;
        }
        if !there.is_set_as(&drains) {
            of_servers.push(IpvsStep::EditServer(called, *endpoint, drains));
        }
        left += 1;
    }
    match found {
        None if left == 0 => return,
        None => steps.push(IpvsStep::AddService(called, wanted.settings.clone())),
        Some(_) if left == 0 => return steps.push(IpvsStep::DeleteService(called)),
        Some(found) if found.settings != wanted.settings => steps.push(IpvsStep::EditService(called, wanted.settings.clone())),
        Some(_) => {}
    }
    steps.append(&mut of_servers);
}

/// Whether a server that gets no new connections has to give up those that it has.
fn ended(called: Called, (address, _): Endpoint, there: &RealServer, ends: &Ends) -> bool {
    let (_, ports) = called;
    let is_drained = there.connections == 0 || ends.drained.contains(&(called, address));
    ports.protocol == Protocol::Udp || ends.gone.contains(&address) || (is_drained && there.weight == 0)
}

/// The flows that have to end for a new virtual service: what the host itself has answered until now (see [`super::inbound`]).
pub fn begun_before(steps: &[IpvsStep]) -> Vec<ServerCut> {
    let new =
        steps.iter().filter_map(|step| if let IpvsStep::AddService((address, ports), _) = step { Some((*address, *ports)) } else { None });
    new.filter(|(_, ports)| ports.protocol != Protocol::Tcp)
        .map(|(address, ports)| ServerCut {
            server: address,
            called: address,
            protocol: ports.protocol.number(),
            ports: (ports.first, ports.last),
        })
        .collect()
}

#[cfg(test)]
mod tests;
