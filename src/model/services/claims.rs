//! Who has which port: the binding that had it, or else the one that takes precedence, if nobody of the host has it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::rights::{Known, Publishing, Right, asks_for, meeting};
use super::{Health, LastServer, Problem, Server, Service, Services};
use crate::model::binding::{Binding, BindingName, Source};
use crate::model::facts::{Container, IfIndex, KernelFacts, Place};
use crate::model::field_error::FieldError;
use crate::model::health::Check;
use crate::model::inbound::{ClientSource, Inbound};
use crate::model::ports::{Called, Ports, Protocol};
use crate::model::reason::{PortRefusal, Reason};
use crate::model::select::precedence;
use crate::model::workload::{Entry, Row, State, Subject};

/// What a port that is not served for another reason is told as, in a word.
const NOT_SERVED: &str = "NotServed";

/// Those of one binding that serve.
struct Candidate<'a> {
    binding: &'a Binding,
    /// Places of their rows.
    rows: Vec<usize>,
}

/// The services that listed bindings ask for, and the labels of the rows.
pub fn claims<'a>(rows: &'a [Row], listed: impl Iterator<Item = &'a Arc<Binding>>, known: Known<'_>) -> Services {
    let asks = |binding: &Binding| !binding.inbound.is_empty() && binding.stands();
    let mut candidates: BTreeMap<&BindingName, Candidate> = BTreeMap::new();
    for binding in listed.filter(|binding| asks(binding)) {
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
    ordered.sort_by(|a, b| order(a.binding).cmp(&order(b.binding)));
    let published = |binding: &Binding| binding.inbound.iter().any(|entry| entry.refusal.is_none() && entry.engine.ipvs().is_some());
    let ipvs = ordered.iter().any(|candidate| published(candidate.binding));
    let publishing = ordered.iter().map(|candidate| (&candidate.binding.name, candidate.binding)).collect();
    let (services, asked, checks, problems) = Default::default();
    let mut claims = Claims { rows, known, publishing, services, asked, checks, problems };
    for right in [Right::Serves, Right::Had, Right::Asks] {
        ordered.iter().for_each(|candidate| claims.take(candidate, right));
    }
    let Claims { services, asked, checks, problems, known, publishing, .. } = claims;
    let is_free = |service: &Service| {
        let called = (service.address, service.ports);
        let is_looked_at = service.engine.ipvs().is_none() || known.ipvs.is_some();
        // It was its port while its exit was away, too.
        let is_held = || known.holders.get(&called) == Some(&service.binding);
        is_looked_at && (known.served.contains_key(&called) || is_held() || known.taken.is_known(called))
    };
    let (all, waiting): (BTreeMap<First, Service>, BTreeMap<First, Service>) =
        services.into_iter().partition(|(_, service)| is_free(service));
    let is_taken =
        |(address, ports): &Called| all.range(up_to(*address, ports)).next_back().is_some_and(|(_, there)| there.ports.meets(ports));
    let away = known.holders.iter().filter(|(called, holder)| !is_taken(called) && asks_for(&publishing, known.uplinks, holder, called));
    let away = away.map(|(called, holder)| (*called, holder.clone())).collect();
    let (all, pending) = (all.into_values().collect(), !waiting.is_empty());
    Services { all, problems, asked: Arc::new(asked), pending, ipvs, checks: Arc::new(checks), away, left: BTreeSet::new() }
}

/// Who comes first where several ask for a port. Of the API server's bindings that is the oldest: a namespace gives itself what priority it likes.
fn order(binding: &Binding) -> (Reverse<i32>, Source, u64, &BindingName) {
    let (priority, source, created, name) = precedence(binding);
    (if source == Source::Api { Reverse(0) } else { priority }, source, created, name)
}

/// Whether a row can be a server: it has an address, the kernel shows where, and it stays there. Whether it has an exit does not matter. Of a pod
/// the API server has to tell the address: what else its namespace has, it may have given itself, and one that was deleted by force has none.
fn serves(row: &Row) -> bool {
    let there = match &row.state {
        State::Bound(_) | State::FellBack(_) => true,
        State::Dropped(reason) => *reason != Reason::BeingPlaced,
        State::Free => row.binding.is_some(),
        State::Waiting(_) | State::Refused(_) => false,
    };
    let Some(net) = row.address.filter(|net| there && row.entry.is_some() && net.prefix_len() == net.max_prefix_len()) else {
        return false;
    };
    if let Subject::Pod(pod) = &row.subject { pod.addresses.contains(&net.addr()) } else { true }
}

/// An address, a protocol, and the first port.
type First = (IpAddr, Protocol, u16);

/// Where services begin that may meet these ports: of those that are there, only the last one can.
fn up_to(address: IpAddr, ports: &Ports) -> RangeInclusive<First> {
    (address, ports.protocol, 0)..=(address, ports.protocol, ports.last)
}

/// A server's row, its address, and where it is.
type Placed = (usize, IpAddr, Entry);

/// Ports that are somebody's.
pub(super) struct Claims<'a> {
    rows: &'a [Row],
    known: Known<'a>,
    publishing: Publishing<'a>,
    /// None overlaps another.
    services: BTreeMap<First, Service>,
    asked: BTreeSet<Called>,
    checks: BTreeSet<Check>,
    problems: Vec<Problem>,
}

