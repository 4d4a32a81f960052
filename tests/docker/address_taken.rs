//! A bound container's address in other hands: a successor's, a neighbour's. The exit is not theirs.

use std::net::IpAddr;

use world::{
    Docker, Egressd, Engine, Nic, Scenario, World,
    docker::IMAGE,
    layout::{PORT, SERVER},
    s1, talk,
};

use crate::support::{await_some, await_state, fails_without_egressd, for_each_engine, label, sender, sends};

/// The bound container's address.
const ADDRESS: &str = "172.19.0.100";

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each_engine("an unbound successor of an address does not get its exit", a_successor_does_not_get_the_exit);
    scenarios.extend(for_each_engine("a neighbour that uses a bound container's address does not get its exit", a_spoofer_does_not_get_it));
    scenarios
}

fn a_successor_does_not_get_the_exit(engine: Engine) {
    let (world, docker, mut egressd, volume) = start(engine);
    run_bound(&world, &docker, &volume);
    docker.remove("bound");
    world.forget();
    run_successor(&docker, &volume);
    await_masqueraded(&docker);
    only_eth0(&world).unwrap_or_else(|error| panic!("egressd is alive: {error}"));
    docker.remove("successor");

    run_bound(&world, &docker, &volume);
    egressd.kill();
    docker.remove("bound");
    world.forget();
    run_successor(&docker, &volume);
    talk::ask_tcp(&docker.netns("successor"), (SERVER, PORT).into()).expect_err("nobody vouches for it");
    assert!(world.seen().is_empty(), "egressd is dead: {} left", world.seen());
    egressd.start();
    await_masqueraded(&docker);
    only_eth0(&world).unwrap_or_else(|error| panic!("egressd is started again: {error}"));
}

fn run_successor(docker: &Docker, volume: &str) {
    let options = ["run", "-d", "--stop-timeout=0", "--name", "successor", "--network", s1::NETWORK, "--ip", ADDRESS, volume, IMAGE];
    let program = sends("always", PORT);
    docker.cli(&options.into_iter().chain(program.iter().map(String::as_str)).collect::<Vec<_>>());
}

fn await_masqueraded(docker: &Docker) {
    let peer = await_some("the successor is answered", || talk::ask_udp(&docker.netns("successor"), (SERVER, PORT).into()).ok());
    assert_eq!(peer.ip(), IpAddr::from(Nic::Eth0.eip()), "the successor is masqueraded");
}

fn only_eth0(world: &World) -> Result<(), String> {
    let seen = world.seen();
    let right = seen.count(Nic::Eth0, world.layout.address(Nic::Eth0).into());
    if seen.0.len() == 1 && right > 0 { Ok(()) } else { Err(format!("not by eth0 alone: {seen}")) }
}

fn a_spoofer_does_not_get_it(engine: Engine) {
    let (world, docker, mut egressd, volume) = start(engine);
    run_bound(&world, &docker, &volume);
    docker.run("spoofer", &["--network", s1::NETWORK, &volume]);
    await_state(&world, "spoofer", "Unbound");
    let netns = docker.netns("spoofer");

    let ((), seen) = world.watch(|| send_as_bound(&docker, "bound"));
    assert!(seen.count(Nic::Eth1, world.layout.address(Nic::Eth1).into()) >= 10, "such packets of the owner do leave: {seen}");
    let never = |when: &str| {
        let ((), seen) = world.watch(|| send_as_bound(&docker, "spoofer"));
        assert!(seen.is_empty(), "{when}: {seen} left");
        world.leaves_by_to(&docker.netns("bound"), Nic::Eth1, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{when}: {error}"));
    };
    never("egressd is alive");
    netns.ip(&format!("addr add {ADDRESS}/32 dev eth0"));
    never("the neighbour has put the address on its interface");
    egressd.kill();
    never("egressd is dead");
    egressd.start();
    never("egressd was started while the neighbour has the address");
    world.leaves_by_to(&netns, Nic::Eth0, (SERVER, PORT).into()).expect("with its own address the neighbour is masqueraded");
}

fn send_as_bound(docker: &Docker, from: &str) {
    docker.cli(&["exec", from, "/sender", ADDRESS, &SERVER.to_string(), &PORT.to_string()]);
}

/// A world with egressd and another bound container, which keeps the bridge guarded whoever comes and goes.
fn start(engine: Engine) -> (World, Docker, Egressd, String) {
    let world = World::builder().build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let volume = sender();
    docker.run("other", &["--network", s1::NETWORK, &label(&world, Nic::Eth1)]);
    let to = (SERVER, PORT).into();
    world.leaves_by_to(&docker.netns("other"), Nic::Eth1, to).expect_err("without egressd it leaves by eth0");
    fails_without_egressd(&docker, &["--network", s1::NETWORK, &volume], |netns| {
        talk::ask_tcp(netns, to).expect("without egressd nothing holds whom nobody vouches for");
        let ((), seen) = world.watch(|| send_as_bound(&docker, "control"));
        if seen.is_empty() { Ok(()) } else { Err(format!("packets with another one's address leave: {seen}")) }
    });
    let egressd = world.egressd_for_docker();
    (world, docker, egressd, volume)
}

fn run_bound(world: &World, docker: &Docker, volume: &str) {
    docker.run("bound", &["--network", s1::NETWORK, "--ip", ADDRESS, &label(world, Nic::Eth1), volume]);
    await_state(world, "bound", "Bound");
    world.leaves_by_to(&docker.netns("bound"), Nic::Eth1, (SERVER, PORT).into()).expect("its address has the exit");
}
