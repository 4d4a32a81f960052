//! Pools of a cluster: `egressd-cloud` with the account and the rights that the chart gives it, against a real API server.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use world::{ApiServer, Scenario, cluster::until, egressd, service::Service};

use crate::support::Cloud;

const NAMESPACE: &str = "net";
/// The NIC of the pool, as the node knows it.
const NIC: &str = "ens6";

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "a cluster's pool gets public addresses on its node's NIC, which its status says; the account may do that and nothing else",
        in_a_cluster,
    )]
}

fn in_a_cluster() {
    let lab = Lab::start();
    let _controller = lab.controller();
    let mut first = lab.egressd_cloud("one");
    lab.node("n1", &lab.cloud.id("instance"), &json!({ "egress": "yes" }));

    lab.pool(&json!({ "cloud": { "aws": { "elasticAddresses": "Allocate" } } }));
    let said = lab.await_condition("status", "Accepted", "False");
    assert!(said.contains("spec.cloud.aws.networkInterface: does not say which node's; write `spec.assignment: Managed`"), "{said}");

    lab.pool(&asked());
    lab.report("n1", &[]);
    let said = lab.await_condition("status/cloud", "Reachable", "False");
    assert!(said.contains(&format!("the agent of node n1 reports no NIC {NIC}")), "{said}");
    assert!(lab.cloud.changes().is_empty(), "nobody knows which NIC is meant");
    lab.report("n1", &["10.0.1.10"]);
    lab.await_condition("status/cloud", "Ready", "True");
    lab.cloud.has(&["10.0.1.94", "10.0.1.95"]);
    let public = lab.public_addresses("n1");
    assert_eq!(public.len(), 2, "each has its own");
    owners(&lab);

    // Who waits for the Lease does nothing, and who gets it finds everything done.
    let changes = lab.cloud.changes();
    let _second = lab.egressd_cloud("two");
    lab.cloud.set(&json!({ "down": true }));
    first.terminate(Duration::from_secs(10));
    let said = lab.await_condition("status/cloud", "Reachable", "False");
    assert!(said.contains("n1: ") && said.contains("Unavailable"), "{said}");
    assert_eq!(lab.public_addresses("n1"), public, "what the cloud has shown the one before holds");
    lab.cloud.set(&json!({ "down": false }));
    lab.await_condition("status/cloud", "Ready", "True");
    assert_eq!((lab.cloud.changes(), lab.public_addresses("n1")), (changes.clone(), public.clone()));

    // The same machine under another name: its addresses move, and nobody outside sees that.
    lab.node("n3", &lab.cloud.id("instance"), &json!({ "egress": "yes" }));
    lab.report("n3", &["10.0.1.10"]);
    lab.api.kubectl(&["delete", "node", "n1"]);
    lab.api.await_object(&["egresspool", "web"], |pool| {
        let addresses = pool["status"]["cloud"]["addresses"].as_array();
        addresses.is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["node"] == "n3" && one["ready"] == true))
    });
    assert_eq!((lab.cloud.changes(), lab.public_addresses("n3")), (changes.clone(), public));

    // A machine that is none of this cloud is named, and keeps nobody from the others.
    lab.node("n4", "", &json!({ "egress": "yes" }));
    lab.report("n4", &["10.0.1.11"]);
    let mut larger = asked();
    larger["blocks"] = json!([{ "start": "10.0.1.94", "end": "10.0.1.96" }]);
    lab.pool(&larger);
    let said = lab.await_condition("status/cloud", "Reachable", "False");
    assert!(said.contains("node n4 is no instance of Amazon EC2 (its spec.providerID is nothing)"), "{said}");
    lab.await_condition("status/cloud", "AddressesAssigned", "True");
    assert_eq!(lab.cloud.changes(), changes);

    // Nothing is taken away but the words.
    lab.pool(&json!({ "assignment": "Managed", "interface": NIC }));
    lab.api.await_object(&["egresspool", "web"], |pool| pool["status"]["cloud"].is_null());
    lab.cloud.has(&["10.0.1.94", "10.0.1.95"]);
    rights(&lab);
}

/// What the pool asks for.
fn asked() -> Value {
    json!({ "assignment": "Managed", "interface": NIC, "nodeSelector": { "egress": "yes" }, "cloud": { "aws": { "elasticAddresses": "Allocate" } } })
}

