//! What is counted.

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
use crate::report::drops::{Dropped, DroppedBy};
use crate::report::status::{Counted, bindings, word};

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
        registry.register("workloads", "Addresses of workloads by state", metrics.workloads.clone());
        registry.register("bindings", "Bindings, and whether nothing is wrong with them", metrics.bindings.clone());
        registry.register("source_up", "Whether a source of facts answers", metrics.up.clone());
        registry.register("uplink_up", "Whether a NIC that leads outside is up and has a carrier", metrics.uplinks.clone());
        registry.register("exit_flows", "Open flows that leave as a usable exit", metrics.exits.clone());
        let help = "Open flows of a usable exit to the destination that has most of them; 64512 are all, or as many as sourcePorts says";
        registry.register("exit_busiest_destination_flows", help, metrics.ports.clone());
        let help = "Packets that were not let out; begins anew when its rule is made anew";
        registry.register("dropped_packets", help, metrics.dropped.clone());
        let help = "The same by the interface that they came in by; begins anew after a day without one";
        registry.register("dropped_packets_by_interface", help, metrics.dropped_by.clone());
        registry.register("services", "Ports of exits that bindings publish", metrics.services.clone());
        registry.register("servers", "Workloads that serve published ports, each as often as it does", metrics.servers.clone());
        registry.register("unhealthy_servers", "Those of them that do not answer as asked", metrics.unhealthy.clone());
        registry.register("failing_steps", "Steps that were refused and are tried again", metrics.failing.clone());
        registry.register("problems", "Lines of status that tell what is wrong", metrics.problems.clone());
        registry.register("rounds", "Rounds of resolving and planning", metrics.rounds.clone());
        registry.register("kernel_changes", "Changes sent to the kernel", metrics.changes.clone());
        registry.register("failed_steps", "Steps that the kernel or an engine refused", metrics.failures.clone());
        registry.register("drift", "Times that another program had changed what is egressd's", metrics.drift.clone());
        let missed = "Times that a look at everything found what changes for a few workloads had missed: a defect of egressd";
        registry.register("missed", missed, metrics.missed.clone());
        let help = "From a fact's arrival to the kernel having what follows from it";
        registry.register_with_unit("round", help, Unit::Seconds, metrics.latency.clone());
        Self { registry, ..metrics }
    }

    /// The text of OpenMetrics.
    pub fn text(&self, now: &Now) -> String {
        for (source, up) in &now.sources {
            self.up.get_or_create(&BySource { source }).set((*up).into());
        }
        self.workloads.clear();
        for row in now.outcome.all_rows() {
            self.workloads.get_or_create(&ByState { state: word(row) }).inc();
        }
        self.bindings.clear();
        for binding in bindings(now.facts) {
            let accepted = if binding.is_accepted() { "true" } else { "false" };
            self.bindings.get_or_create(&ByAcceptance { accepted }).inc();
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::daemon::controller;
    use crate::effects::kubernetes::lease::Standing;
    use crate::model::workload::{Row, State, Subject};
    use crate::report::drops::Drops;

    #[test]
    fn the_charts_dashboard_and_alerts_ask_for_what_is_counted() {
        let dashboard = concat!(
            include_str!("../../charts/egressd/files/dashboard.json"),
            include_str!("../../charts/egressd/templates/monitoring/prometheusrule.yaml")
        );
        let states = dashboard.replace('\\', "");
        for state in states.split("state=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(["Bound", "Dropped", "Fallback", "Unbound", "Waiting", "Refused"].contains(&state), "{state}");
        }
        let asked =
            dashboard.split("egressd_").skip(1).filter_map(|after| after.split(|c: char| !c.is_ascii_lowercase() && c != '_').next());
        let asked: BTreeSet<_> = asked.map(|name| format!("egressd_{name}")).collect();
        assert!(asked.len() > 5, "{asked:?}");
        let row = Row {
            subject: Subject::Bare("web".to_owned()),
            network: None,
            default_route: false,
            address: None,
            entry: None,
            binding: None,
            losers: Vec::new(),
            state: State::Free,
        };
        let (facts, outcome) = (Facts::default(), Outcome { rows: vec![row], ..Outcome::default() });
        let sources = vec![("docker", true)];
        let drops = Drops { by_reason: vec![("Seal".to_owned(), "ip".to_owned(), 1)], ..Drops::default() };
        let counted = Counted { drops, ..Counted::default() };
        let now = Now { facts: &facts, outcome: &outcome, sources, counted, failing: 0, problems: 0 };
        let text = Metrics::new().text(&now) + &controller::text(&Standing::default());
        for name in asked {
            assert!(
                text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']))),
                "{name} is not in\n{text}"
            );
        }
    }
}
