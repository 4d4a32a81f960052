//! `kubectl apply` moves pods to the right uplink and address, and `kubectl delete` moves them back.

use std::collections::BTreeSet;

use serde_json::json;
use world::{
    Cluster, Nic, Scenario, Subnets,
    cluster::{NODES, Pod, until},
    image,
    layout::{PORTS, SERVER, SERVER_B},
    talk,
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the examples move a Deployment's pods, and deleting them moves them back", the_examples_do_what_they_say),
        Scenario::new(
            "a binding is for the destinations and ports that it names alone, and without the runtime's socket pods are bound by the API server",
            applied,
        ),
    ]
}

/// One after the other in one cluster.
fn applied() {
    let cluster = Cluster::builder().build();
    let [on_n1, on_n2, before] = cluster.run_all([("some-n1", "n1", "some"), ("some-n2", "n2", "some"), ("before", "n1", "crawler")]);
    cluster.node("n1").leaves_by(&before.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    some_traffic(&cluster, &[on_n1, on_n2]);
    cluster.let_go();
    without_the_runtime(&cluster, &before);
}

fn the_examples_do_what_they_say() {
    let cluster = Cluster::builder().subnets(Subnets::One).build();
    // The registry that the Deployment's image is named for is out of reach.
    cluster.import_image(&image::archive(&[("docker.io/library/busybox:1.36", &image::IDLE)], &[]));
    let folder = format!("{}/examples/kubernetes", env!("CARGO_MANIFEST_DIR"));
    cluster.api.kubectl(&["apply", "-f", &format!("{folder}/2-namespace.yaml")]);
    cluster.api.await_rollout(&["-n", "shop", "deployment", "crawler"]);
    let pods = cluster.pods("shop", "app=crawler");
    assert_eq!(pods.len(), 2, "{pods:#?}");
    for pod in &pods {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    }

    cluster.install(&[]);
    cluster.api.kubectl(&["apply", "-f", &folder]);
    cluster.api.await_object(&["-n", "shop", "egressbinding", "crawler"], |binding| binding["status"]["summary"]["programmed"] == 2);
    assert_eq!(
        cluster.pods("shop", "app=crawler").iter().map(|pod| &pod.uid).collect::<BTreeSet<_>>(),
        uids(&pods),
        "none is started anew"
    );
    for pod in &pods {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
    }
    println!("{}", cluster.api.kubectl(&["get", "egressbindings,egresspools,pods", "-n", "shop", "-o", "wide"]));

    cluster.api.kubectl(&["delete", "-f", &format!("{folder}/3-binding.yaml")]);
    for pod in &pods {
        until("it leaves as ever", || cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth0));
    }
    // Until then it is in use, and may not be deleted.
    cluster.api.await_object(&["egresspool", "public"], |pool| pool["status"]["bindings"].as_u64().unwrap_or(0) == 0);
    cluster.api.kubectl(&["delete", "--timeout=90s", "--ignore-not-found", "-f", &folder]);
    cluster.api.try_get(&["namespace", "shop"]).expect_err("it is gone");
}

fn uids(pods: &[Pod]) -> BTreeSet<&String> {
    pods.iter().map(|pod| &pod.uid).collect()
}

fn some_traffic(cluster: &Cluster, pods: &[Pod; 2]) {
    let [_, middle, last] = PORTS;
    let everything: Vec<Way> = [SERVER, SERVER_B]
        .into_iter()
        .flat_map(|server| [middle, last].into_iter().flat_map(move |port| ["TCP", "UDP"].map(|protocol| (server, port, protocol))))
        .collect();
    let by_eth1 = |pod: &Pod| everything.iter().copied().filter(|way| nic(cluster, pod, *way) == Nic::Eth1).collect::<Vec<_>>();
    for pod in pods {
        assert_eq!(by_eth1(pod), [], "without egressd all leaves by eth0");
    }
    cluster.install(&[]);
    cluster.api.apply(&cluster.pool("pool-some", Nic::Eth1));
    let only = |to, ports| {
        let addresses = NODES.map(|node| cluster.node(node).layout.address(Nic::Eth1));
        let pool = json!({ "name": "pool-some", "addresses": addresses });
        let spec = json!({ "podSelector": { "matchLabels": { "app": "some" } }, "pool": pool, "to": to, "ports": ports });
        let binding =
            json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "metadata": { "name": "some" }, "spec": spec });
        cluster.api.apply(&binding.to_string());
    };
    let right = |expected: &[Way]| {
        for pod in pods {
            until("what it is for leaves by eth1, and nothing else", || match by_eth1(pod) {
                ways if ways == expected => Ok(()),
                ways => Err(format!("{}: {ways:?} by eth1", pod.name)),
            });
        }
    };
    only(json!([{ "cidr": "203.0.113.0/24" }]), json!([{ "protocol": "TCP", "port": middle }]));
    right(&[(SERVER_B, middle, "TCP")]);
    only(json!([{ "cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"] }]), json!([{ "protocol": "UDP", "port": middle, "endPort": last }]));
    right(&[(SERVER, middle, "UDP"), (SERVER, last, "UDP")]);
    for node in cluster.nodes() {
        assert!(node.foreign().is_empty(), "{}: {}", node.name, node.foreign());
    }
}

/// Server, port, protocol.
type Way = (std::net::Ipv4Addr, u16, &'static str);

/// The NIC by which all of a call left, whose address the server saw.
fn nic(cluster: &Cluster, pod: &Pod, (server, port, protocol): Way) -> Nic {
    let ask = if protocol == "TCP" { talk::ask_tcp } else { talk::ask_udp };
    let node = cluster.node(&pod.node);
    let (peer, seen) = node.watch(|| ask(&pod.netns, (server, port).into()));
    let peer = peer.unwrap_or_else(|error| panic!("{server}:{port} by {protocol}: {error}; left: {seen}"));
    let nic = Nic::ALL.into_iter().find(|nic| peer.ip() == node.layout.eip(*nic)).expect("it has no other addresses");
    assert_eq!(seen.0.keys().copied().collect::<Vec<_>>(), [(nic, node.layout.address(nic).into())]);
    nic
}

/// A pod is bound once the API server knows its address.
fn without_the_runtime(cluster: &Cluster, before: &Pod) {
    cluster.upgrade(&["--set=runtime.socket="]).unwrap_or_else(|error| panic!("{error}"));
    let set = cluster.api.get(&["-n", world::cluster::NAMESPACE, "daemonset", "egressd"]);
    assert!(!set.to_string().contains("containerd"), "nothing of the runtime is mounted: {set:#}");
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 1);
    let [free, on_n1, on_n2] = cluster.run_all([("free", "n1", "free"), ("later-n1", "n1", "crawler"), ("later-n2", "n2", "crawler")]);
    cluster.await_programmed("crawler", 3);
    for pod in [&on_n1, &on_n2, before] {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
    }
    cluster.node("n1").leaves_by(&free.netns, Nic::Eth0).expect("it is not bound");
    cluster.api.kubectl(&["label", "pod", "before", "app=other", "--overwrite"]);
    until("it is not bound any more", || cluster.node("n1").leaves_by(&before.netns, Nic::Eth0));
}
