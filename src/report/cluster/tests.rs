//! What `kubectl egress` prints, word for word.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::api::binding::EgressBinding;
use crate::api::node::{EgressNode, NodeService, Unserved};
use crate::api::status::PublishedPort;

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn binding(name: &str, labels: &Value, priority: i32, status: &Value) -> EgressBinding {
    let value = json!({
        "metadata": { "namespace": "shop", "name": name, "uid": name, "generation": 2 },
        "spec": { "podSelector": { "matchLabels": labels }, "pool": { "name": "public" }, "priority": priority },
        "status": status,
    });
    serde_json::from_value(value).expect("a binding")
}

/// One that is in force on `n1`, and fails on `n2`.
fn crawler() -> EgressBinding {
    let status = json!({
        "observedGeneration": 2,
        "conditions": [
            condition("Accepted", "True", "Accepted", "it is well written"),
            condition("ResolvedRefs", "True", "ResolvedRefs", "all that it refers to is there"),
            condition("Programmed", "False", "NoExitOnNode", "1 of 3 workloads have no usable exit, on 1 node; n2: no NIC holds it"),
            condition("Ready", "False", "NoExitOnNode", "1 of 3 workloads have no usable exit, on 1 node; n2: no NIC holds it"),
        ],
        "exits": ["172.31.0.14"],
        "summary": { "nodes": 2, "workloads": 3, "programmed": 2, "failing": 1 },
        "failingNodes": [{ "node": "n2", "failing": 1, "reason": "NoExitOnNode", "message": "no NIC holds it" }],
    });
    binding("crawler", &json!({ "app": "crawler" }), 10, &status)
}

/// One that no agent has looked at.
fn everybody() -> EgressBinding {
    binding("everybody", &json!({}), 0, &Value::Null)
}

fn pod(spec: &Value, status: &Value) -> Pod {
    let value = json!({
        "metadata": { "namespace": "shop", "name": "web-1", "labels": { "app": "crawler" } },
        "spec": spec,
        "status": status,
    });
    serde_json::from_value(value).expect("a pod")
}

fn running() -> Pod {
    pod(&json!({ "containers": [], "nodeName": "n2" }), &json!({ "podIPs": [{ "ip": "10.244.1.7" }], "phase": "Running" }))
}

fn n2() -> EgressNode {
    let value = json!({
        "metadata": { "name": "n2" },
        "spec": {
            "version": "0.1.0",
            "nics": [{ "name": "eth1", "up": true, "addresses": ["172.31.0.15"], "gateways": ["172.31.0.1"], "exits": [] }],
            "bindings": [{
                "namespace": "shop", "name": "crawler", "generation": 2, "workloads": 1, "programmed": 0, "failing": 1,
                "reason": "NoExitOnNode", "message": "no NIC holds it",
            }],
            "bound": 0,
            "failing": 1,
            "problems": ["the container runtime has not answered yet"],
        },
    });
    serde_json::from_value(value).expect("a report")
}

#[test]
fn status_shows_every_binding_and_below_why_not_all_is_in_force() {
    let text = "\
NAMESPACE  NAME       POOL    EXITS        NODES  WORKLOADS  PROGRAMMED  FAILING  STATE
shop       crawler    public  172.31.0.14  2      3          2           1        NoExitOnNode
shop       everybody  public  -            0      0          0           0        Unknown

shop/crawler: 1 of 3 workloads have no usable exit, on 1 node; n2: no NIC holds it
shop/crawler: 1 failing on n2: no NIC holds it
shop/everybody: no agent has seen it yet; check that egressd runs in this cluster
";
    assert_eq!(status(&[everybody(), crawler()]), text);
    assert_eq!(status(&[]), "No EgressBinding found.\n");
}

#[test]
fn status_for_machines_is_the_status_itself() {
    let read: Value = serde_json::to_value(listed(&[crawler()])).expect("plain data");
    assert_eq!(read[0]["pool"], "public");
    assert_eq!(read[0]["status"], serde_json::to_value(crawler().status).expect("plain data"));
}