/// Each writer has its own part of the status.
fn owners(lab: &Lab) {
    let pool = lab.api.get(&["egresspool", "web", "--show-managed-fields"]);
    let fields = pool["metadata"]["managedFields"].as_array().expect("a list");
    let of = |manager: &str| -> BTreeSet<String> {
        let own = fields.iter().filter(|one| one["manager"] == manager && one["subresource"] == "status");
        own.flat_map(|one| one["fieldsV1"]["f:status"].as_object().expect("fields").keys().cloned()).collect()
    };
    assert_eq!(of("egressd-cloud"), BTreeSet::from(["f:cloud".to_owned()]));
    assert!(of("egressd").contains("f:nodes") && !of("egressd").contains("f:cloud"), "{:?}", of("egressd"));
}

/// Its account has done all that it had to with the chart's roles, and may do nothing else.
fn rights(lab: &Lab) {
    let user = format!("system:serviceaccount:{NAMESPACE}:egressd-cloud");
    let requests: Vec<Value> = lab.api.audit().into_iter().filter(|event| event["user"]["username"] == user.as_str()).collect();
    let refused = |event: &&Value| event["responseStatus"]["code"] == 401 || event["responseStatus"]["code"] == 403;
    assert!(!requests.is_empty() && !requests.iter().any(|event| refused(&event)), "{:?}", requests.iter().find(refused));
    let buyer = lab.token("egressd-cloud", "one");
    for (verb, what) in [
        ("list", "secrets"),
        ("list", "pods"),
        ("patch", "egressbindings.egressd.dev/status"),
        ("patch", "egresspools.egressd.dev"),
        ("create", "egressnodes.egressd.dev"),
        ("patch", "nodes"),
    ] {
        let (what, sub) = what.split_once('/').unwrap_or((what, ""));
        let sub = format!("--subresource={sub}");
        lab.api.kubectl_as(&buyer, &["auth", "can-i", verb, what, &sub], "").expect_err(what);
    }
    let write = |user: &str, status: &str, manager: &str| {
        let pool = format!("{{apiVersion: egressd.dev/v1alpha1, kind: EgressPool, metadata: {{name: web}}, status: {status}}}");
        let field = format!("--field-manager={manager}");
        lab.api.kubectl_as(user, &["apply", "--server-side", "--force-conflicts", "--subresource=status", &field, "-f", "-"], &pool)
    };
    let nodes = "{nodes: [{name: n4, addresses: ['10.0.1.94-10.0.1.96']}]}";
    let said = write(&buyer, nodes, "stolen").expect_err("who has which address is the controller's to say");
    assert!(said.contains("egressd-cloud writes status.cloud of a pool, and nothing else of its status"), "{said}");
    let leader = lab.token("egressd-controller", "leader");
    let said =
        write(&leader, "{cloud: {addresses: [{address: 10.0.1.94, ready: true}]}}", "stolen").expect_err("that is egressd-cloud's to say");
    assert!(said.contains("status.cloud of a pool is egressd-cloud's to write"), "{said}");
    let agent = lab.token("egressd", "leader");
    let said = write(&agent, nodes, "stolen").expect_err("an agent decides nothing");
    assert!(said.contains("cannot patch resource \"egresspools/status\""), "{said}");
    let lease = format!(
        "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: other, namespace: {NAMESPACE}}}, spec: {{holderIdentity: one}}}}"
    );
    let said = lab.api.kubectl_as(&buyer, &["create", "-f", "-"], &lease).expect_err("it is not its own");
    assert!(said.contains("egressd-cloud takes the one of its own name"), "{said}");
}

/// The emulator, and an API server with the chart.
struct Lab {
    cloud: Cloud,
    api: ApiServer,
}

