//! What an agent learns of the API server, in good times and bad.

use std::net::{IpAddr, Ipv4Addr};

use egressd::model::cluster::{Cluster, ClusterChange, Update};
use serde_json::{Value, json};
use world::{ApiServer, cluster::Etcd, command};

use crate::agent::{Agent, bindings, pods, troubled};
use crate::objects::{AGENTS, NODE, apply, binding, daemonset, define, good_binding, inside, namespace, node, pod, pool};

/// Two bindings, a pool, two nodes with a pod each, and the agents' own objects.
fn populate(api: &ApiServer) {
    for object in [
        namespace(AGENTS),
        node(NODE),
        node("n2"),
        good_binding("a", "172.31.0.14"),
        good_binding("b", "172.31.0.15"),
        pool("public", json!({ "blocks": [{ "cidr": "172.31.0.16/28" }] })),
        pod("here", NODE),
        pod("there", "n2"),
        inside("10.244.0.0/16\n10.96.0.0/16\n"),
        daemonset("worker"),
    ] {
        apply(api, &object);
    }
}

fn exit(cluster: &Cluster, name: &str) -> Option<IpAddr> {
    cluster.bindings.as_ref()?.get(&format!("default/{name}"))?.binding.exits.first().map(|exit| exit.address)
}

fn address(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(172, 31, 0, last).into())
}

pub fn all_kinds_are_listed_and_heard() {
    let api = ApiServer::start();
    list_and_hear(&api);
    assert_eq!(requests(&api, "list", "egressbindings"), 0, "its list is streamed");
}

pub fn an_old_etcd_serves_too() {
    let api = ApiServer::start_with(Etcd::Debian);
    list_and_hear(&api);
    assert_eq!(requests(&api, "list", "egressbindings"), 1);
}

/// How many requests of the agent there were.
fn requests(api: &ApiServer, verb: &str, resource: &str) -> usize {
    let asked =
        |event: &&Value| event["verb"] == verb && event["objectRef"]["resource"] == resource && event["user"]["username"] == "agent";
    // A watch is in the log when it begins, and again when it ends.
    let ids: std::collections::BTreeSet<String> = api.audit().iter().filter(asked).map(|event| event["auditID"].to_string()).collect();
    ids.len()
}

/// A user with every right and a name of its own, so that it can be told apart in the audit log.
fn agent(api: &ApiServer) -> Agent {
    Agent::start(&api.user("agent", "/O=system:masters/CN=agent"))
}

fn list_and_hear(api: &ApiServer) {
    define(api);
    populate(api);
    let mut agent = agent(api);
    agent.until_whole();
    let known = &agent.cluster;
    assert!(known.troubles.is_empty(), "{:?}", known.troubles);
    assert_eq!((bindings(known), pods(known)), (vec!["a", "b"], vec!["here"]));
    assert_eq!((exit(known, "a"), exit(known, "b")), (address(14), address(15)));
    assert!(known.pools.as_ref().is_some_and(|pools| pools["public"].size() == 16));
    assert_eq!(known.namespaces.as_ref().and_then(|all| all[AGENTS].labels.get("kind")).map(String::as_str), Some("of-agents"));
    assert_eq!((known.node.name.as_str(), known.node.labels["role"].as_str()), (NODE, "worker"));
    agent.until("what is inside is known", |known| known.inside.len() == 2);
    assert!(!agent.cluster.dismissed());

    apply(api, &good_binding("a", "172.31.0.24"));
    agent.until("the binding's new exit", |known| exit(known, "a") == address(24));
    apply(api, &good_binding("c", "172.31.0.16"));
    agent.until("the new binding", |known| bindings(known) == ["a", "b", "c"]);
    api.delete(&["egb", "b"]);
    agent.until("the binding is gone", |known| bindings(known) == ["a", "c"]);
    api.delete(&["egp", "public"]);
    agent.until("the pool is gone", |known| known.pools.as_ref().is_some_and(std::collections::BTreeMap::is_empty));
    api.kubectl(&["label", "namespace", AGENTS, "kind=other", "--overwrite"]);
    let label = |known: &Cluster| known.namespaces.as_ref().and_then(|all| all.get(AGENTS)?.labels.get("kind").cloned());
    agent.until("the namespace's new label", |known| label(known).as_deref() == Some("other"));
    apply(api, &inside("10.244.0.0/16\nhere\n"));
    agent.until("the line that is no subnet", |known| troubled(known, "ConfigMap egressd-inside: no subnets: here"));
    apply(api, &inside("10.244.0.0/16\n"));
    agent.until("the line is gone", |known| known.troubles.is_empty() && known.inside.len() == 1);
    hear_of_pods(api, &mut agent);
    hear_of_dismissal(api, &mut agent);
}

