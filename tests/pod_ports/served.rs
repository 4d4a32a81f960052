//! Who is called, and who answers.

use std::net::IpAddr;

use serde_json::json;
use world::{
    Nic,
    cluster::until,
    published::{CALLED, Server, TARGET},
    talk::{Flow, ask_tcp, ask_udp},
};

use crate::node::{Lab, NODE, entry};

pub fn by_turn() {
    let mut lab = Lab::new();
    let [one, two, three] = [10, 11, 12].map(|number| lab.run("shop", number));
    let stranger = lab.run("mail", 13);
    lab.lend(&json!([{ "protocol": "TCP", "port": CALLED }]));
    lab.publish("shop", &json!([entry(CALLED)]), 0);
    ask_tcp(&lab.world.internet, lab.called(CALLED)).expect_err("nobody serves it without egressd");
    lab.leaves_by(&one, Nic::Eth1).expect_err("nobody is bound yet");

    lab.start();
    lab.await_said("shop", "Published", "True", "Published");
    lab.await_said("shop", "Ready", "True", "Programmed");
    let service = format!("tcp/{}:{CALLED}", lab.world.layout.address(Nic::Eth1));
    assert_eq!(lab.services("shop"), json!([{ "service": service, "node": NODE, "servers": 3, "ready": 3 }]));
    assert_eq!(lab.call(9, [&one, &two, &three, &stranger]), [3, 3, 3, 0]);
    lab.leaves_by(&one, Nic::Eth1).expect("it is bound");
    answers_by_the_exit_that_was_called(&lab);

    lab.restart_agent();
    assert_eq!(lab.call(6, [&one, &two, &three, &stranger]), [2, 2, 2, 0], "a restart changes nothing");

    // Its object stays, as its grace is not over and there is no kubelet.
    let mut flows: Vec<Flow> = (0..3).map(|_| Flow::open(&lab.world.internet, lab.called(CALLED)).expect("it is served")).collect();
    lab.api.kubectl(&["-n", "shop", "delete", "pod", two.at.netns.name(), "--wait=false"]);
    await_servers(&lab, 3, 2);
    assert_eq!(lab.call(8, [&one, &two, &three]), [4, 0, 4]);
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections go on, also those of the pod that ends");
    let shown = lab.world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains(&service) && shown.contains(&format!("{}:1234 (drains)", two.at.address)), "{shown}");

    lab.api.kubectl(&["-n", "shop", "delete", "pod", two.at.netns.name(), "--force", "--grace-period=0"]);
    lab.world.remove(two.at);
    await_servers(&lab, 2, 2);
    assert_eq!(lab.call(6, [&one, &three]), [3, 3]);

    // Without the binding the port is the node's own again.
    lab.api.kubectl(&["-n", "shop", "delete", "egressbinding", "web"]);
    until("nobody serves it", || match ask_tcp(&lab.world.internet, lab.called(CALLED)) {
        Ok(_) => Err("it is served".to_owned()),
        Err(_) => Ok(()),
    });
}

/// Health, datagrams and what a pod sees of its client, as containers have it; and an engine that this kernel lacks.
pub fn as_containers_are() {
    let mut lab = Lab::new();
    let [one, two] = [10, 11].map(|number| lab.run("shop", number));
    lab.lend(&json!([{ "protocol": "TCP", "port": 1, "endPort": 65535 }, { "protocol": "UDP", "port": CALLED }]));
    let healthy = json!({ "protocol": "TCP", "port": CALLED, "targetPort": TARGET, "health": { "tcp": {}, "intervalMilliseconds": 100 } });
    let datagrams = json!({ "protocol": "UDP", "port": CALLED, "targetPort": TARGET, "clientSource": "Masquerade" });
    lab.publish("shop", &json!([healthy, datagrams]), 0);
    lab.start();
    lab.await_said("shop", "Published", "True", "Published");
    await_servers(&lab, 2, 2);

    let gateway = IpAddr::from(lab.gateway());
    let clients = |server: &Server| server.guests.list().iter().filter(|(_, peer)| peer.ip() != gateway).count();
    let called = |times: usize| {
        let before = [&one, &two].map(clients);
        for _ in 0..times {
            ask_tcp(&lab.world.internet, lab.called(CALLED)).unwrap_or_else(|error| panic!("{error}"));
        }
        let after = [&one, &two].map(clients);
        [after[0] - before[0], after[1] - before[1]]
    };
    assert_eq!(called(6), [3, 3]);
    let refuse = ["iptables", "-I", "INPUT", "-p", "tcp", "--dport", "1234", "--syn", "-j", "REJECT", "--reject-with", "tcp-reset"];
    two.at.netns.run(&refuse);
    await_servers(&lab, 2, 1);
    assert_eq!(called(6), [6, 0], "who does not answer gets no new connection");
    two.at.netns.run(&["iptables", "-F", "INPUT"]);
    await_servers(&lab, 2, 2);
    assert_eq!(called(6), [3, 3]);

    let seen = ask_udp(&lab.world.internet, lab.called(CALLED)).expect("datagrams are served, too");
    assert_eq!(seen.ip(), gateway, "the pod sees its node");

    // Who asks for what the kernel lacks is told, and all else is served.
    let by_ipvs = json!({ "protocol": "TCP", "port": 80, "targetPort": TARGET, "engine": "Ipvs" });
    lab.publish("shop", &json!([healthy, by_ipvs]), 0);
    let told = lab.await_said("shop", "Published", "False", "NotServed");
    assert!(told.contains("spec.inbound[1].engine") && told.contains("modprobe ip_vs"), "{told}");
    assert_eq!(called(2), [1, 1]);
}

/// What leaves does so by eth1 with its address alone.
fn answers_by_the_exit_that_was_called(lab: &Lab) {
    let (answer, seen) = lab.world.watch(|| ask_tcp(&lab.world.internet, lab.called(CALLED)));
    let peer = answer.unwrap_or_else(|error| panic!("{error}; {seen}"));
    assert!(!lab.world.layout.own(Nic::Eth1).contains(&peer.ip()), "the pod sees its client's address: {peer}");
    let own = IpAddr::from(lab.world.layout.address(Nic::Eth1));
    let all: u64 = seen.0.values().sum();
    assert!(all > 0 && seen.count(Nic::Eth1, own) == all, "{seen}");
}

/// Waits until the binding's status has so many servers, and so many of them that get new connections.
fn await_servers(lab: &Lab, servers: u64, ready: u64) {
    until(&format!("{servers} servers, {ready} of them ready"), || {
        let services = lab.services("shop");
        if services[0]["servers"] == servers && services[0]["ready"] == ready { Ok(()) } else { Err(services.to_string()) }
    });
}