impl Claims<'_> {
    /// What the kernel has.
    pub(super) fn kernel(&self) -> &KernelFacts {
        self.known.kernel
    }

    /// This host has the address.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.known.is_own(address)
    }

    /// Takes the ports to which the binding has this right.
    fn take(&mut self, candidate: &Candidate, right: Right) {
        let binding = candidate.binding;
        let (own, servers): (Vec<_>, Vec<_>) = one_each(&candidate.rows, self.rows)
            .into_iter()
            .partition(|(_, address, entry)| *entry != Entry::Socket && self.known.is_own(*address));
        let mut exits: Vec<(IfIndex, IpAddr)> = Vec::new();
        for exit in binding.exits.iter().filter(|spec| !spec.draining).filter_map(|spec| self.known.uplinks.holder(spec)) {
            if !exits.iter().any(|(_, address)| *address == exit.1) {
                exits.push(exit);
            }
        }
        for (at, inbound) in binding.inbound.iter().enumerate() {
            if let Some(reason) = &inbound.refusal {
                let concerns = right == Right::Asks && !(exits.is_empty() && servers.is_empty());
                concerns.then(|| self.refuse(binding, at, reason));
                continue;
            }
            if right == Right::Asks {
                self.tell_missing(binding, at, inbound);
                self.tell_own(binding, at, inbound, &own, &servers);
                self.tell_last_resort(binding, at, inbound);
            }
            let named: Vec<_> = exits.iter().copied().filter(|(_, at)| inbound.address.is_none_or(|named| named == *at)).collect();
            let mut of_other_family = !servers.is_empty() && !named.is_empty();
            for (nic, address) in named {
                let of_family = servers.iter().filter(|(_, server, _)| server.is_ipv4() == address.is_ipv4());
                let called = (address, inbound.ports);
                of_other_family &= of_family.clone().next().is_none();
                let endpoints = of_family.clone().map(|(_, server, _)| (*server, port_of(inbound).unwrap_or(0)));
                let last = self.last_resort(inbound, address);
                if self.known.right(binding, called, endpoints, last.as_ref().map(LastServer::endpoint)) != right {
                    continue;
                }
                let own: Vec<Server> =
                    of_family.map(|(row, server, entry)| self.server(inbound, called, (*row, *server, *entry))).collect();
                match self.claim(binding, inbound, (address, right), own) {
                    Ok(()) => self.yield_to(candidate, at, called, nic),
                    Err(InTheWay::Port(reason)) => self.refuse(binding, at, &reason),
                    Err(InTheWay::Field(field, message)) => self.problem(binding, at, field, message),
                }
            }
            if of_other_family && right == Right::Asks {
                let message =
                    "none of its workloads has an address of the family of an exit; add an exit or a workload of the other family";
                self.problem(binding, at, "port", message.to_owned());
            }
        }
    }

    /// Tells of the addresses that are not there: nobody is called at them. (An interface's own may be of one family alone, and in a cluster other
    /// nodes have the others.)
    fn tell_missing(&mut self, binding: &Binding, at: usize, inbound: &Inbound) {
        if binding.name.source == Source::Api {
            return;
        }
        let written = binding.exits.iter().filter(|spec| !spec.address.is_unspecified());
        let (draining, named): (Vec<_>, Vec<_>) =
            written.filter(|spec| inbound.address.is_none_or(|named| named == spec.address)).partition(|spec| spec.draining);
        if let Some(address) = inbound.address.filter(|_| named.is_empty() && draining.is_empty()) {
            self.problem(binding, at, "address", format!("{address} is no exit of this binding; name one of its exits"));
        }
        for spec in draining {
            let called = super::called(spec.address, inbound.ports);
            self.problem(binding, at, "port", format!("{called} takes no new calls: its exit drains; remove `draining` to serve it"));
        }
        for spec in named.into_iter().filter(|spec| self.known.uplinks.holder(spec).is_none()) {
            let Some(Err(reason)) = self.known.uplinks.exit(spec) else { continue };
            self.problem(binding, at, "port", format!("{} is not served: {reason}", super::called(spec.address, inbound.ports)));
        }
    }

    /// Tells of servers that are this host itself, whose calls would come back to it.
    fn tell_own(&mut self, binding: &Binding, at: usize, inbound: &Inbound, own: &[Placed], servers: &[Placed]) {
        let serves = |address: &IpAddr| servers.iter().any(|(_, server, _)| server == address);
        let weighed = inbound.weights.keys().filter(|address| self.known.is_own(**address) && !serves(address)).copied();
        let weighed: Vec<IpAddr> = weighed.collect();
        let own = own.iter().map(|(_, address, _)| ("port", *address));
        for (field, address) in own.chain(weighed.into_iter().map(|address| ("servers", address))) {
            let message = format!(
                "{address} is an address of this host itself, and no server; name a workload's, or let the program listen at the exit"
            );
            self.problem(binding, at, field, message);
        }
    }

    pub(super) fn problem(&mut self, binding: &Binding, at: usize, field: &str, message: String) {
        self.note(binding, at, field, message, Some(NOT_SERVED));
    }

    /// A port that is another one's, or that nobody lends.
    fn refuse(&mut self, binding: &Binding, at: usize, reason: &Reason) {
        self.note(binding, at, "port", reason.to_string(), Some(reason.word()));
    }

    fn note(&mut self, binding: &Binding, at: usize, field: &str, message: String, word: Option<&'static str>) {
        let field = match (binding.name.source, field) {
            (Source::Label, "balance") => "egress.balance".to_owned(),
            (Source::Label, "clientSource") => "egress.client-source".to_owned(),
            (Source::Label, "affinity") => "egress.affinity".to_owned(),
            (Source::Label, "allDown") => "egress.all-down".to_owned(),
            (Source::Label, "lastResort") => "egress.last-resort".to_owned(),
            (Source::Label, "engine") => "egress.engine".to_owned(),
            (Source::Label, "scheduler") => "egress.scheduler".to_owned(),
            (Source::Label, _) => "egress.publish".to_owned(),
            (Source::Exec, _) => "--publish".to_owned(),
            _ => format!("spec.inbound[{at}].{field}"),
        };
        self.problems.push(Problem { binding: binding.name.clone(), word, error: FieldError { field, message } });
    }

    /// Gives a binding the ports of an address, or its share of them; else what is in the way.
    fn claim(
        &mut self,
        binding: &Binding,
        inbound: &Inbound,
        (address, right): (IpAddr, Right),
        servers: Vec<Server>,
    ) -> Result<(), InTheWay> {
        let (ports, last_resort) = (inbound.ports, self.last_resort(inbound, address));
        if let (Some(balancer), Some(ipvs)) = (inbound.engine.ipvs(), self.known.ipvs) {
            let served = ipvs.serves((address, ports), &super::called(address, ports), balancer);
            served.map_err(|(field, message)| InTheWay::Field(field, message))?;
        }
        if let Some((_, there)) = self.services.range_mut(up_to(address, &ports)).next_back().filter(|(_, there)| there.ports.meets(&ports))
        {
            let both_labels = binding.name.source == Source::Label && there.binding.source == Source::Label;
            if !(both_labels && there.ports == ports) {
                return Err(InTheWay::Port(Reason::Port(PortRefusal::Served { service: there.called(), by: there.binding.to_string() })));
            }
            if let Some((field, differs)) = differing(there, inbound, last_resort) {
                let message = format!("{} is shared with {}, which {differs}; give both the same", there.called(), there.binding);
                return Err(InTheWay::Field(field, message));
            }
            there.servers.extend(servers);
            return Ok(());
        }
        // Where its exit drains nobody gets new calls, and it is its port all the same.
        let called = (address, ports);
        let mut others = meeting(self.known.holders, called).filter(|holder| **holder != binding.name);
        // (In a cluster the age of objects alone decides.)
        let comes_later = right == Right::Asks && binding.name.source != Source::Api;
        if let Some(holder) = others.find(|holder| comes_later && asks_for(&self.publishing, self.known.uplinks, holder, &called)) {
            let service = super::called(address, ports);
            return Err(InTheWay::Port(Reason::Port(PortRefusal::Served { service, by: holder.to_string() })));
        }
        let Inbound { engine, balance, client_source, all_down, affinity, limits, .. } = *inbound;
        let binding = binding.name.clone();
        let service = Service { address, ports, engine, balance, client_source, all_down, last_resort, affinity, limits, binding, servers };
        self.services.insert((address, ports.protocol, ports.first), service);
        Ok(())
    }

    fn server(&mut self, inbound: &Inbound, called: Called, (row, address, entry): Placed) -> Server {
        let port = port_of(inbound);
        let leaves = matches!(&self.rows[row].subject, Subject::Pod(pod) if pod.leaves());
        let weight = if leaves { 0 } else { inbound.weights.get(&address).copied().unwrap_or(inbound.weight) };
        let thresholds = inbound.thresholds.get(&address).copied().unwrap_or_default();
        let routes_back = inbound.client_source == ClientSource::RouteBack;
        let route_back = if routes_back { self.beside(address, entry) } else { None };
        let health = Health::Unchecked;
        let mut server = Server { address, port, weight, thresholds, route_back, health, drain: inbound.drain, entry, row };
        if let Some(how) = &inbound.health {
            let check = Check { address, port: how.port.or(port).unwrap_or(inbound.ports.first), from: None, how: Arc::clone(how) };
            let served = || self.known.served.get(&called).is_some_and(|servers| servers.contains(&server.endpoint()));
            server.health = match self.known.verdicts.get(&check) {
                Some(verdict) => Health::Known(verdict.clone()),
                None => Health::Unknown { served: served() },
            };
            self.checks.insert(check);
        }
        server
    }

    /// This host's own address in the subnet of a server, on the link that it is behind.
    fn beside(&self, server: IpAddr, entry: Entry) -> Option<IpAddr> {
        let index = entry.bridge().unwrap_or(entry.interface());
        let mut own = self.known.kernel.addresses_at(Place { nsid: None, index }).map(|address| address.net);
        own.find(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&server)).map(|net| net.addr())
    }

    /// Gives a port back that somebody of this host has, unless it is served already: then only that is told.
    fn yield_to(&mut self, Candidate { binding, rows }: &Candidate, at: usize, called: Called, nic: IfIndex) {
        self.asked.insert(called);
        let is_server = |container: &Container| {
            let own = |row: &usize| matches!(&self.rows[*row].subject, Subject::Container(one) if one.id == container.id);
            let publishes = |binding: &Binding| binding.inbound.iter().any(|inbound| inbound.ports.meets(&called.1));
            rows.iter().any(own) || container.asked.as_ref().and_then(|asked| asked.binding.as_ref()).is_some_and(publishes)
        };
        let Some(holder) = self.known.taken.by(called, nic, is_server) else { return };
        let (address, ports) = called;
        let service = super::called(address, ports);
        if self.known.served.contains_key(&called) {
            let message = format!("{service} stays with the binding, which had it first; it is also used by {holder}");
            self.note(binding, at, "port", message, None);
        } else {
            self.services.remove(&(address, ports.protocol, ports.first));
            self.refuse(binding, at, &Reason::Port(PortRefusal::Taken { service, by: holder }));
        }
    }
}

