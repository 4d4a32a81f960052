//! Docker's own NAT rules taken away and put back, and a masquerade ahead of it, while a bound container sends.

use world::{
    Docker, Engine, Nic, Scenario, World,
    docker::IMAGE,
    layout::{PORT, SERVER},
    s1,
    talk::{self, Flow},
};

use crate::support::{BOUND_PORT, await_some, await_state, for_each_engine, label, sender, sends};

pub fn scenarios() -> Vec<Scenario> {
    for_each_engine("NAT rules of others that come and go never give a bound container another source", others_rules)
}

/// Rules of others for what our container sends, by tool.
const MASQUERADE: [&[&str]; 2] = [
    &["iptables", "-t", "nat", "-I", "POSTROUTING", "1", "-j", "MASQUERADE"],
    &["iptables", "-t", "nat", "-I", "POSTROUTING", "1", "-s", "172.19.0.0/16", "-j", "SNAT", "--to-source", "172.31.0.8"],
];

fn others_rules(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let mut docker = world.docker(engine);
    s1::create_network(&world, &docker);
    run_sender(&world, &docker);
    world.host.run(MASQUERADE[0]);
    world.forget();
    // On a busy machine the next datagram of 50 a second may take a while.
    await_some("without egressd it leaves by eth0", || (world.seen().by(Nic::Eth0) > 0).then_some(()));
    docker.remove("bound");

    let _egressd = world.egressd_for_docker();
    run_sender(&world, &docker);
    await_state(&world, "bound", "Bound");
    let mut flow = Flow::open(&docker.netns("bound"), (SERVER, PORT).into()).expect("it is bound");
    world.forget();
    for rule in MASQUERADE {
        world.host.run(rule);
        still_bound(&world, &docker, &mut flow, &rule.join(" "));
    }
    world.host.run(&["iptables", "-t", "nat", "-F"]);
    still_bound(&world, &docker, &mut flow, "nat was flushed");
    // Docker puts its rules back when it starts; containers without a restart policy end with it.
    drop(flow);
    docker.restart();
    docker.cli(&["start", "bound"]);
    await_state(&world, "bound", "Bound");
    let mut flow = Flow::open(&docker.netns("bound"), (SERVER, PORT).into()).expect("it is bound again");
    still_bound(&world, &docker, &mut flow, "Docker put its rules back");
    let seen = world.seen();
    let right = seen.count(Nic::Eth1, world.layout.address(Nic::Eth1).into());
    assert!(seen.0.len() == 1 && right > 0, "not by eth1 alone: {seen}");
}

/// Sends all the time.
fn run_sender(world: &World, docker: &Docker) {
    let (volume, label) = (sender(), label(world, Nic::Eth1));
    let program = sends("always", BOUND_PORT);
    let options = ["run", "-d", "--stop-timeout=0", "--name=bound", "--network", s1::NETWORK, &volume, &label, IMAGE];
    docker.cli(&options.into_iter().chain(program.iter().map(String::as_str)).collect::<Vec<_>>());
}

/// An old connection goes on, a new one is made.
fn still_bound(world: &World, docker: &Docker, flow: &mut Flow, when: &str) {
    let seen = flow.ask().unwrap_or_else(|error| panic!("{when}: the connection ends ({error})"));
    assert_eq!(seen, flow.seen, "{when}: the connection keeps its source");
    let peer = talk::ask_tcp(&docker.netns("bound"), (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(peer.ip(), std::net::IpAddr::from(Nic::Eth1.eip()), "{when}");
    assert!(world.foreign().is_empty(), "{when}: {} left", world.foreign());
}
