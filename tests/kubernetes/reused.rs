//! A pod's address is another pod's at once: the exit goes with the pod and not with the address.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, until},
    layout::{PORT, SERVER},
    sender, talk,
};

/// How often an address changes from a bound pod to one that is not.
fn turns() -> usize {
    world::count(3, 20)
}

pub fn scenarios() -> Vec<Scenario> {
    let name =
        "an address that goes from pod to pod takes no exit along, and a finished pod that still shows it never touches who has it now";
    let run = || {
        let cluster = cluster();
        from_pod_to_pod(&cluster);
        finished_pods_touch_nobody(&cluster);
    };
    vec![Scenario::new(name, run).shown()]
}

fn from_pod_to_pod(cluster: &Cluster) {
    let mut address = None;
    for turn in 0..turns() {
        for (app, nic) in [("crawler", Nic::Eth1), ("web", Nic::Eth0)] {
            let name = format!("{app}-{turn}");
            address = Some(takes(cluster, &name, app, address));
            sends_only_by(cluster, &name, nic);
            cluster.api.delete(&["pod", &name]);
        }
    }
    println!("{} pods in turn with the address {}, each by its own NIC alone", 2 * turns(), address.expect("there were some"));
}

fn finished_pods_touch_nobody(cluster: &Cluster) {
    for (app, successor, nic) in [("crawler", "web", Nic::Eth0), ("web", "crawler", Nic::Eth1)] {
        let name = format!("finished-{app}");
        cluster.api.apply(&pod(&name, app, "once").to_string());
        let finished = cluster.api.await_object(&["pod", &name], |pod| pod["status"]["phase"] == "Succeeded");
        let address = address_of(&finished);
        let next = format!("next-{successor}");
        assert_eq!(takes(cluster, &next, successor, Some(address)), address);
        assert_eq!(address_of(&cluster.api.get(&["pod", &name])), address, "the finished one still shows it");
        sends_only_by(cluster, &next, nic);
        cluster.node("n1").forget();
        // Its removal comes when the address is long another's.
        cluster.api.delete(&["pod", &name]);
        sends_only_by(cluster, &next, nic);
        cluster.api.delete(&["pod", &next]);
    }
}

/// A cluster in which pods with `app: crawler` leave by eth1, which without egressd they do not.
fn cluster() -> Cluster {
    let cluster = Cluster::builder().build();
    takes(&cluster, "control", "crawler", None);
    sends_only_by(&cluster, "control", Nic::Eth0);
    cluster.api.delete(&["pod", "control"]);
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.api.await_condition(&["egressbinding", "crawler"], "Accepted");
    cluster
}

/// Starts a pod on n1 that sends all the time, and returns its address: this one, if one is asked for.
fn takes(cluster: &Cluster, name: &str, app: &str, address: Option<Ipv4Addr>) -> Ipv4Addr {
    let n1 = cluster.node("n1");
    if let Some(address) = address {
        n1.next_address(address);
    }
    n1.forget();
    cluster.api.apply(&pod(name, app, "always").to_string());
    let own = cluster.pod("default", name).address;
    assert!(address.is_none_or(|address| address == own), "{name} has {own}, not {address:?}");
    own
}

/// From its first packet on, all that left n1 did so by this NIC with its address.
fn sends_only_by(cluster: &Cluster, name: &str, nic: Nic) {
    let n1 = cluster.node("n1");
    let netns = cluster.pod("default", name).netns;
    // More than it has sent so far, and answered.
    let least = n1.seen().by(nic) + 20;
    until(&format!("{name} sends by {}", nic.name()), || {
        let seen = n1.seen();
        let own = seen.count(nic, n1.layout.address(nic).into());
        assert!(seen.is_empty() || (own > 0 && seen.0.len() == 1), "{name} is to leave by {}: {seen}", nic.name());
        if own >= least { Ok(()) } else { Err(seen.to_string()) }
    });
    let peer = talk::ask_tcp(&netns, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{name}: no answer: {error}"));
    assert_eq!(peer.ip(), IpAddr::from(n1.layout.eip(nic)), "{name}");
}

fn pod(name: &str, app: &str, how: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": app } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": "n1" },
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "sender", "image": IMAGE, "command": sender::sends(how, PORT) }],
        },
    })
}

fn address_of(pod: &Value) -> Ipv4Addr {
    pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok()).expect("it has an address")
}
