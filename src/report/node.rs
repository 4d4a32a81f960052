//! What a node's agent reports to the cluster: the spec of its `EgressNode`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::api::node::{EgressNodeSpec, NodeAddress, NodeBinding, NodeNic, NodeService, Unserved};
use crate::model::binding::Source;
use crate::model::facts::IfIndex;
use crate::model::known::Facts;
use crate::model::reason::Reason;
use crate::model::resolve::Outcome;
use crate::model::services::{Service, Services};
use crate::model::uplinks::Uplink;
use crate::model::workload::{Row, State, Subject};

/// As many problems as the resource's schema lets through.
const MAX_PROBLEMS: usize = 32;
/// As many services of a binding.
const MAX_SERVICES: usize = 64;
/// As many addresses that cannot be used.
const MAX_ADDRESSES: usize = 64;

/// The report of an outcome. Equal outcomes give equal reports, in whatever order their rows are. `problems` is what could not be read or done.
pub fn spec(facts: &Facts, outcome: &Outcome, problems: impl IntoIterator<Item = String>) -> EgressNodeSpec {
    let mut all = Counts::default();
    let mut bindings: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut used: BTreeMap<IfIndex, BTreeSet<IpAddr>> = BTreeMap::new();
    for workload in workloads(outcome) {
        all.add(&workload);
        if let Some(binding) = workload.binding {
            bindings.entry(binding).or_default().add(&workload);
            workload.losers().for_each(|loser| bindings.entry(loser).or_default().lose(binding));
        }
        for row in workload.rows {
            for exit in outcome.exits_of(row) {
                used.entry(exit.interface).or_default().insert(exit.address);
            }
        }
    }
    published(&outcome.inbound, &mut bindings);
    let problems: BTreeSet<String> = problems.into_iter().collect();
    EgressNodeSpec {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        // Of the write, not of the outcome.
        reported_at: None,
        nics: nics(outcome, &used),
        bindings: bindings.into_iter().map(|(name, counts)| counts.of_binding(name, facts)).collect(),
        addresses: addresses(facts, outcome),
        bound: all.programmed,
        failing: all.failing,
        problems: problems.into_iter().take(MAX_PROBLEMS).collect(),
    }
}

/// Adds what comes in by the exits of the API server's bindings, and what does not.
fn published<'a>(services: &'a Services, bindings: &mut BTreeMap<&'a str, Counts<'a>>) {
    for service in services.all.iter().filter(|service| service.binding.source == Source::Api) {
        bindings.entry(&service.binding.name).or_default().services.push(node_service(service));
    }
    for problem in services.problems.iter().filter(|problem| problem.binding.source == Source::Api) {
        let Some(word) = problem.word else { continue };
        let unserved = Unserved { reason: word.to_owned(), message: problem.error.to_string() };
        let counts = bindings.entry(&problem.binding.name).or_default();
        counts.unserved = Some(counts.unserved.take().map_or(unserved.clone(), |least| least.min(unserved)));
    }
}

fn node_service(service: &Service) -> NodeService {
    let count = |of: usize| i64::try_from(of).unwrap_or(i64::MAX);
    NodeService { service: service.called(), servers: count(service.servers.len()), ready: count(service.weighted().len()) }
}