fn hear_of_pods(api: &ApiServer, agent: &mut Agent) {
    let status = |status: Value| {
        let patch = json!({ "status": status }).to_string();
        api.kubectl(&["patch", "pod", "here", "--subresource=status", "--type=merge", "-p", &patch]);
    };
    let here = |known: &Cluster| known.pods.iter().flatten().map(|(_, seen)| seen.pod.clone()).find(|pod| pod.name == "here");
    status(json!({ "phase": "Running", "podIP": "10.244.1.7", "podIPs": [{ "ip": "10.244.1.7" }] }));
    agent.until("the pod's address", |known| here(known).is_some_and(|pod| pod.addresses.len() == 1 && !pod.finished));
    status(json!({ "phase": "Succeeded" }));
    agent.until("the pod's end", |known| here(known).is_some_and(|pod| pod.finished && pod.addresses.len() == 1));
    apply(api, &pod("second", NODE));
    apply(api, &pod("other", "n2"));
    agent.until("the second pod", |known| pods(known) == ["here", "second"]);
    api.kubectl(&["delete", "pod", "here", "--force", "--grace-period=0"]);
    agent.until("the pod is gone", |known| pods(known) == ["second"]);
}

fn hear_of_dismissal(api: &ApiServer, agent: &mut Agent) {
    api.kubectl(&["label", "node", NODE, "role=other", "--overwrite"]);
    agent.until("the node left the selector", Cluster::dismissed);
    api.kubectl(&["label", "node", NODE, "role=worker", "--overwrite"]);
    agent.until("the node is back", |known| !known.dismissed());
    apply(api, &daemonset("other"));
    agent.until("the selector left the node", Cluster::dismissed);
    apply(api, &daemonset("worker"));
    agent.until("the selector is back", |known| !known.dismissed());
    api.delete(&["daemonset", "-n", AGENTS, "egressd"]);
    agent.until("the DaemonSet is gone", Cluster::dismissed);
}

pub fn definitions_may_come_late() {
    let api = ApiServer::start();
    apply(&api, &node(NODE));
    apply(&api, &pod("here", NODE));
    let mut agent = agent(&api);
    agent.until("what is missing", |known| {
        ["egressbindings.egressd.dev", "egresspools.egressd.dev"]
            .iter()
            .all(|resource| troubled(known, &format!("does not know {resource}; apply the CustomResourceDefinitions: egressd crd")))
    });
    agent.until("the pods", |known| pods(known) == ["here"]);
    assert!(!agent.cluster.whole(), "nothing is concluded from what was never listed");
    define(&api);
    apply(&api, &good_binding("a", "172.31.0.14"));
    agent.until("the binding", |known| bindings(known) == ["a"] && known.whole() && known.troubles.is_empty());
}

