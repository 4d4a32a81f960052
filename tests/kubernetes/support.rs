//! What several modules ask of objects, and the bindings that they make.

use serde_json::{Value, json};
use world::{
    Cluster,
    cluster::{NAMESPACE, NODES},
};

/// Selects the controllers' pods.
pub const CONTROLLERS: &str = "app.kubernetes.io/name=egressd-controller";
/// Selects the agents' pods.
pub const AGENTS: &str = "app.kubernetes.io/name=egressd";

/// A binding of pods with the label `app` to what `exits` says: `{"pool": …}` or `{"exits": …}`.
pub fn binding(name: &str, app: &str, exits: &Value) -> String {
    let mut spec = exits.clone();
    spec["podSelector"] = json!({ "matchLabels": { "app": app } });
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "metadata": { "name": name }, "spec": spec }).to_string()
}

/// A pool that lends to the namespace `default`, with these fields of its spec.
pub fn pool(name: &str, fields: &Value) -> String {
    let mut spec = fields.clone();
    if spec["allowedNamespaces"].is_null() {
        spec["allowedNamespaces"] = json!({ "names": ["default"] });
    }
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressPool", "metadata": { "name": name }, "spec": spec }).to_string()
}

/// Waits until a condition of the object has this status and reason, and returns its message.
pub fn await_said(cluster: &Cluster, what: &[&str], kind: &str, status: &str, reason: &str) -> String {
    let of = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|one| one["type"] == kind).cloned().unwrap_or_default()
    };
    let current = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let object = cluster.api.await_object(what, |object| {
        let condition = of(object);
        current(object) && condition["status"] == status && condition["reason"] == reason
    });
    of(&object)["message"].as_str().unwrap_or_default().to_owned()
}

/// Waits until that many workloads of a binding have no usable exit, for this reason, and returns the sentence of their node.
pub fn await_failing(cluster: &Cluster, binding: &str, workloads: u64, reason: &str) -> String {
    let object = cluster.api.await_object(&["egressbinding", binding], |object| {
        let status = &object["status"];
        status["summary"]["failing"] == workloads && status["failingNodes"][0]["reason"] == reason
    });
    object["status"]["failingNodes"][0]["message"].as_str().unwrap_or_default().to_owned()
}

/// Reasons of the Events about an object, in the order in which they were told, but for those on what a pool lends.
pub fn events(cluster: &Cluster, name: &str) -> Vec<String> {
    let all = cluster.api.get(&["events.events.k8s.io", "-A"]);
    let all = all["items"].as_array().expect("a list");
    let of = |event: &&Value| {
        let lends = event["reason"].as_str().is_some_and(|reason| reason.starts_with("Addresses"));
        !lends && event["regarding"]["name"] == name && event["reportingController"] == "egressd.dev/egressd"
    };
    let mut of: Vec<&Value> = all.iter().filter(of).collect();
    of.sort_by_key(|event| event["eventTime"].as_str());
    of.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Ends all controllers with their pods, and waits until others are ready in their place.
pub fn restart_controllers(cluster: &Cluster) {
    cluster.api.kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", CONTROLLERS]);
    cluster.api.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/egressd-controller", "--timeout=90s"]);
}

/// Ends both nodes' agents with their pods, and waits until others are ready in their place.
pub fn restart_agents(cluster: &Cluster) {
    cluster.api.kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", AGENTS]);
    for node in NODES {
        let agent = cluster.agent(node);
        cluster.api.await_condition(&["-n", NAMESPACE, "pod", &agent], "Ready");
    }
}
