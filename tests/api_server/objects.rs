//! Objects that the scenarios make.

use egressd::api::definitions;
use serde_json::{Value, json};
use world::ApiServer;

/// The node of the agent.
pub const NODE: &str = "n1";
/// The namespace of the agents.
pub const AGENTS: &str = "egressd";

/// Applies the definitions, and waits until they are served.
pub fn define(api: &ApiServer) {
    for (_, definition) in definitions::all() {
        api.apply(&definition);
    }
    api.kubectl(&["wait", "--for=condition=Established", "--timeout=90s", "crd", "--all"]);
}

pub fn binding(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

/// A binding of pods with a label, to an address.
pub fn good_binding(name: &str, address: &str) -> Value {
    binding(name, json!({ "podSelector": { "matchLabels": { "app": name } }, "exits": [{ "address": address }] }))
}

pub fn pool(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressPool", "metadata": { "name": name }, "spec": spec })
}

pub fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "role": "worker" } } })
}

pub fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
    })
}

pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "kind": "of-agents" } } })
}

pub fn inside(cidrs: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "egressd-inside", "namespace": AGENTS }, "data": { "cidrs": cidrs } })
}

pub fn daemonset(role: &str) -> Value {
    let labels = json!({ "app": "egressd" });
    let template = json!({
        "metadata": { "labels": labels },
        "spec": { "nodeSelector": { "role": role }, "containers": [{ "name": "c", "image": "i" }] },
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "egressd", "namespace": AGENTS },
        "spec": { "selector": { "matchLabels": labels }, "template": template },
    })
}

/// Applies an object.
pub fn apply(api: &ApiServer, object: &Value) {
    api.apply(&object.to_string());
}