pub fn a_missing_right_is_named() {
    let api = ApiServer::start();
    define(&api);
    populate(&api);
    let role = |pools: &[&str]| {
        let rule = |group: &str, resources: Value, verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
        let both = &["list", "watch"];
        let rules = [
            rule("", json!(["namespaces", "pods", "nodes", "configmaps"]), both),
            rule("apps", json!(["daemonsets"]), both),
            rule("egressd.dev", json!(["egressbindings"]), both),
            rule("egressd.dev", json!(["egresspools"]), if pools.is_empty() { &["get"] } else { pools }),
        ];
        let metadata = json!({ "name": "agent" });
        apply(&api, &json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules }));
    };
    role(&[]);
    api.kubectl(&["create", "clusterrolebinding", "agent", "--clusterrole=agent", "--user=agent"]);
    let mut agent = Agent::start(&api.user("agent", "/CN=agent"));
    let named =
        "not allowed to watch egresspools.egressd.dev; give the agent's ServiceAccount `list` and `watch` on egresspools.egressd.dev";
    agent.until("the right that is missing", |known| troubled(known, named));
    agent.until("the other kinds", |known| bindings(known) == ["a", "b"] && pods(known) == ["here"] && known.namespaces.is_some());
    assert_eq!(agent.cluster.troubles.len(), 1, "{:?}", agent.cluster.troubles);
    role(&["list"]);
    agent.listen(std::time::Duration::from_secs(5));
    assert!(agent.cluster.pools.is_none() && troubled(&agent.cluster, named));
    role(&["list", "watch"]);
    agent.until("all is well", |known| known.whole() && known.troubles.is_empty());
}

pub fn an_api_server_may_be_away() {
    let mut api = ApiServer::start();
    define(&api);
    populate(&api);
    let mut agent = agent(&api);
    agent.until_whole();
    assert_eq!(requests(&api, "watch", "egressbindings"), 1);
    api.kill();
    let heard = agent.until_away();
    assert_eq!(heard.len(), 1, "that is told once, and nothing else: {heard:?}");
    assert_eq!((bindings(&agent.cluster), pods(&agent.cluster)), (vec!["a", "b"], vec!["here"]));
    api.restart();
    // The agent does nothing meanwhile: all of this it has to find out when it comes back.
    apply(&api, &good_binding("a", "172.31.0.24"));
    api.delete(&["egb", "b"]);
    apply(&api, &good_binding("c", "172.31.0.16"));
    apply(&api, &pod("second", NODE));
    agent.until("all that happened", |known| {
        bindings(known) == ["a", "c"] && exit(known, "a") == address(24) && pods(known) == ["here", "second"]
    });
    agent.until_back();
    // The new server's memory begins after where the agent was: 410, and the whole list anew.
    let again =
        |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.contains("egressbindings") && uri.contains("sendInitialEvents"));
    let lists: std::collections::BTreeSet<String> = api
        .audit()
        .iter()
        .filter(|event| again(event) && event["user"]["username"] == "agent")
        .map(|event| event["auditID"].to_string())
        .collect();
    assert_eq!(lists.len(), 2, "one at the start, one after it was away");
}

pub fn a_silent_connection_is_noticed() {
    let api = ApiServer::start();
    define(&api);
    populate(&api);
    let mut agent = agent(&api);
    agent.until_whole();
    let drop = |verb: &str| command::run(&["iptables", verb, "INPUT", "-p", "tcp", "--dport", "6443", "-j", "DROP"]);
    // As when its machine loses power: nobody says that the connection is over. The agent waits for less than a watch's time.
    drop("-I");
    agent.until_away();
    drop("-D");
    apply(&api, &good_binding("c", "172.31.0.16"));
    agent.until("what happened meanwhile", |known| bindings(known) == ["a", "b", "c"]);
    agent.until_back();
}