fn nics(outcome: &Outcome, used: &BTreeMap<IfIndex, BTreeSet<IpAddr>>) -> Vec<NodeNic> {
    let mut nics: Vec<NodeNic> = outcome
        .uplinks
        .nics
        .values()
        .map(|uplink| NodeNic {
            name: uplink.name.clone(),
            up: uplink.up,
            addresses: uplink.addresses.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
            gateways: gateways(outcome, uplink),
            exits: used.get(&uplink.index).into_iter().flatten().copied().collect(),
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

/// What pools gave this node, and cannot be used.
fn addresses(facts: &Facts, outcome: &Outcome) -> Vec<NodeAddress> {
    let given = facts.cluster.own_exits().flat_map(|own| own.exits.iter().map(|exit| (&own.name.name, exit)));
    let failing = given.filter_map(|(pool, exit)| Some((pool, exit.address, outcome.uplinks.exit(exit)?.as_ref().err()?)));
    // One that neighbours are being asked for will be there in a moment.
    let failing = failing.filter(|(.., reason)| !matches!(reason, Reason::AddressProbed { .. }));
    let told = failing.map(|(pool, address, reason)| NodeAddress {
        pool: pool.clone(),
        address,
        reason: reason.word().to_owned(),
        message: reason.to_string(),
    });
    told.take(MAX_ADDRESSES).collect()
}

/// The routers of a NIC's own way.
fn gateways(outcome: &Outcome, nic: &Uplink) -> Vec<IpAddr> {
    let way = nic.way.and_then(|number| outcome.uplinks.ways.get(&number));
    way.into_iter().flat_map(|way| way.gateways.values()).filter_map(|gateway| gateway.address).collect()
}

/// A workload with all its addresses.
struct Workload<'a> {
    /// `namespace/name` of the API server's binding that has it.
    binding: Option<&'a str>,
    rows: Vec<&'a Row>,
}

/// What became of a workload.
enum Fate<'a> {
    Programmed,
    /// It has no address yet.
    Pending,
    Failing(&'a Reason),
}

impl<'a> Workload<'a> {
    /// The API server's bindings that would have had it too.
    fn losers(&self) -> impl Iterator<Item = &'a str> {
        let losers = self.rows.first().into_iter().flat_map(|row| &row.losers);
        losers.filter(|name| name.source == Source::Api).map(|name| name.name.as_str())
    }

    /// A family that the binding has no exit for is as it was asked for, as long as the other family leaves by one.
    fn fate(&self) -> Fate<'a> {
        let bound = self.rows.iter().any(|row| row.entry.is_some() && matches!(row.state, State::Bound(_)));
        let failing = self.rows.iter().find_map(|row| match &row.state {
            _ if bound && row.is_of_no_family() => None,
            State::Dropped(reason) | State::FellBack(reason) | State::Refused(reason) => Some(reason),
            State::Bound(_) | State::Free | State::Waiting(_) => None,
        });
        match failing {
            Some(reason) => Fate::Failing(reason),
            // With rows that its binding is for nothing of there is nothing to wait for.
            None if bound || self.rows.iter().all(|row| row.state == State::Free) => Fate::Programmed,
            None => Fate::Pending,
        }
    }
}

/// The bound workloads, whoever binds them.
fn workloads(outcome: &Outcome) -> impl Iterator<Item = Workload<'_>> {
    let mut all: HashMap<Cow<'_, str>, Workload<'_>> = HashMap::with_capacity(outcome.rows.len());
    for row in outcome.all_rows() {
        let Some(binding) = &row.binding else { continue };
        let key = match &row.subject {
            Subject::Pod(pod) => Cow::Borrowed(pod.uid.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        let binding = (binding.name.source == Source::Api).then_some(binding.name.name.as_str());
        all.entry(key).or_insert_with(|| Workload { binding, rows: Vec::new() }).rows.push(row);
    }
    all.into_values()
}

#[derive(Default)]
struct Counts<'a> {
    workloads: i64,
    programmed: i64,
    failing: i64,
    /// The least, so that it does not depend on the order.
    reason: Option<&'a Reason>,
    /// A binding that has workloads which this one selects, too. The least, as above.
    winner: Option<&'a str>,
    services: Vec<NodeService>,
    /// The least, as above.
    unserved: Option<Unserved>,
}

impl<'a> Counts<'a> {
    fn add(&mut self, workload: &Workload<'a>) {
        self.workloads += 1;
        match workload.fate() {
            Fate::Programmed => self.programmed += 1,
            Fate::Pending => {}
            Fate::Failing(reason) => {
                self.failing += 1;
                self.reason = Some(self.reason.map_or(reason, |least| least.min(reason)));
            }
        }
    }

    fn lose(&mut self, winner: &'a str) {
        self.winner = Some(self.winner.map_or(winner, |least| least.min(winner)));
    }

    fn of_binding(self, name: &str, facts: &Facts) -> NodeBinding {
        let overlap = || self.winner.map(|winner| Reason::Overlap { with: format!("EgressBinding {winner}") });
        let reason = self.reason.cloned().or_else(overlap);
        let known = facts.cluster.bindings.as_ref().and_then(|bindings| bindings.get(name));
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        NodeBinding {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: known.map_or_else(String::new, |binding| binding.uid.clone()),
            generation: known.map_or(0, |binding| binding.generation),
            workloads: self.workloads,
            programmed: self.programmed,
            failing: self.failing,
            reason: reason.as_ref().map(|reason| reason.word().to_owned()),
            message: reason.as_ref().map(ToString::to_string),
            services: self.services.into_iter().take(MAX_SERVICES).collect(),
            unserved: self.unserved,
        }
    }
}

#[cfg(test)]
mod tests;
