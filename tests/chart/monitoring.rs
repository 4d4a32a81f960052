//! Monitors, alerts and the dashboard. What they ask for is held to what is told in `src/daemon/metrics/tests`.

use serde_json::{Value, json};

use crate::{EVERY_VALUES, find, kinds, render, rendered};

#[test]
fn monitoring_is_there_when_asked_for_and_refused_where_nobody_could_reach_it() {
    assert!(kinds(&rendered(EVERY_VALUES[0])).is_disjoint(&["ServiceMonitor", "Service", "ConfigMap"].into()));
    for values in ["tests/chart/full.yaml", "examples/helm/values.yaml"] {
        let objects = rendered(values);
        let monitor = find(&objects, "ServiceMonitor", "egressd").expect("it is asked for");
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        let service = find(&objects, "Service", "egressd-metrics").expect("it is what the monitor selects");
        assert_eq!(service["spec"]["clusterIP"], "None");
        let controllers = find(&objects, "Service", "egressd-controller-metrics").expect("it is what their monitor selects");
        assert_eq!(
            controllers["spec"]["selector"],
            find(&objects, "Deployment", "egressd-controller").expect("it is there")["spec"]["selector"]["matchLabels"]
        );
        let dashboard = find(&objects, "ConfigMap", "egressd-dashboard").expect("it is asked for");
        let dashboard: Value = serde_json::from_str(dashboard["data"]["egressd.json"].as_str().expect("text")).expect("JSON");
        assert_eq!(dashboard["title"], "egressd");
    }
    let objects = rendered("tests/chart/full.yaml");
    let rules = find(&objects, "PrometheusRule", "egressd").expect("it is asked for");
    assert_eq!(rules["metadata"]["labels"]["release"], "prometheus");
    let rules = rules["spec"]["groups"][0]["rules"].as_array().expect("alerts");
    assert!(
        rules.iter().all(|rule| {
            let of_nodes = rule["annotations"]["summary"].as_str().is_some_and(|text| text.contains("{{ $labels.node }}"));
            of_nodes || rule["annotations"]["description"].as_str().is_some_and(|text| text.contains("deployment/egressd-controller"))
        }),
        "{rules:?}"
    );
    for address in ["127.0.0.1:9464", "127.0.1.1:9464", "[::1]:9464"] {
        let set = format!("metrics.address={address}");
        let refused = render("examples/helm/values.yaml", &["--set", &set]).expect_err("nobody would reach it");
        assert!(refused.contains("only the node itself reaches") && refused.contains("0.0.0.0:9464"), "{refused}");
    }
}

#[test]
fn monitors_select_the_releases_services_from_wherever_they_are_and_have_what_was_asked_for() {
    let monitors = |objects: &[Value]| {
        ["egressd", "egressd-controller"].map(|name| find(objects, "ServiceMonitor", name).cloned().expect("it is there"))
    };
    let full = monitors(&rendered("tests/chart/full.yaml"));
    let usual = monitors(&rendered("examples/helm/values.yaml"));
    for monitor in full.iter().chain(&usual) {
        assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["net"]), "{monitor}");
    }
    for monitor in &full {
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!(
            (&monitor["metadata"]["namespace"], &endpoint["interval"], &endpoint["scrapeTimeout"]),
            (&json!("monitoring"), &json!("10s"), &json!("5s"))
        );
        assert_eq!(endpoint["metricRelabelings"][0]["action"], "drop");
        let last = endpoint["relabelings"].as_array().and_then(|all| all.last()).expect("a rule");
        assert_eq!(last, &json!({ "targetLabel": "cluster", "replacement": "edge" }));
    }
    for (monitor, of_node) in usual.iter().zip([true, false]) {
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!(
            (&monitor["metadata"]["namespace"], &endpoint["scrapeTimeout"], &endpoint["metricRelabelings"]),
            (&json!("net"), &Value::Null, &Value::Null)
        );
        assert_eq!(endpoint["relabelings"][0]["targetLabel"] == "node", of_node, "{endpoint}");
    }
    assert_eq!(full[0]["spec"]["endpoints"][0]["relabelings"][0]["targetLabel"], "node", "agents are told apart by it whatever is added");
}
