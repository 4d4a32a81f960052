//! Bindings that get into each other's way, and what only an agent can find wrong with them. Each says so in its status, with the cure and
//! one Event, and the others go on.

use std::{net::Ipv4Addr, thread, time::Duration};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, Pod, until},
};

use crate::support::{await_failing, await_said, binding, events, pool};

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "of two bindings for one pod one wins, a pod follows what is so by now, and what only an agent can find wrong is told with its cure",
        bindings,
    )]
}

/// One after the other in one cluster.
fn bindings() {
    let cluster = Cluster::builder().build();
    let [crawler, other, good] = cluster.run_all(["crawler", "other", "good"].map(|app| (app, "n1", app)));
    let bad = bad_ones(&cluster);
    let pods = cluster.run_all(bad.each_ref().map(|one| (one.name, one.node, one.name)));
    for pod in pods.iter().chain([&crawler, &other, &good]) {
        let node = cluster.node(&pod.node);
        node.leaves_not_at_all(&pod.netns).expect_err("without egressd it leaves");
        node.leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    }
    cluster.install(&[]);
    who_wins(&cluster, &crawler, &other);
    cluster.let_go();
    bad_input(&cluster, &bad, &pods, &good);
}

fn who_wins(cluster: &Cluster, crawler: &Pod, other: &Pod) {
    for nic in Nic::ALL {
        cluster.api.apply(&cluster.pool(nic.name(), nic));
    }
    two_for_one_pod(cluster, crawler);
    renamed(cluster, crawler);
    made_anew(cluster, crawler);
    other_labels(cluster, other);
    host_network(cluster);
}

/// Asks for all addresses of a pool, which is named as its NIC.
fn by(cluster: &Cluster, nic: Nic) -> Value {
    let addresses = cluster.nodes().each_ref().map(|node| node.layout.address(nic));
    json!({ "pool": { "name": nic.name(), "addresses": addresses } })
}

fn leaves_by(cluster: &Cluster, pod: &Pod, nic: Nic) {
    cluster.node(&pod.node).leaves_by(&pod.netns, nic).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
}

fn two_for_one_pod(cluster: &Cluster, pod: &Pod) {
    cluster.api.apply(&binding("older", "crawler", &by(cluster, Nic::Eth1)));
    cluster.await_programmed("older", 1);
    // Of two that were made in one second the name decides.
    thread::sleep(Duration::from_millis(1100));
    cluster.api.apply(&binding("newer", "crawler", &by(cluster, Nic::Eth0)));
    let loses = |loser: &str, winner: &str| {
        let said = await_said(cluster, &["egressbinding", loser], "Programmed", "False", "Overlap");
        let words = format!("is bound by EgressBinding default/{winner}, which takes precedence; raise priority, or remove one");
        assert!(said.contains(&words), "{said}");
    };
    loses("newer", "older");
    leaves_by(cluster, pod, Nic::Eth1);

    let mut raised = by(cluster, Nic::Eth0);
    raised["priority"] = json!(1);
    cluster.api.apply(&binding("newer", "crawler", &raised));
    cluster.await_programmed("newer", 1);
    loses("older", "newer");
    leaves_by(cluster, pod, Nic::Eth0);

    cluster.api.delete(&["egressbinding", "newer"]);
    cluster.await_programmed("older", 1);
    leaves_by(cluster, pod, Nic::Eth1);
    assert_eq!(events(cluster, "newer"), ["Overlap", "Programmed"]);
    assert_eq!(events(cluster, "older"), ["Programmed", "Overlap"], "that it is programmed again is no news so soon");
}

/// A binding under another name, made before the first one goes: not a packet goes another way.
fn renamed(cluster: &Cluster, pod: &Pod) {
    let node = cluster.node(&pod.node);
    let trickle = node.trickle(&pod.netns, true);
    let seen = node.count(|| {
        cluster.api.apply(&binding("renamed", "crawler", &by(cluster, Nic::Eth1)));
        await_said(cluster, &["egressbinding", "renamed"], "Programmed", "False", "Overlap");
        cluster.api.delete(&["egressbinding", "older"]);
        cluster.await_programmed("renamed", 1);
    });
    assert!(seen.by(Nic::Eth1) > 0 && seen.by(Nic::Eth0) == 0, "while its binding is renamed: {seen}");
    node.forget();
    cluster.api.delete(&["egressbinding", "renamed"]);
    until("with no binding it leaves by eth0", || if node.seen().by(Nic::Eth0) > 0 { Ok(()) } else { Err(node.seen().to_string()) });
    drop(trickle);
}

/// A binding that is deleted and made again at once, with another exit: nothing of the first one is left.
fn made_anew(cluster: &Cluster, pod: &Pod) {
    cluster.api.apply(&binding("again", "crawler", &by(cluster, Nic::Eth0)));
    let before = cluster.await_programmed("again", 1);
    let anew = binding("again", "crawler", &by(cluster, Nic::Eth1));
    let replace = ["replace", "--force", "--grace-period=0", "-f", "-"];
    cluster.api.kubectl_as(&cluster.api.kubeconfig(), &replace, &anew).unwrap_or_else(|error| panic!("{error}"));
    let after = cluster.await_programmed("again", 1);
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "it is another object");
    leaves_by(cluster, pod, Nic::Eth1);
    let status = &cluster.api.get(&["egressbinding", "again"])["status"];
    let addresses = cluster.nodes().each_ref().map(|node| node.layout.address(Nic::Eth1));
    assert_eq!((&status["exits"], &status["observedGeneration"]), (&json!(addresses), &json!(1)));
}