#[test]
fn explain_says_who_has_the_pod_and_what_its_node_says() {
    let text = "\
pod/shop/web-1 (10.244.1.7)
  binding   crawler
            everybody selects it too, but this binding takes precedence (priority, then age, then name)
  pool      public
  exits     172.31.0.14
  state     NoExitOnNode: 1 of 3 workloads have no usable exit, on 1 node; n2: no NIC holds it
  node      n2 has none of the exits
            workloads of the binding there that leave through an exit: 0 of 1
            1 do not: NoExitOnNode: no NIC holds it
";
    assert_eq!(explain(&running(), &[everybody(), crawler()], Some(&n2())), text);
}

#[test]
fn explain_names_the_nic_that_holds_the_exit() {
    let mut node = n2();
    node.spec.nics[0].addresses.push("172.31.0.14".parse().expect("an address"));
    let text = explain(&running(), &[crawler()], Some(&node));
    assert!(text.contains("\n  node      n2 holds 172.31.0.14 on eth1\n"), "{text}");
}

#[test]
fn explain_says_so_when_nobody_selects_the_pod() {
    let mail = binding("mail", &json!({ "app": "mail" }), 0, &Value::Null);
    let text = "\
pod/shop/web-1 (10.244.1.7)
  binding   none selects it: it uses its node's default route
            (in shop there are: mail)
";
    assert_eq!(explain(&running(), &[mail], Some(&n2())), text);
}

#[test]
fn explain_says_what_keeps_a_pod_from_being_served() {
    let host = pod(&json!({ "containers": [], "hostNetwork": true }), &Value::Null);
    assert!(
        explain(&host, &[crawler()], None).contains("\n  refused   spec.hostNetwork: is true"),
        "{}",
        explain(&host, &[crawler()], None)
    );
    let over = pod(&json!({ "containers": [] }), &json!({ "phase": "Succeeded" }));
    assert!(explain(&over, &[crawler()], None).contains("\n  over      it has succeeded"));
    let waits = pod(&json!({ "containers": [] }), &Value::Null);
    assert!(explain(&waits, &[crawler()], None).ends_with("\n  node      it is on no node yet\n"));
    assert!(explain(&running(), &[crawler()], None).ends_with("\n  node      n2 does not report; check that egressd runs there\n"));
}

#[test]
fn node_shows_what_a_node_has_and_what_became_of_each_binding_there() {
    let text = "\
n2 (egressd 0.1.0): 0 workloads bound, 1 failing

NIC   STATE  ADDRESSES    GATEWAYS    EXITS IN USE
eth1  Up     172.31.0.15  172.31.0.1  -

NAMESPACE  BINDING  WORKLOADS  PROGRAMMED  FAILING  REASON
shop       crawler  1          0           1        NoExitOnNode

shop/crawler: no NIC holds it
the container runtime has not answered yet
";
    assert_eq!(node(&n2()), text);
}

#[test]
fn ports_that_a_node_serves_are_shown_with_their_pods_and_what_is_not_served_below() {
    let mut node_of_it = n2();
    let report = &mut node_of_it.spec.bindings[0];
    report.services = vec![NodeService { service: "tcp/172.31.0.15:80".to_owned(), servers: 2, ready: 1 }];
    let message = "spec.inbound[1].port: tcp/172.31.0.15:22 is taken by sshd".to_owned();
    report.unserved = Some(Unserved { reason: "PortTaken".to_owned(), message });
    let text = node(&node_of_it);
    let table = "
SERVICE             NAMESPACE  BINDING  SERVERS  READY
tcp/172.31.0.15:80  shop       crawler  2        1
";
    assert!(text.contains(table), "{text}");
    assert!(text.contains("\nshop/crawler: spec.inbound[1].port: tcp/172.31.0.15:22 is taken by sshd\n"), "{text}");
    let mut binding = crawler();
    let services = &mut binding.status.as_mut().expect("it has one").services;
    services.push(PublishedPort { service: "tcp/172.31.0.15:80".to_owned(), node: "n2".to_owned(), servers: 2, ready: 1 });
    let text = explain(&running(), &[binding], Some(&node_of_it));
    assert!(text.contains("\n  serves    tcp/172.31.0.15:80 on n2, with 2 pods, of which 1 get new connections\n"), "{text}");
}
