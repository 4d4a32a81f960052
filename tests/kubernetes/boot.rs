//! A node reboots: kubelet starts its pods again before an agent runs, and the kernel knows nothing of bindings.

use std::{fs, net::IpAddr, time::Duration};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, Pod, until},
    layout::{PORT, SERVER},
    sender, talk,
};

/// Where the chart has the agents remember what to guard.
const FILE: &str = "/var/lib/egressd/guard.json";
/// Pods that send all the time.
const SENDERS: u64 = 8;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("after a node's reboot nobody leaves by the wrong way before its agent runs, if it is guarded", reboot)
            .shown()
            .within(Duration::from_secs(240)),
    ]
}

fn reboot() {
    let mut cluster = Cluster::builder().build();
    cluster.install(&["--set=bootGuard.enabled=true"]);
    cluster.bind("crawler", Nic::Eth1);
    let senders: Vec<Value> = (0..SENDERS).map(sender_pod).collect();
    cluster.api.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": senders }).to_string());
    let free = cluster.run("free", "n1", &[]);
    cluster.await_programmed("crawler", SENDERS);
    let file = cluster.node("n1").path(FILE);
    until("the bridge is remembered", || match fs::read_to_string(&file) {
        Ok(text) if text.contains("cni0") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // An agent may be there ahead of the pods. So that it is not, its image is: as on a node that has to pull it first.
    cluster.node("n1").remove_agent();
    cluster.node_mut("n1").reboot();
    await_restarted(&cluster, 1);
    let n1 = cluster.node("n1");
    until("bound pods send before the agent runs", || if n1.seen().by(Nic::Eth0) > 0 { Ok(()) } else { Err(n1.seen().to_string()) });
    cluster.import_agent();
    await_bound(&cluster);
    println!("without the guard: {}", n1.seen());
    assert!(n1.foreign().is_empty(), "{}", n1.foreign());

    n1.remove_agent();
    cluster.node_mut("n1").reboot_with(|machine| {
        let told = machine.egressctl(&["guard", "--boot-guard", FILE]).unwrap_or_else(|error| panic!("{error}"));
        assert!(told.contains("cni0"), "{told}");
    });
    await_restarted(&cluster, 2);
    let n1 = cluster.node("n1");
    let held = talk::ask_udp(&sender(&cluster, 0).netns, (SERVER, PORT).into());
    assert!(held.is_err() && n1.seen().is_empty(), "{held:?}, {}", n1.seen());
    cluster.import_agent();
    await_bound(&cluster);
    let seen = n1.seen();
    println!("with the guard: {seen}");
    let own = seen.count(Nic::Eth1, n1.layout.address(Nic::Eth1).into());
    assert!(own > 0 && seen.0.len() == 1, "not all by eth1 with its address: {seen}");
    until("the guard of the boot is gone", || {
        let rules = n1.netns().run(&["nft", "list", "ruleset"]);
        if rules.contains("boot_guard") { Err(rules) } else { Ok(()) }
    });
    let free = cluster.pod(&free.namespace, &free.name);
    let peer = talk::ask_tcp(&free.netns, (SERVER, PORT).into()).expect("unbound pods have their way again");
    assert_eq!(peer.ip(), IpAddr::from(n1.layout.eip(Nic::Eth0)));
}

/// Waits until all senders run since so many reboots.
fn await_restarted(cluster: &Cluster, reboots: u64) {
    for number in 0..SENDERS {
        let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(reboots);
        cluster.api.await_object(&["pod", &name(number)], restarted);
    }
}

/// Waits until each sender is answered as by eth1.
fn await_bound(cluster: &Cluster) {
    let eip = IpAddr::from(cluster.node("n1").layout.eip(Nic::Eth1));
    for number in 0..SENDERS {
        let sender = sender(cluster, number);
        until(&format!("{} is bound", sender.name), || match talk::ask_udp(&sender.netns, (SERVER, PORT).into()) {
            Ok(peer) if peer.ip() == eip => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

fn sender(cluster: &Cluster, number: u64) -> Pod {
    cluster.pod("default", &name(number))
}

fn name(number: u64) -> String {
    format!("sender-{number}")
}

fn sender_pod(number: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name(number), "labels": { "app": "crawler" } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": "n1" },
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "sender", "image": IMAGE, "command": sender::sends("always", PORT) }],
        },
    })
}
