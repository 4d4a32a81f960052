//! What is told at a start and later, and whether Prometheus' advice is kept.

mod asked;

use super::lint::lint;
use super::*;
use crate::daemon::controller;
use crate::effects::kubernetes::lease::Standing;
use crate::model::workload::{Row, State, Subject};
use crate::report::drops::Drops;

fn row() -> Row {
    Row {
        subject: Subject::Bare("web".to_owned()),
        network: None,
        default_route: false,
        address: None,
        entry: None,
        binding: None,
        losers: Vec::new(),
        beside: Vec::new(),
        state: State::Free,
    }
}

/// What the daemon tells when it has these rows, and has counted this.
fn told(metrics: &Metrics, rows: Vec<Row>, drops: Drops) -> String {
    let (facts, outcome) = (Facts::default(), Outcome { rows, ..Outcome::default() });
    let counted = Counted { drops, ..Counted::default() };
    metrics.text(&Now { facts: &facts, outcome: &outcome, sources: vec![("docker", true)], counted, failing: 0, problems: 0 })
}

/// The series of a metric whose values are not 0, and how many there are in all.
fn series<'a>(text: &'a str, metric: &str) -> (Vec<&'a str>, usize) {
    let all: Vec<_> = text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))).collect();
    (all.iter().filter(|line| !line.ends_with(" 0")).copied().collect(), all.len())
}

#[test]
fn a_state_is_told_before_anybody_has_it_and_when_nobody_has_it_any_more() {
    let metrics = Metrics::new();
    let dropped = || Drops { by_reason: vec![("Seal".to_owned(), "ip".to_owned(), 3)], ..Drops::default() };
    let (nothing, of_drops) = (told(&metrics, Vec::new(), Drops::default()), "egressd_dropped_packets_total");
    let (workloads, bindings) = ("egressd_workloads", "egressd_bindings");
    let reasons = series(&nothing, of_drops).1;
    assert_eq!([series(&nothing, workloads), series(&nothing, bindings)], [(vec![], STATES.len()), (vec![], 2)], "{nothing}");
    assert!(reasons > 10, "{nothing}");
    for family in ["ip", "ip6"] {
        assert!(nothing.contains(&format!("{of_drops}{{reason=\"Seal\",family=\"{family}\"}} 0\n")), "{nothing}");
    }
    let one = told(&metrics, vec![row()], dropped());
    assert_eq!(series(&one, workloads), (vec!["egressd_workloads{state=\"Unbound\"} 1"], STATES.len()));
    assert_eq!(series(&one, of_drops), (vec!["egressd_dropped_packets_total{reason=\"Seal\",family=\"ip\"} 3"], reasons));
    let again = told(&metrics, Vec::new(), dropped());
    assert_eq!((series(&again, workloads), series(&again, of_drops)), ((vec![], STATES.len()), series(&one, of_drops)));
}

#[test]
fn names_and_help_are_as_prometheus_advises() {
    assert_eq!(lint(&told(&Metrics::new(), vec![row()], Drops::default())), Vec::<String>::new());
    assert_eq!(lint(&controller::text(&Standing::default())), Vec::<String>::new());
}

#[test]
fn what_prometheus_advises_against_is_found() {
    let metric = |name: &str, kind: &str, help: &str, value: &str| format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n{value} 1\n");
    assert_eq!(lint(&metric("egressd_rounds", "counter", "Rounds", "egressd_rounds_total{a=\"b\"}")), Vec::<String>::new());
    assert_eq!(lint(&metric("egressd_round_seconds", "histogram", "Time", "egressd_round_seconds_bucket{le=\"1\"}")), Vec::<String>::new());
    for (name, kind, help, value, found) in [
        ("rounds", "gauge", "Rounds", "rounds", "program's name"),
        ("egressd_openFlows", "gauge", "Flows", "egressd_openFlows", "snake_case"),
        ("egressd_flows", "gauge", "", "egressd_flows", "no help"),
        ("egressd_flows", "unknown", "Flows", "egressd_flows", "no type"),
        ("egressd_flows_gauge", "gauge", "Flows", "egressd_flows_gauge", "its type in its name"),
        ("egressd_round_milliseconds", "gauge", "Time", "egressd_round_milliseconds", "seconds or bytes"),
        ("egressd_flows_total", "gauge", "Flows", "egressd_flows_total", "its kind"),
        ("egressd_flows", "gauge", "Flows", "egressd_flows_total", "its type is \"gauge\""),
        ("egressd_rounds", "counter", "Rounds", "egressd_rounds", "its type is \"counter\""),
        ("egressd_flows", "gauge", "Flows", "egressd_flows{openBy=\"x\"}", "openBy"),
        ("egressd_flows", "gauge", "Flows", "egressd_flows{le=\"1\"}", "label le"),
    ] {
        let wrong = lint(&metric(name, kind, help, value));
        assert!(wrong.iter().any(|line| line.contains(found)), "{name}: {wrong:?} does not say {found}");
    }
    let once = metric("egressd_flows", "gauge", "Flows", "egressd_flows{a=\"b\"}");
    assert_eq!(lint(&format!("{once}{once}")).len(), 2, "a metric, and a series, that are there twice");
}