pub fn a_status_wakes_nobody() {
    let api = ApiServer::start();
    define(&api);
    populate(&api);
    let mut agent = agent(&api);
    agent.until_whole();
    agent.until("what is inside is known", |known| known.inside.len() == 2);
    let patch = |what: &[&str], patch: Value| {
        api.kubectl(&[&["patch", "--subresource=status", "--type=merge", "-p", &patch.to_string()], what].concat());
    };
    patch(&["egb", "a"], json!({ "status": { "summary": { "workloads": 7 }, "exits": ["172.31.0.14"] } }));
    api.kubectl(&["annotate", "egb", "a", "note=nothing"]);
    patch(&["pod", "here"], json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }));
    patch(&["egp", "public"], json!({ "status": { "addresses": 16 } }));
    patch(&["node", NODE], json!({ "status": { "nodeInfo": null, "conditions": [{ "type": "Ready", "status": "True" }] } }));
    // Each stream is in order: what comes behind the updates shows that they were read.
    apply(&api, &good_binding("z", "172.31.0.16"));
    apply(&api, &pod("z", NODE));
    apply(&api, &pool("z", json!({ "blocks": [{ "cidr": "172.31.0.32/28" }] })));
    api.kubectl(&["label", "node", NODE, "zone=z"]);
    let heard = agent.until("what came last", |known| {
        bindings(known).contains(&"z")
            && pods(known).contains(&"z")
            && known.pools.as_ref().is_some_and(|pools| pools.contains_key("z"))
            && known.node.labels.contains_key("zone")
    });
    let told: Vec<String> = heard
        .into_iter()
        .filter_map(|change| match change {
            ClusterChange::Bindings(Update::One(binding)) => Some(format!("binding {}", binding.name)),
            ClusterChange::Pods(Update::One(pod)) => Some(format!("pod {}", pod.name)),
            ClusterChange::Pools(Update::One(pool)) => Some(format!("pool {}", pool.name)),
            ClusterChange::Node(node) => Some(format!("node {}", node.name)),
            ClusterChange::Trouble { problem: None, .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ["binding z", "node n1", "pod z", "pool z"];
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(sorted, expected, "each once, and nothing else");
}

pub fn garbage_is_named() {
    let api = ApiServer::start();
    define(&api);
    populate(&api);
    // A definition of another version: it takes anything.
    let anything = json!({ "type": "object", "properties": { "spec": { "x-kubernetes-preserve-unknown-fields": true } } });
    for resource in ["egressbindings", "egresspools"] {
        let mut patch = json!([
            { "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": anything },
            { "op": "remove", "path": "/spec/versions/0/additionalPrinterColumns" },
        ]);
        let selectable = api.get(&["crd", &format!("{resource}.egressd.dev")])["spec"]["versions"][0]["selectableFields"].is_array();
        if selectable {
            patch.as_array_mut().expect("a list").push(json!({ "op": "remove", "path": "/spec/versions/0/selectableFields" }));
        }
        api.kubectl(&["patch", "crd", &format!("{resource}.egressd.dev"), "--type=json", "-p", &patch.to_string()]);
    }
    let taken = |object: &Value| {
        let start = std::time::Instant::now();
        // A definition's change takes a moment to be in force.
        while let Err(error) = api.try_apply(&object.to_string()) {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "{error}");
        }
    };
    taken(&binding("nobody", json!({ "podSelector": 7, "exits": [{ "address": "172.31.0.14" }] })));
    taken(&binding("newer", json!({ "podSelector": {}, "exits": [{ "address": "172.31.0.14" }], "whenUnavailable": "Queue" })));
    taken(&pool("odd", json!({ "blocks": { "all": true } })));
    let mut agent = agent(&api);
    agent.until_whole();
    let known = &agent.cluster;
    assert!(troubled(known, "EgressBinding default/nobody: spec.podSelector: "), "{:?}", known.troubles);
    assert_eq!(bindings(known), ["a", "b", "newer"]);
    let errors = |name: &str| {
        let bindings = known.bindings.as_ref().expect("they are listed");
        bindings[&format!("default/{name}")].binding.errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
    };
    assert_eq!((errors("newer"), errors("a").len()), (vec!["spec.whenUnavailable".to_owned()], 0));
    let pools = known.pools.as_ref().expect("they are listed");
    assert_eq!((pools["odd"].errors.len(), pools["public"].errors.len()), (1, 0));
    // One that turns into garbage stays what it was, and one that is repaired is told.
    taken(&binding("b", json!({ "podSelector": "who", "exits": [{ "address": "172.31.0.15" }] })));
    agent.until("the one that turned bad", |known| troubled(known, "EgressBinding default/b: spec.podSelector: "));
    assert_eq!(exit(&agent.cluster, "b"), address(15));
    apply(&api, &good_binding("b", "172.31.0.17"));
    apply(&api, &good_binding("nobody", "172.31.0.18"));
    agent.until("both are well", |known| {
        known.troubles.is_empty() && exit(known, "b") == address(17) && exit(known, "nobody") == address(18)
    });
}