/// Why a binding does not get ports, or its share of them.
enum InTheWay {
    Port(Reason),
    /// The field that is in the way, and why.
    Field(&'static str, String),
}

/// The field in which an entry is not as the service that it would share, and what that one does instead.
fn differing(there: &Service, inbound: &Inbound, last_resort: Option<LastServer>) -> Option<(&'static str, &'static str)> {
    let fields = [
        ("engine", there.engine != inbound.engine, "has another engine or scheduler"),
        ("balance", there.balance != inbound.balance, "balances in another way"),
        ("clientSource", there.client_source != inbound.client_source, "treats clients' addresses in another way"),
        ("allDown", there.all_down != inbound.all_down, "serves it in another way while nobody is healthy"),
        ("lastResort", there.last_resort != last_resort, "has another server of last resort"),
        ("affinity", there.affinity != inbound.affinity, "keeps clients at a server for another time"),
    ];
    fields.into_iter().find(|(_, differs, _)| *differs).map(|(field, _, what)| (field, what))
}

/// The port that its servers listen on; of a range `None`.
fn port_of(inbound: &Inbound) -> Option<u16> {
    (inbound.ports.first == inbound.ports.last).then(|| inbound.target.unwrap_or(inbound.ports.first))
}

/// One address of each family for each workload: on the network of its default route, by which it answers, if there are several.
fn one_each(of: &[usize], rows: &[Row]) -> Vec<Placed> {
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
