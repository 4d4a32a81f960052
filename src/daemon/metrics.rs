//! What is counted. Where a label's values are known, all of them are there from the beginning: a series that comes and goes with its count is
//! taken for one that began anew, and an alert on it stays silent.

#[cfg(test)]
pub(crate) mod lint;
#[cfg(test)]
mod tests;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::model::health::Verdict;
use crate::model::known::Facts;
use crate::model::resolve::Outcome;
use crate::model::services::{Health, Server};
use crate::nft::Family as Table;
use crate::plan::datapath::drops;
use crate::report::drops::{Dropped, DroppedBy};
use crate::report::states::{STATES, states};
use crate::report::status::{Counted, bindings};

/// The values of the label `accepted`: no and yes.
const ACCEPTED: [&str; 2] = ["false", "true"];

/// Which version runs, as every registry of this program tells.
pub(super) fn register_build(registry: &mut Registry) {
    registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
}

/// One registry for the process.
pub(super) struct Metrics {
    registry: Registry,
    workloads: Family<ByState, Gauge>,
    bindings: Family<ByAcceptance, Gauge>,
    up: Family<BySource, Gauge>,
    uplinks: Family<ByNic, Gauge>,
    exits: Family<ByExit, Gauge>,
    ports: Family<ByExit, Gauge>,
    dropped: Family<ByReason, Counter>,
    dropped_by: Family<ByInterface, Counter>,
    services: Gauge,
    servers: Gauge,
    unhealthy: Gauge,
    failing: Gauge,
    problems: Gauge,
    /// Rounds of the loop.
    pub rounds: Counter,
    /// Changes sent to the kernel.
    pub changes: Counter,
    /// Steps that the kernel or an engine refused.
    pub failures: Counter,
    /// Times that somebody else had changed what is ours.
    pub drift: Counter,
    /// Times that a look at everything found what rounds for a few had missed: defects of this program.
    pub missed: Counter,
    /// From a fact's arrival to the kernel having what follows from it.
    pub latency: Histogram,
}

