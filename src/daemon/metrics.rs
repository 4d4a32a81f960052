//! What is counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::model::resolve::Outcome;
use crate::report::status::{Dropped, word};

/// One registry for the process.
pub(super) struct Metrics {
    registry: Registry,
    workloads: Family<ByState, Gauge>,
    up: Family<BySource, Gauge>,
    dropped: Family<ByReason, Counter>,
    /// Rounds of the loop.
    pub rounds: Counter,
    /// Changes sent to the kernel.
    pub changes: Counter,
    /// Steps that the kernel or an engine refused.
    pub failures: Counter,
    /// Times that somebody else had changed what is ours.
    pub drift: Counter,
    /// From a fact's arrival to the kernel having what follows from it.
    pub latency: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
    family: String,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("egressd");
        let latency = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let (workloads, up, dropped, rounds, changes, failures, drift) = Default::default();
        let metrics = Self { registry: Registry::default(), workloads, up, dropped, rounds, changes, failures, drift, latency };
        registry.register("workloads", "Addresses of workloads by state", metrics.workloads.clone());
        registry.register("source_up", "Whether a source of facts answers", metrics.up.clone());
        let help = "Packets that were not let out; begins anew when its rule is made anew";
        registry.register("dropped_packets", help, metrics.dropped.clone());
        registry.register("rounds", "Rounds of resolving and planning", metrics.rounds.clone());
        registry.register("kernel_changes", "Changes sent to the kernel", metrics.changes.clone());
        registry.register("failed_steps", "Steps that the kernel or an engine refused", metrics.failures.clone());
        registry.register("drift", "Times that another program had changed what is egressd's", metrics.drift.clone());
        let help = "From a fact's arrival to the kernel having what follows from it";
        registry.register_with_unit("round", help, Unit::Seconds, metrics.latency.clone());
        Self { registry, ..metrics }
    }

    /// The text of OpenMetrics, for an outcome, the sources that answer, and what the kernel has counted.
    pub fn text(&self, outcome: &Outcome, sources: impl Iterator<Item = (&'static str, bool)>, dropped: &[Dropped]) -> String {
        for (source, up) in sources {
            self.up.get_or_create(&BySource { source }).set(up.into());
        }
        self.dropped.clear();
        for Dropped { reason, family, packets } in dropped {
            self.dropped.get_or_create(&ByReason { reason: reason.clone(), family: family.clone() }).inc_by(*packets);
        }
        self.workloads.clear();
        for row in &outcome.rows {
            self.workloads.get_or_create(&ByState { state: word(row) }).inc();
        }
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
    use crate::model::workload::{Row, State, Subject};

    #[test]
    fn the_charts_dashboard_asks_for_what_is_counted() {
        let dashboard = include_str!("../../charts/egressd/files/dashboard.json");
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
        let text = Metrics::new().text(&Outcome { rows: vec![row], ..Outcome::default() }, std::iter::empty(), &[]);
        for name in asked {
            assert!(
                text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']))),
                "{name} is not in\n{text}"
            );
        }
    }
}
