//! A node reboots: kubelet starts its pods again before an agent runs, and the kernel knows nothing of bindings.

use std::{fs, net::IpAddr, time::Instant};

use serde_json::json;
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, until},
    layout::{PORT, SERVER},
    sender, talk,
};

/// Where the chart has the agents remember what to guard.
const FILE: &str = "/var/lib/egressd/guard.json";
/// Pods that send all the time.
const SENDERS: u64 = 8;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("after a node's reboot nobody leaves by the wrong way before its agent runs, if it is guarded", reboot).shown()]
}

fn reboot() {
    let mut cluster = Cluster::builder().build();
    cluster.install(&["--set=bootGuard.enabled=true"]);
    cluster.bind("crawler", Nic::Eth1);
    (0..SENDERS).for_each(|number| cluster.api.apply(&sender_pod(number).to_string()));
    let free = cluster.run("free", "n1", &[]);
    cluster.await_programmed("crawler", SENDERS);
    let file = cluster.node("n1").path(FILE);
    until("the bridge is remembered", || match fs::read_to_string(&file) {
        Ok(text) if text.contains("cni0") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let began = Instant::now();
    cluster.node_mut("n1").reboot();
    await_bound(&cluster, 1);
    let n1 = cluster.node("n1");
    let leaked = n1.seen();
    println!("without the guard, {:.1} s after power on: {leaked}", began.elapsed().as_secs_f64());
    assert!(leaked.by(Nic::Eth0) > 0, "bound pods send before the agent runs: {leaked}");
    assert!(n1.foreign().is_empty(), "{}", n1.foreign());

    let began = Instant::now();
    cluster.node_mut("n1").reboot_with(|machine| {
        let told = machine.egressctl(&["guard", "--boot-guard", FILE]).unwrap_or_else(|error| panic!("{error}"));
        assert!(told.contains("cni0"), "{told}");
    });
    await_bound(&cluster, 2);
    let n1 = cluster.node("n1");
    let seen = n1.seen();
    println!("with the guard, {:.1} s after power on: {seen}", began.elapsed().as_secs_f64());
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

/// Waits until all senders run since so many reboots, and each is answered as by eth1.
fn await_bound(cluster: &Cluster, reboots: u64) {
    for number in 0..SENDERS {
        let name = format!("sender-{number}");
        cluster.api.await_object(&["pod", &name], |pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(reboots));
        let sender = cluster.pod("default", &name);
        until(&format!("{name} is bound"), || match talk::ask_udp(&sender.netns, (SERVER, PORT).into()) {
            Ok(peer) if peer.ip() == IpAddr::from(cluster.node("n1").layout.eip(Nic::Eth1)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

fn sender_pod(number: u64) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("sender-{number}"), "labels": { "app": "crawler" } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": "n1" },
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "sender", "image": IMAGE, "command": sender::sends("always", PORT) }],
        },
    })
}
