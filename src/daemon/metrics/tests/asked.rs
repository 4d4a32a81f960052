//! The chart's dashboard and alerts ask for what is told, by labels that it has on every host, and the dashboard for all of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::daemon::metrics::lint::sample;
use crate::proxy::metrics::tests::with_a_port;

const DASHBOARD: &str = include_str!("../../../../charts/egressd/files/dashboard.json");
const ALERTS: &str = include_str!("../../../../charts/egressd/templates/monitoring/prometheusrule.yaml");

/// Labels that Prometheus gives each target. The chart's monitors give `node` besides.
const OF_TARGET: [&str; 2] = ["instance", "node"];

/// Series by their metric: the values of each label.
type Told = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What a daemon, a controller and a proxy tell that know nobody yet.
fn at_first() -> String {
    told(&Metrics::new(), Vec::new(), Drops::default()) + &controller::text(&Standing::default())
}

/// The same, and one of each thing that may be there or not.
fn in_the_end() -> String {
    let metrics = Metrics::new();
    let mut text = told(&metrics, Vec::new(), Drops::default());
    let word = |word: &str| word.to_owned();
    let exit = ByExit { exit: word("172.31.0.14"), nic: word("eth1") };
    metrics.uplinks.get_or_create(&ByNic { nic: word("eth1") }).set(1);
    metrics.exits.get_or_create(&exit).set(1);
    metrics.ports.get_or_create(&exit).set(1);
    metrics.dropped_by.get_or_create(&ByInterface { reason: word("Seal"), family: word("ip"), interface: word("br0") }).inc();
    text.clear();
    encode(&mut text, &metrics.registry).expect("a String takes all");
    text + &controller::text(&Standing::default()) + &with_a_port()
}

fn read(text: &str) -> Told {
    let mut all = Told::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = sample(line);
        let known = all.entry(name.to_owned()).or_default();
        for (label, value) in labels {
            known.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    all
}

/// The metrics that a query names, each with its conditions: a label, and the values that it may have as they are written.
fn asked(query: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let is_in = |c: char| c.is_ascii_lowercase() || c == '_';
    let named = query.match_indices("egressd_").map(|(at, _)| {
        let rest = &query[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !is_in(c)).unwrap_or(rest.len()));
        let conditions = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(conditions, _)| conditions);
        let each =
            conditions.split(", ").filter_map(|one| one.split_once('=').map(|(label, value)| (label, value.trim_matches(['~', '"']))));
        (name, each.collect())
    });
    named.collect()
}

/// The labels that a query groups by.
fn groups(query: &str) -> impl Iterator<Item = Vec<&str>> {
    query.split("by (").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.split(", ").collect()))
}

/// What is wrong with a query, if this is told.
fn wrong(query: &str, told: &Told) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, conditions) in asked(query) {
        let Some(labels) = told.get(name) else {
            wrong.push(format!("{name} is not told"));
            continue;
        };
        for (label, value) in conditions {
            let is_there = |value: &str| labels.get(label).is_some_and(|values| values.contains(value));
            if !(OF_TARGET.contains(&label) || value.split('|').all(is_there)) {
                wrong.push(format!("{name} has no {label} {value}"));
            }
        }
        for label in groups(query).flatten().filter(|label| !OF_TARGET.contains(label) && !labels.contains_key(*label)) {
            wrong.push(format!("{name} has no label {label}"));
        }
    }
    wrong
}

/// Whether a query has an answer where no target has `node`: it may be any, and never stands alone.
fn needs_node(query: &str) -> bool {
    let alone = groups(query).any(|labels| labels.contains(&"node") && !labels.contains(&"instance"));
    let bound = asked(query).iter().flat_map(|(_, conditions)| conditions).any(|(label, value)| *label == "node" && *value != "$node");
    alone || bound
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

fn queries() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let targets = panels().into_iter().flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect()
}

#[test]
fn the_dashboard_asks_for_what_is_told_on_every_host() {
    let told = read(&in_the_end());
    for (query, legend) in queries() {
        assert_eq!(wrong(&query, &told), Vec::<String>::new(), "{query}");
        assert!(!needs_node(&query), "{query}");
        let grouped: Vec<_> = groups(&query).flatten().collect();
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(grouped.contains(&label), "{legend}: {query}");
        }
    }
    let variables: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = variables["templating"]["list"].as_array().unwrap();
    let node = variables.iter().find(|variable| variable["name"] == "node").unwrap();
    assert_eq!(
        (&node["allValue"], &node["current"]["value"]),
        (&Value::from(".*"), &Value::from("$__all")),
        "who has no node is matched, too"
    );
}

#[test]
fn everything_that_is_told_is_on_the_dashboard() {
    let queries = queries();
    let shown: BTreeSet<&str> = queries.iter().flat_map(|(query, _)| asked(query)).map(|(name, _)| name).collect();
    let told = read(&in_the_end());
    let missing: Vec<_> = told
        .keys()
        .filter(|name| !name.ends_with("_created") && !shown.contains(name.as_str()))
        .filter(|name| {
            !["_sum", "_count"].iter().any(|end| name.strip_suffix(end).is_some_and(|base| told.contains_key(&format!("{base}_bucket"))))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_dashboards_panels_have_a_place_and_a_number_of_their_own() {
    let panels = panels();
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len());
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
    for (at, [x, y, w, h]) in panels.iter().map(place).enumerate() {
        assert!(x + w <= 24, "{x} {w}");
        for [left, top, width, height] in panels[..at].iter().map(place) {
            let apart = x >= left + width || left >= x + w || y >= top + height || top >= y + h;
            assert!(apart, "{x},{y} is on {left},{top}");
        }
    }
}

/// An alert on a series that is there only once something was counted misses the first time.
#[test]
fn the_alerts_ask_for_what_is_told_from_the_start() {
    let told = read(&at_first());
    let alerts: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        assert_eq!(wrong(alert, &told), Vec::<String>::new(), "{alert}");
    }
}

#[test]
fn a_query_that_has_no_answer_is_found() {
    let told = read(&in_the_end());
    for query in [
        "egressd_nothing > 0",
        "egressd_failed_steps",
        "egressd_workloads{state=\"Lost\"}",
        "sum by (reason) (egressd_dropped_packets_total{reason=~\"Seal|Nothing\"})",
        "sum by (exit) (egressd_uplink_up)",
    ] {
        assert_eq!(wrong(query, &told).len(), 1, "{query}: {:?}", wrong(query, &told));
    }
    assert_eq!(wrong("egressd_exit_flows", &read(&at_first())).len(), 1, "it is there once there is an exit");
    assert!(needs_node("sum by (node) (egressd_problems)") && needs_node("egressd_problems{node=~\"worker.*\"}"));
    assert!(!needs_node("sum by (node, instance) (egressd_problems{node=~\"$node\"})"));
}