/// A pod that gets a label while it runs is bound from then on, and no longer without it.
fn other_labels(cluster: &Cluster, pod: &Pod) {
    let node = cluster.node(&pod.node);
    leaves_by(cluster, pod, Nic::Eth0);
    cluster.api.kubectl(&["label", "--overwrite", "pod", &pod.name, "app=crawler"]);
    cluster.await_programmed("again", 2);
    leaves_by(cluster, pod, Nic::Eth1);
    cluster.api.kubectl(&["label", "--overwrite", "pod", &pod.name, "app=other"]);
    cluster.await_programmed("again", 1);
    until("it leaves as ever", || node.leaves_by(&pod.netns, Nic::Eth0));
}

/// A pod in the node's own network cannot have an exit of its own, and says so.
fn host_network(cluster: &Cluster) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "host", "labels": { "app": "host" } },
        "spec": {
            "nodeName": "n1",
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "probe", "image": IMAGE }],
        },
    });
    cluster.api.apply(&pod.to_string());
    cluster.api.apply(&binding("host", "host", &by(cluster, Nic::Eth1)));
    let said = await_said(cluster, &["egressbinding", "host"], "Programmed", "False", "NotServed");
    assert!(said.contains("spec.hostNetwork") && said.contains("remove it from the pod's spec"), "{said}");
    cluster.node("n1").leaves_by(cluster.node("n1").netns(), Nic::Eth0).unwrap_or_else(|error| panic!("the node itself: {error}"));
    assert_eq!(events(cluster, "host"), ["NotServed"]);
}

/// A binding that cannot be served, by a pool of its own.
struct Bad {
    name: &'static str,
    node: &'static str,
    /// Of its pool; none: there is no such pool.
    pool: Option<Value>,
    reason: &'static str,
    cure: &'static str,
}

fn block(address: Ipv4Addr) -> Value {
    json!([{ "start": address, "end": address }])
}

fn bad_ones(cluster: &Cluster) -> [Bad; 5] {
    let [n1, n2] = cluster.nodes().each_ref().map(|node| node.layout);
    let gateway = n1.gateway(Nic::Eth1);
    let (on_n1, on_n2) = (n1.address(Nic::Eth1), n2.address(Nic::Eth1));
    [
        Bad {
            name: "nobodys",
            node: "n1",
            pool: Some(json!({ "blocks": block(n1.neighbour(Nic::Eth1)), "gateway": gateway })),
            reason: "NoExitOnNode",
            cure: "give the binding one that this node has, or keep its pods off it",
        },
        Bad {
            name: "no-nic",
            node: "n1",
            pool: Some(json!({ "blocks": block(on_n1), "interface": "eth9", "gateway": gateway })),
            reason: "NoSuchInterface",
            cure: "there is no interface eth9; see ip link for the names",
        },
        Bad {
            name: "other-nic",
            node: "n1",
            pool: Some(json!({ "blocks": block(on_n1), "interface": "eth0" })),
            reason: "AddressNotOnInterface",
            cure: "is on eth1, not on eth0; name eth1, or leave the interface out",
        },
        // Nobody names the gateway of that NIC on this node, and it has no default route.
        Bad {
            name: "no-gateway",
            node: "n2",
            pool: Some(json!({ "blocks": block(on_n2) })),
            reason: "GatewayNotFound",
            cure: "eth1 has no default route, and no other NIC knows a router in its subnet; name its gateway",
        },
        Bad {
            name: "no-pool",
            node: "n1",
            pool: None,
            reason: "PoolNotFound",
            cure: "there is no EgressPool no-pool; see kubectl get egresspools for the names",
        },
    ]
}

/// What only an agent can find wrong is in status with its cure, and the other bindings go on.
fn bad_input(cluster: &Cluster, bad: &[Bad; 5], pods: &[Pod; 5], good: &Pod) {
    let n1 = cluster.node("n1").layout;
    let on_n1 = n1.address(Nic::Eth1);
    cluster.api.apply(&pool("good", &json!({ "blocks": block(on_n1), "gateway": n1.gateway(Nic::Eth1) })));
    let pools = bad.iter().filter_map(|one| Some((one.name, one.pool.as_ref()?)));
    pools.clone().for_each(|(name, fields)| cluster.api.apply(&pool(name, fields)));
    for (name, _) in pools {
        cluster.api.await_condition(&["egresspool", name], "Accepted");
    }
    for Bad { name, pool, .. } in bad {
        let address = pool.as_ref().map_or(json!(on_n1), |fields| fields["blocks"][0]["start"].clone());
        cluster.api.apply(&binding(name, name, &json!({ "pool": { "name": name, "addresses": [address] } })));
    }
    cluster.api.apply(&binding("good", "good", &json!({ "pool": { "name": "good", "addresses": [on_n1] } })));

    for (Bad { name, reason, cure, .. }, pod) in bad.iter().zip(pods) {
        let said = await_said(cluster, &["egressbinding", name], "Programmed", "False", reason);
        assert!(said.contains(cure), "{name}: {said}");
        let on_node = await_failing(cluster, name, 1, reason);
        assert!(on_node.contains(cure), "{name}: {on_node}");
        cluster.node(&pod.node).leaves_not_at_all(&pod.netns).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    cluster.await_programmed("good", 1);
    leaves_by(cluster, good, Nic::Eth1);
    for Bad { name, reason, .. } in bad {
        assert_eq!(events(cluster, name), [*reason], "{name}");
    }
}