/// What is looked at when somebody asks, and not counted all the time.
pub(super) struct Now<'a> {
    pub facts: &'a Facts,
    pub outcome: &'a Outcome,
    /// Each source, and whether it answers.
    pub sources: Vec<(&'static str, bool)>,
    pub counted: Counted,
    /// Steps that are being tried again.
    pub failing: usize,
    /// Lines of status that tell what is wrong.
    pub problems: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAcceptance {
    accepted: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNic {
    nic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByExit {
    exit: String,
    nic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
    family: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByInterface {
    reason: String,
    family: String,
    interface: String,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("egressd");
        let latency = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let (workloads, bindings, up, uplinks, exits, ports, dropped, dropped_by, services, servers) = Default::default();
        let (unhealthy, failing, problems, rounds, changes, failures, drift, missed) = Default::default();
        let metrics = Self {
            registry: Registry::default(),
            workloads,
            bindings,
            up,
            uplinks,
            exits,
            ports,
            dropped,
            dropped_by,
            services,
            servers,
            unhealthy,
            failing,
            problems,
            rounds,
            changes,
            failures,
            drift,
            missed,
            latency,
        };
        register_build(&mut registry);
        registry.register("workloads", "Addresses of workloads, by state", metrics.workloads.clone());
        registry.register("bindings", "Bindings, by whether they are without problems", metrics.bindings.clone());
        registry.register("source_up", "Whether a source of facts answers", metrics.up.clone());
        registry.register("uplink_up", "Whether a NIC that leads outside is up and has a carrier", metrics.uplinks.clone());
        registry.register("exit_flows", "Open flows that leave as a usable exit", metrics.exits.clone());
        let help = "Open flows of a usable exit to its busiest destination; the limit is 64512, or the size of sourcePorts";
        registry.register("exit_busiest_destination_flows", help, metrics.ports.clone());
        let help = "Packets dropped by egressd's rules, by reason; restarts at 0 when the rule is replaced";
        registry.register("dropped_packets", help, metrics.dropped.clone());
        let help = "Packets dropped by egressd's rules, by input interface; restarts at 0 after a day without one";
        registry.register("dropped_packets_by_interface", help, metrics.dropped_by.clone());
        registry.register("services", "Ports of exits that bindings publish", metrics.services.clone());
        registry.register("servers", "Servers of published ports; a workload counts once for each port", metrics.servers.clone());
        registry.register("unhealthy_servers", "Servers of published ports that fail their health check", metrics.unhealthy.clone());
        registry.register("failing_steps", "Steps that were refused and are being retried", metrics.failing.clone());
        registry.register("problems", "Problems that status lists", metrics.problems.clone());
        registry.register("rounds", "Rounds of resolving and planning", metrics.rounds.clone());
        registry.register("kernel_changes", "Changes sent to the kernel", metrics.changes.clone());
        registry.register("failed_steps", "Steps that the kernel or an engine refused", metrics.failures.clone());
        registry.register("drift", "Times that another program changed egressd's rules or routes", metrics.drift.clone());
        let missed = "Full rounds that found changes which incremental rounds had missed: each is a bug of egressd";
        registry.register("missed", missed, metrics.missed.clone());
        let help = "Time from a change of facts until the kernel is programmed accordingly";
        registry.register_with_unit("round", help, Unit::Seconds, metrics.latency.clone());
        Self { registry, ..metrics }
    }

    /// The text of OpenMetrics.
    pub fn text(&self, now: &Now) -> String {
        for (source, up) in &now.sources {
            self.up.get_or_create(&BySource { source }).set((*up).into());
        }
        for state in STATES {
            self.workloads.get_or_create(&ByState { state }).set(0);
        }
        for state in states(now.outcome) {
            self.workloads.get_or_create(&ByState { state }).inc();
        }
        for accepted in ACCEPTED {
            self.bindings.get_or_create(&ByAcceptance { accepted }).set(0);
        }
        for binding in bindings(now.facts) {
            self.bindings.get_or_create(&ByAcceptance { accepted: ACCEPTED[usize::from(binding.is_accepted())] }).inc();
        }
        let uplinks = &now.outcome.uplinks;
        self.uplinks.clear();
        for nic in uplinks.nics.values() {
            self.uplinks.get_or_create(&ByNic { nic: nic.name.clone() }).set(nic.up.into());
        }
        self.exits.clear();
        self.ports.clear();
        for exit in uplinks.exits() {
            let flows = now.counted.translated.get(&exit.address).copied().unwrap_or(0);
            let label = ByExit { exit: exit.address.to_string(), nic: uplinks.name(exit.interface).to_owned() };
            self.exits.get_or_create(&label).set(flows.try_into().unwrap_or(i64::MAX));
            let busiest = now.counted.ports.busiest(exit.address, exit.source_ports()).map_or(0, |(_, flows)| flows);
            self.ports.get_or_create(&label).set(busiest.try_into().unwrap_or(i64::MAX));
        }
        self.dropped.clear();
        self.dropped_by.clear();
        for family in Table::ALL {
            for (reason, _) in drops::counted(family) {
                self.dropped.get_or_create(&ByReason { reason: reason.to_owned(), family: family.to_string() }).inc_by(0);
            }
        }
        for Dropped { reason, family, packets, interfaces } in now.counted.drops.told(&now.facts.kernel) {
            for DroppedBy { interface, packets } in interfaces {
                let label = ByInterface { reason: reason.clone(), family: family.clone(), interface };
                self.dropped_by.get_or_create(&label).inc_by(packets);
            }
            self.dropped.get_or_create(&ByReason { reason, family }).inc_by(packets);
        }
        let services = &now.outcome.inbound.all;
        self.services.set(services.len().try_into().unwrap_or(i64::MAX));
        let servers: usize = services.iter().map(|service| service.servers.len()).sum();
        self.servers.set(servers.try_into().unwrap_or(i64::MAX));
        let is_unhealthy = |server: &&Server| matches!(server.health, Health::Known(Verdict::Unhealthy(_)));
        let unhealthy = services.iter().flat_map(|service| &service.servers).filter(is_unhealthy).count();
        self.unhealthy.set(unhealthy.try_into().unwrap_or(i64::MAX));
        self.failing.set(now.failing.try_into().unwrap_or(i64::MAX));
        self.problems.set(now.problems.try_into().unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
