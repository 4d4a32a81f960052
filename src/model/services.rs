//! Services: ports of exits, and the workloads that serve them.
//!
//! A call to an exit's address on such a port goes to one of the servers, by destination NAT on its first packet. A port of an address is one
//! binding's, that of the binding which serves it already, or else of the one that takes precedence; containers whose labels publish the same
//! share it. In a cluster it is the oldest binding's that its pool lends it to. What a program of the host, or another container by the engine's
//! own means, has already is refused.

mod claims;
mod last_resort;
mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::binding::BindingName;
use super::field_error::FieldError;
use super::health::{AllDown, Check, Verdict};
use super::inbound::{Balance, ClientSource, Limits};
use super::ipvs::{Engine, Thresholds};
use super::known::Facts;
use super::listeners::Taken;
use super::ports::{Called, Ports, Protocol};
use super::slots::{hashed, turns};
use super::uplinks::Uplinks;
use super::workload::{Entry, Row};
use claims::claims;
use rights::Known;

/// A port of an exit's address, or a range of ports, with those who serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub address: IpAddr,
    pub ports: Ports,
    pub engine: Engine,
    /// Of [`Engine::Nftables`].
    pub balance: Balance,
    pub client_source: ClientSource,
    pub all_down: AllDown,
    /// Who gets the calls while no server takes new ones.
    pub last_resort: Option<LastServer>,
    /// Seconds that a client goes to the same server after its last new connection.
    pub affinity: Option<u32>,
    pub limits: Limits,
    /// The binding that had it first.
    pub binding: BindingName,
    /// In the order of their bindings and addresses; none while nobody serves it.
    pub servers: Vec<Server>,
}

/// A workload that serves a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: IpAddr,
    /// Its own port; `None` for a range, whose ports stay as they are.
    pub port: Option<u16>,
    /// Its part of the new connections, 1 to 100; 0 while it drains.
    pub weight: u16,
    /// Of [`Engine::Ipvs`].
    pub thresholds: Thresholds,
    /// This host's address beside it, where its answers are to be routed back through this host.
    pub route_back: Option<IpAddr>,
    pub health: Health,
    /// Seconds that it may drain.
    pub drain: Option<u32>,
    pub entry: Entry,
    /// The place of its row among the outcome's.
    pub row: usize,
}

/// A server of last resort. Nobody asks for its health, and it is no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastServer {
    pub address: IpAddr,
    /// `None` for a range, whose ports stay as they are.
    pub port: Option<u16>,
    pub entry: Entry,
}

impl LastServer {
    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        (self.address, self.port.unwrap_or(0))
    }
}

/// What is known of a server's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nobody asks.
    Unchecked,
    /// It was asked for the first time, and has not answered yet.
    Unknown {
        /// It got new connections before it was asked: it goes on until it is known better.
        served: bool,
    },
    Known(Verdict),
}

impl Server {
    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        (self.address, self.port.unwrap_or(0))
    }

    /// Whether new connections go to it, while others can.
    pub fn takes(&self) -> bool {
        let well = match &self.health {
            Health::Unchecked | Health::Known(Verdict::Healthy) => true,
            Health::Known(Verdict::Unhealthy(_)) => false,
            Health::Unknown { served } => *served,
        };
        well && self.weight > 0
    }
}

/// A port of a server that may have so many flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitedServer {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where a server listens. Of a range the port is 0.
pub type Endpoint = (IpAddr, u16);

/// All services of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// By address and ports.
    pub all: Vec<Service>,
    /// What is not served, and why, each with its cure.
    pub problems: Vec<Problem>,
    /// The ports that bindings ask for, each of them another one's: of these it has to be known who listens there.
    pub asked: Arc<BTreeSet<Called>>,
    /// Some are not served yet, since that is not known.
    pub pending: bool,
    /// Some entry asks for IPVS.
    pub ipvs: bool,
    /// What servers are to be asked for their health.
    pub checks: Arc<BTreeSet<Check>>,
    /// Whose ports are that cannot be served just now, as where the exit's address is away.
    pub away: Holders,
    /// Virtual services of IPVS that nobody wants any more, and that the kernel still has.
    pub left: BTreeSet<Called>,
}

/// What is wrong with a port that a binding publishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub binding: BindingName,
    /// One word for machines; `None` where the port is served all the same.
    pub word: Option<&'static str>,
    pub error: FieldError,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.binding, self.error)
    }
}

/// What was served until now, and who got the new connections.
pub type Served = BTreeMap<Called, Vec<Endpoint>>;

/// Whose a port was until now, whether somebody served it or not.
pub type Holders = BTreeMap<Called, BindingName>;

impl Services {
    /// What is served now.
    pub fn served(&self) -> Served {
        let served = self.all.iter().filter(|service| service.has_servers());
        let of = |service: &Service| service.weighted().into_iter().map(|(endpoint, _)| endpoint).collect();
        served.map(|service| ((service.address, service.ports), of(service))).collect()
    }

    /// Whose the ports are now.
    pub fn holders(&self) -> Holders {
        let served = self.all.iter().map(|service| ((service.address, service.ports), service.binding.clone()));
        self.away.clone().into_iter().chain(served).collect()
    }

    /// The rows behind a place among them have moved by so many.
    pub fn move_rows(&mut self, behind: usize, by: isize) {
        for server in self.all.iter_mut().flat_map(|service| &mut service.servers).filter(|server| server.row >= behind) {
            server.row = server.row.saturating_add_signed(by);
        }
    }

