//! What becomes of ports that a binding publishes.

use super::*;
use crate::api::node::{NodeService, Unserved};

/// A cluster with a binding of an address of a pool, which lends port 80 and is asked for these.
fn publishing(ports: &[u16]) -> Cluster {
    let mut cluster = Cluster::new();
    let value = json!({
        "metadata": { "name": "public", "uid": "pool", "generation": 1 },
        "spec": {
            "blocks": [{ "cidr": "10.0.0.4/32" }], "allowedNamespaces": { "names": ["shop"] },
            "inboundPorts": [{ "protocol": "TCP", "port": 80 }],
        },
    });
    cluster.world.apply(Change::Pools(Update::One(pool(value))));
    let mut spec = count(1);
    spec["inbound"] = ports.iter().map(|port| json!({ "protocol": "TCP", "port": port })).collect();
    cluster.binding("web", &spec);
    cluster
}

fn service(port: u16, servers: i64, ready: i64) -> NodeService {
    NodeService { service: format!("tcp/10.0.0.4:{port}"), servers, ready }
}

/// A node with a pod of the binding reports these.
fn reports(cluster: &mut Cluster, services: Vec<NodeService>, unserved: Option<Unserved>) {
    cluster.report("n1", "web", [1, 1, 0], None);
    let mut report = cluster.world.reports.as_ref().expect("listed")["n1"].clone();
    (report.bindings[0].services, report.bindings[0].unserved) = (services, unserved);
    cluster.world.apply(Change::Reports(Update::One(Named { name: "n1".to_owned(), value: report })));
}

/// `Published` and `Ready`: status, reason and message.
fn said(cluster: &Cluster) -> [(String, String, String); 2] {
    let status = cluster.status_of("web").expect("a status");
    [PUBLISHED, READY].map(|kind| {
        let condition = condition(&status.conditions, kind);
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    })
}

fn says(said: &(String, String, String), status: &str, reason: &str) -> bool {
    said.0 == status && said.1 == reason
}

#[test]
fn who_publishes_nothing_has_no_such_condition() {
    let status = served().status_of("crawler").expect("a status");
    assert!(condition::find(&status.conditions, PUBLISHED).is_none());
}

#[test]
fn ports_are_published_once_a_node_serves_them() {
    let mut cluster = publishing(&[80]);
    cluster.fold();
    assert!(says(&said(&cluster)[0], "Unknown", "Pending"), "{:?}", said(&cluster));
    reports(&mut cluster, vec![service(80, 2, 2)], None);
    cluster.fold();
    let [published, ready] = said(&cluster);
    assert_eq!(published.2, "1 port is served");
    assert!(says(&published, "True", PUBLISHED) && says(&ready, "True", PROGRAMMED), "{published:?} {ready:?}");
    let services = cluster.status_of("web").expect("a status").services;
    let first = services.first().expect("one");
    assert_eq!((first.service.as_str(), first.node.as_str(), first.servers, first.ready), ("tcp/10.0.0.4:80", "n1", 2, 2));
    reports(&mut cluster, vec![service(80, 2, 0)], None);
    cluster.fold();
    assert_eq!(said(&cluster)[0].2, "0 of 1 port is served; tcp/10.0.0.4:80 has no pod on its node that gets new connections");
}

#[test]
fn a_port_that_is_not_lent_is_told_whatever_the_nodes_say_and_the_way_out_is_in_force() {
    let mut cluster = publishing(&[80, 443]);
    reports(&mut cluster, vec![service(80, 1, 1)], None);
    let writes = cluster.fold();
    let [published, ready] = said(&cluster);
    assert!(says(&published, "False", "PortNotLent") && says(&ready, "False", "PortNotLent"), "{published:?} {ready:?}");
    assert!(published.2.starts_with("spec.inbound[1].port: EgressPool public does not lend tcp/443; add it to"), "{published:?}");
    assert_eq!(cluster.conditions("web"), ["True", "True", "True"]);
    assert_eq!(reasons(&writes), ["PortNotLent"]);
}

#[test]
fn a_port_that_a_node_cannot_serve_is_told_with_the_node() {
    let mut cluster = publishing(&[80]);
    let unserved = Unserved { reason: "PortTaken".to_owned(), message: "spec.inbound[0].port: it is taken".to_owned() };
    reports(&mut cluster, Vec::new(), Some(unserved));
    cluster.fold();
    let [published, _] = said(&cluster);
    assert_eq!((published.1.as_str(), published.2.as_str()), ("PortTaken", "n1: spec.inbound[0].port: it is taken"));
}

#[test]
fn addresses_that_no_node_holds_are_told_in_time() {
    let mut cluster = publishing(&[80]);
    reports(&mut cluster, Vec::new(), None);
    cluster.fold();
    assert!(says(&said(&cluster)[0], "Unknown", "Pending"));
    cluster.after(60).fold();
    assert!(says(&said(&cluster)[0], "False", "NoExitOnNode"), "{:?}", said(&cluster));
}

#[test]
fn what_a_silent_node_serves_is_not_known() {
    let mut cluster = publishing(&[80]);
    reports(&mut cluster, vec![service(80, 1, 1)], None);
    cluster.fold();
    cluster.now += nodes::SILENCE;
    cluster.fold();
    assert!(says(&said(&cluster)[0], "Unknown", AGENT_SILENT), "{:?}", said(&cluster));
}