impl Lab {
    fn start() -> Self {
        let (cloud, api) = (Cloud::start(), ApiServer::start());
        let chart = format!("{}/charts/egressd", env!("CARGO_MANIFEST_DIR"));
        let install = ["install", "egressd", &chart, "--namespace", NAMESPACE, "--create-namespace", "--set", "cloud.enabled=true"];
        api.helm(&install).unwrap_or_else(|error| panic!("{error}"));
        for (name, account) in [("leader", "egressd-controller"), ("one", "egressd-cloud"), ("two", "egressd-cloud")] {
            api.apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{serviceAccountName: {account}, containers: [{{name: c, image: i}}]}}}}"
            ));
        }
        Self { cloud, api }
    }

    /// A kubeconfig with the token of a pod, whose account it is.
    fn token(&self, account: &str, pod: &str) -> String {
        let bound = format!("--bound-object-name={pod}");
        let bound: &[&str] = if account == "egressd" { &[] } else { &["--bound-object-kind=Pod", &bound] };
        self.own(account, pod, bound)
    }

    fn own(&self, account: &str, name: &str, bound: &[&str]) -> String {
        let kubeconfig = self.api.service_account(NAMESPACE, account, bound);
        let own = format!("{kubeconfig}.{name}");
        fs::rename(kubeconfig, &own).expect("/run is ours");
        own
    }

    fn controller(&self) -> Service {
        let mut command = Command::new(egressd::program());
        command.args(["controller", "--pod-name", "leader", "--namespace", NAMESPACE, "--kubeconfig"]);
        command.arg(self.token("egressd-controller", "leader"));
        Service::start("controller", command)
    }

    fn egressd_cloud(&self, pod: &str) -> Service {
        let kubeconfig = self.token("egressd-cloud", pod);
        let arguments = ["run", "--kubernetes", "--kubeconfig", &kubeconfig, "--pod-name", pod, "--namespace", NAMESPACE];
        let times = ["--settle-seconds", "0", "--interval-seconds", "2"];
        Service::start(&format!("egressd-cloud-{pod}"), self.cloud.bare(&[&arguments[..], &times].concat(), &[]))
    }

    /// A node that is this instance, or none.
    fn node(&self, name: &str, instance: &str, labels: &Value) {
        let provider = if instance.is_empty() { Value::Null } else { json!(format!("aws:///eu-central-1a/{instance}")) };
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels }, "spec": { "providerID": provider } });
        self.api.apply(&node.to_string());
    }

    /// A node's agent reports that its NIC has these addresses.
    fn report(&self, node: &str, addresses: &[&str]) {
        let bound = format!("--bound-object-name={node}");
        let agent = self.own("egressd", node, &["--bound-object-kind=Node", &bound]);
        let nics = json!([{ "name": NIC, "up": true, "addresses": addresses }]);
        let report =
            json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressNode", "metadata": { "name": node }, "spec": { "nics": nics } });
        let apply = ["apply", "--server-side", "--field-manager=egressd", "-f", "-"];
        until("the agent may report", || self.api.kubectl_as(&agent, &apply, &report.to_string()));
    }

    /// The pool `web` of two addresses, with these fields.
    fn pool(&self, fields: &Value) {
        let mut spec = fields.clone();
        if spec["blocks"].is_null() {
            spec["blocks"] = json!([{ "start": "10.0.1.94", "end": "10.0.1.95" }]);
        }
        let pool = json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressPool", "metadata": { "name": "web" }, "spec": spec });
        self.api.apply(&pool.to_string());
    }

    /// Waits until a condition of the pool has this status, and returns what it says.
    fn await_condition(&self, place: &str, kind: &str, status: &str) -> String {
        let of = |pool: &Value| {
            let conditions = pool.pointer(&format!("/{place}/conditions")).and_then(Value::as_array);
            conditions
                .into_iter()
                .flatten()
                .find(|one| one["type"] == kind && one["observedGeneration"] == pool["metadata"]["generation"])
                .cloned()
        };
        let pool = self.api.await_object(&["egresspool", "web"], |pool| of(pool).is_some_and(|one| one["status"] == status));
        of(&pool).expect("it was there")["message"].as_str().unwrap_or_default().to_owned()
    }

    /// What others see the pool's addresses as, all of them on this node's NIC and ready.
    fn public_addresses(&self, node: &str) -> BTreeSet<String> {
        let pool = self.api.get(&["egresspool", "web"]);
        let state = self.cloud.state();
        let one = |shown: &Value| {
            assert_eq!(
                (&shown["node"], &shown["ready"], &shown["networkInterface"]),
                (&json!(node), &json!(true), &json!(self.cloud.id("nic")))
            );
            let elastic = &state["elastic"][shown["elasticAddress"].as_str().expect("it has one")];
            assert_eq!(elastic["private"], shown["address"], "{state}");
            shown["publicAddress"].as_str().expect("it has one").to_owned()
        };
        pool["status"]["cloud"]["addresses"].as_array().expect("a list").iter().map(one).collect()
    }
}