    /// The servers that may have so many flows.
    pub fn limited(&self) -> BTreeMap<LimitedServer, u32> {
        limited(self.all.iter())
    }
}

/// The services that the bindings of files and of the API server ask for, and the labels of the rows. What was served until now keeps its port, whoever listens there
/// since: no program of the host takes a service away, and no other binding.
pub fn services(rows: &[Row], facts: &Facts, uplinks: &Uplinks, (served, holders): (&Served, &Holders)) -> Services {
    let taken = Taken::new(facts.listeners.as_ref(), facts.containers());
    claims(
        rows,
        facts.manifests.bindings.iter().chain(facts.cluster.granted().bindings()),
        Known { uplinks, taken: &taken, verdicts: &facts.verdicts, ipvs: facts.ipvs.as_ref(), kernel: &facts.kernel, served, holders },
    )
}

/// The servers of these services that may have so many flows. Where two services lead to one port of a server, the lower limit counts.
pub fn limited<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<LimitedServer, u32> {
    let mut limits: BTreeMap<LimitedServer, u32> = BTreeMap::new();
    for service in services {
        let Some(most) = service.limits.per_server else { continue };
        for (server, port) in service.servers.iter().filter_map(|server| Some((server, server.port?))) {
            let of = LimitedServer { address: server.address, protocol: service.ports.protocol, port };
            limits.entry(of).and_modify(|least| *least = most.min(*least)).or_insert(most);
        }
    }
    limits
}

impl Service {
    /// The servers that get new connections, with their weights, as slots are made of them.
    pub fn weighted(&self) -> Vec<(Endpoint, u16)> {
        let of = |takes: fn(&Server) -> bool| -> Vec<_> {
            self.servers.iter().filter(|server| takes(server)).map(|server| (server.endpoint(), server.weight)).collect()
        };
        match (of(Server::takes), self.all_down) {
            (none, AllDown::KeepAll) if none.is_empty() => of(|server| server.weight > 0),
            (none, AllDown::Refuse) if none.is_empty() => self.last_resort.iter().map(|server| (server.endpoint(), 1)).collect(),
            (some, _) => some,
        }
    }

    /// Somebody may get its calls, be it the server of last resort.
    pub fn has_servers(&self) -> bool {
        !self.servers.is_empty() || self.last_resort.is_some()
    }

    /// Where calls may go: each server's address and port (`None` for a range), and how it is reached; the server of last resort, too.
    pub fn places(&self) -> impl Iterator<Item = (IpAddr, Option<u16>, Entry)> {
        let servers = self.servers.iter().map(|server| (server.address, server.port, server.entry));
        servers.chain(self.last_resort.iter().map(|server| (server.address, server.port, server.entry)))
    }

    /// The server of last resort, while it gets the calls.
    pub fn resorted(&self) -> Option<&LastServer> {
        self.last_resort.as_ref().filter(|_| !self.servers.iter().any(Server::takes))
    }

    /// The service as its callers know it, `tcp/172.31.0.14:27017`.
    pub fn called(&self) -> String {
        called(self.address, self.ports)
    }
}

/// The server of each slot, of a service that has so many servers, those among them that get no new connections.
pub fn slots(balance: Balance, weighted: &[(Endpoint, u16)], servers: usize) -> Vec<Endpoint> {
    match balance {
        Balance::RoundRobin | Balance::Random => turns(weighted),
        Balance::BySource => hashed(servers, weighted, |endpoint| *endpoint),
    }
}

fn called(address: IpAddr, ports: Ports) -> String {
    let Ports { first, last, .. } = ports;
    let text = ports.to_string();
    let protocol = text.split('/').next().unwrap_or_default();
    let range = if last == first { String::new() } else { format!("-{last}") };
    format!("{protocol}/{}{range}", SocketAddr::new(address, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::jhash::slot;

    fn servers(count: u8) -> Vec<(Endpoint, u16)> {
        (0..count).map(|last| (((IpAddr::from([10, 0, 0, last])), 1234), 1)).collect()
    }

    /// The server of each of ten thousand clients, as the kernel finds it.
    fn dealt(weighted: &[(Endpoint, u16)], count: usize) -> Vec<Endpoint> {
        let slots = slots(Balance::BySource, weighted, count);
        let client = |number: u32| IpAddr::from(0x0a00_0000_u32.wrapping_add(number.wrapping_mul(7919)).to_be_bytes());
        (0..10_000).map(|number| slots[slot(client(number), slots.len() as u32, 1) as usize]).collect()
    }

    #[test]
    fn one_server_of_ten_that_goes_moves_its_own_clients_alone() {
        for (count, left) in [(10_u8, 10), (10, 9), (9, 8), (17, 16)] {
            let before = servers(count);
            let after: Vec<_> = before.iter().filter(|((address, _), _)| *address != IpAddr::from([10, 0, 0, 3])).copied().collect();
            let (before, after) = (dealt(&before, count.into()), dealt(&after, left));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(moved.iter().all(|(before, _)| before.0 == IpAddr::from([10, 0, 0, 3])), "nobody else's");
            if count == 10 {
                assert!(moved.len() <= 1_200, "{} of 10,000 moved", moved.len());
            }
            assert!(!moved.is_empty());
        }
    }
}
