//! Services: ports of exits, and the workloads that serve them.
//!
//! A call to an exit's address on such a port goes to one of the servers, by destination NAT on its first packet. A port of an address is one
//! binding's, that of the binding which takes precedence; containers whose labels publish the same share it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::binding::{Balance, Binding, BindingName, ClientSource, FieldError, Inbound, Ports, Protocol, Source};
use super::reason::Reason;
use super::select::precedence;
use super::slots::{hashed, turns};
use super::uplinks::Uplinks;
use super::workload::{Entry, Row, State};

/// A port of an exit's address, or a range of ports, with those who serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub address: IpAddr,
    pub ports: Ports,
    pub balance: Balance,
    pub client_source: ClientSource,
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
    /// Its part of the new connections, 1 to 100.
    pub weight: u16,
    pub entry: Entry,
    /// The place of its row among the outcome's.
    pub row: usize,
}

/// Where a server listens. Of a range the port is 0.
pub type Endpoint = (IpAddr, u16);

/// All services of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// By address and ports.
    pub all: Vec<Service>,
    /// What is not served, and why, each with its cure.
    pub problems: Vec<String>,
}

impl Service {
    /// The servers with their weights, as slots are made of them.
    pub fn weighted(&self) -> Vec<(Endpoint, u16)> {
        self.servers.iter().map(|server| ((server.address, server.port.unwrap_or(0)), server.weight)).collect()
    }

    /// The service as its callers know it, `tcp/172.31.0.14:27017`.
    pub fn called(&self) -> String {
        called(self.address, self.ports)
    }
}

/// The server of each slot.
pub fn slots(balance: Balance, weighted: &[(Endpoint, u16)]) -> Vec<Endpoint> {
    match balance {
        Balance::RoundRobin | Balance::Random => turns(weighted),
        Balance::BySource => hashed(weighted, |endpoint| *endpoint),
    }
}

fn called(address: IpAddr, ports: Ports) -> String {
    let Ports { first, last, .. } = ports;
    let text = ports.to_string();
    let protocol = text.split('/').next().unwrap_or_default();
    let range = if last == first { String::new() } else { format!("-{last}") };
    format!("{protocol}/{}{range}", SocketAddr::new(address, first))
}

/// Those of one binding that serve.
struct Candidate<'a> {
    binding: &'a Binding,
    /// Places of their rows.
    rows: Vec<usize>,
}

/// The services that the bindings of files ask for, and the labels of the rows.
pub fn services(rows: &[Row], listed: &[Arc<Binding>], uplinks: &Uplinks) -> Services {
    let asks = |binding: &Binding| !binding.inbound.is_empty() && binding.is_accepted();
    let mut candidates: BTreeMap<&BindingName, Candidate> = BTreeMap::new();
    for binding in listed.iter().filter(|binding| asks(binding)) {
        candidates.insert(&binding.name, Candidate { binding, rows: Vec::new() });
    }
    for (at, row) in rows.iter().enumerate() {
        let Some(binding) = row.binding.as_deref().filter(|binding| asks(binding)) else { continue };
        let candidate = candidates.entry(&binding.name).or_insert_with(|| Candidate { binding, rows: Vec::new() });
        if serves(row) {
            candidate.rows.push(at);
        }
    }
    let mut ordered: Vec<Candidate> = candidates.into_values().collect();
    ordered.sort_by(|a, b| precedence(a.binding).cmp(&precedence(b.binding)));
    let mut claims = Claims::default();
    for candidate in &ordered {
        claims.take(candidate, rows, uplinks);
    }
    Services { all: claims.services.into_values().collect(), problems: claims.problems }
}

/// Whether a row can be a server: it has an address, the kernel shows where, and it stays there. Whether it has an exit does not matter.
fn serves(row: &Row) -> bool {
    let there = match &row.state {
        State::Bound(_) | State::FellBack(_) => true,
        State::Dropped(reason) => *reason != Reason::BeingPlaced,
        State::Free | State::Waiting(_) | State::Refused(_) => false,
    };
    there && row.entry.is_some() && row.address.is_some_and(|net| net.prefix_len() == net.max_prefix_len())
}

/// Ports that are somebody's.
#[derive(Default)]
struct Claims {
    /// By address, protocol and first port; none overlaps another.
    services: BTreeMap<(IpAddr, Protocol, u16), Service>,
    problems: Vec<String>,
}

