//! A container whose label names several exits: its flows are shared among them, and nobody else's are.

use std::{collections::BTreeMap, net::IpAddr};

use world::{
    Engine, Nic, Scenario, World,
    layout::{PORT, SERVER},
    s1,
    segment::Segment,
    talk::{Flow, peers},
};

use crate::support::{ANY, await_row, await_state, for_each};

/// The NIC that has the exits, and the number of its subnet.
const NIC: &str = "ens5";
const SUBNET: u8 = 5;

pub fn scenarios() -> Vec<Scenario> {
    for_each(&[ANY], "a label's exits are used by turn, each with its weight, and those that stay go on when one is lost", by_turn)
}

fn by_turn(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let segment = Segment::plug(&world, NIC);
    let router = segment.router(&world, SUBNET);
    let [heavy, lost, light] = [98, 99, 100].map(|number| segment.address(&world, SUBNET, number)[0]);
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let network = format!("--network={}", s1::NETWORK);
    let labels = [format!("ip={heavy}*2,{lost},{light}"), "spread=round-robin".to_owned(), format!("gateway={}", router.own()[0])];
    let labels = labels.map(|label| format!("--label=egress.{label}"));
    let [ip, spread, gateway] = labels.each_ref().map(String::as_str);
    let server = (SERVER, PORT).into();
    let seen = |name: &str, times: usize| peers(&[docker.netns(name)], server, times);
    let unbound = BTreeMap::from([(IpAddr::from(world.layout.eip(Nic::Eth0)), 4)]);
    docker.run("free", &[&network]);
    docker.run("control", &[&network, ip, spread, gateway]);
    assert_eq!([seen("free", 4), seen("control", 4)], [unbound.clone(), unbound.clone()], "without egressd");
    docker.remove("control");
    let _egressd = world.egressd_for_docker();
    docker.run("crawler", &[&network, ip, spread, gateway]);
    await_state(&world, "crawler", "Bound");
    let all = BTreeMap::from([(heavy, 10), (lost, 5), (light, 5)]);
    assert_eq!(seen("crawler", 20), all);
    assert_eq!(seen("free", 4), unbound);
    let crawler = docker.netns("crawler");
    let mut open: Vec<Flow> = (0..4).map(|_| Flow::open(&crawler, server).expect("it has a way out")).collect();
    open.retain(|flow| flow.seen.ip() != lost);
    assert_eq!(open.len(), 3, "one of four is by the exit that goes");
    world.host.ip(&format!("addr del {lost}/24 dev {NIC}"));
    let has = |exits: usize| await_row(&world, "crawler", |row| row["exits"].as_array().map(Vec::len) == Some(exits));
    has(2);
    assert_eq!(seen("crawler", 15), BTreeMap::from([(heavy, 10), (light, 5)]));
    assert_eq!(seen("free", 4), unbound);
    for flow in &mut open {
        assert_eq!(flow.ask().expect("it goes on"), flow.seen);
    }
    world.host.ip(&format!("addr add {lost}/24 dev {NIC}"));
    has(3);
    assert_eq!(seen("crawler", 20), all);
}