impl Claims {
    fn take(&mut self, candidate: &Candidate, rows: &[Row], uplinks: &Uplinks) {
        let binding = candidate.binding;
        let servers = one_each(&candidate.rows, rows);
        let mut exits: Vec<IpAddr> = Vec::new();
        for (_, address) in binding.exits.iter().filter(|spec| !spec.draining).filter_map(|spec| uplinks.holder(spec)) {
            if !exits.contains(&address) {
                exits.push(address);
            }
        }
        for (at, inbound) in binding.inbound.iter().enumerate() {
            let mut of_other_family = !servers.is_empty() && !exits.is_empty();
            for address in exits.iter().copied().filter(|address| inbound.address.is_none_or(|named| named == *address)) {
                let of_family = servers.iter().filter(|(_, server, _)| server.is_ipv4() == address.is_ipv4());
                let own: Vec<Server> = of_family.map(|(row, server, entry)| inbound.server(*row, *server, *entry)).collect();
                of_other_family &= own.is_empty();
                if let Err((field, message)) = self.claim(binding, inbound, address, own) {
                    self.problem(binding, at, field, message);
                }
            }
            if of_other_family {
                let message =
                    "none of its workloads has an address of the family of an exit; add an exit or a workload of the other family";
                self.problem(binding, at, "port", message.to_owned());
            }
        }
    }

    fn problem(&mut self, binding: &Binding, at: usize, field: &str, message: String) {
        let field = match (binding.name.source, field) {
            (Source::Label, "balance") => "egress.balance".to_owned(),
            (Source::Label, "clientSource") => "egress.client-source".to_owned(),
            (Source::Label, _) => "egress.publish".to_owned(),
            _ => format!("spec.inbound[{at}].{field}"),
        };
        self.problems.push(format!("{}: {}", binding.name, FieldError { field, message }));
    }

    /// Gives a binding the ports of an address, or its share of them; else the field that is in the way, and why.
    fn claim(&mut self, binding: &Binding, inbound: &Inbound, address: IpAddr, servers: Vec<Server>) -> Result<(), (&'static str, String)> {
        let ports = inbound.ports;
        let of_protocol = (address, ports.protocol, 0)..=(address, ports.protocol, ports.last);
        if let Some((_, there)) = self.services.range_mut(of_protocol).next_back().filter(|(_, there)| there.ports.last >= ports.first) {
            let (what, other) = (there.called(), &there.binding);
            let both_labels = binding.name.source == Source::Label && other.source == Source::Label;
            if !(both_labels && there.ports == ports) {
                return Err(("port", format!("{what} is served by {other}; choose another port, or take that one out")));
            }
            if there.balance != inbound.balance {
                return Err(("balance", format!("{what} is shared with {other}, which balances in another way; give both the same")));
            }
            if there.client_source != inbound.client_source {
                return Err((
                    "clientSource",
                    format!("{what} is shared with {other}, which treats clients' addresses in another way; give both the same"),
                ));
            }
            there.servers.extend(servers);
            return Ok(());
        }
        let Inbound { balance, client_source, .. } = *inbound;
        let service = Service { address, ports, balance, client_source, binding: binding.name.clone(), servers };
        self.services.insert((address, ports.protocol, ports.first), service);
        Ok(())
    }
}

impl Inbound {
    fn server(&self, row: usize, address: IpAddr, entry: Entry) -> Server {
        let port = (self.ports.first == self.ports.last).then(|| self.target.unwrap_or(self.ports.first));
        Server { address, port, weight: self.weight, entry, row }
    }
}

/// One address of each family for each workload: on the network of its default route, by which it answers, if there are several.
fn one_each(of: &[usize], rows: &[Row]) -> Vec<(usize, IpAddr, Entry)> {
    let mut best: BTreeMap<(String, bool), (bool, IpAddr, usize, Entry)> = BTreeMap::new();
    for at in of {
        let row = &rows[*at];
        let (Some(net), Some(entry)) = (row.address, row.entry) else { continue };
        let this = (!row.default_route, net.addr(), *at, entry);
        let key = (row.subject.to_string(), net.addr().is_ipv6());
        best.entry(key).and_modify(|best| *best = (*best).min(this)).or_insert(this);
    }
    let mut servers: Vec<_> = best.into_values().map(|(_, address, row, entry)| (row, address, entry)).collect();
    servers.sort_by_key(|(_, address, _)| *address);
    servers
}
