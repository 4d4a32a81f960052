//! A reboot: Docker starts containers again before egressd runs, and nothing of the kernel's state is there.

use std::{net::IpAddr, thread, time::Duration};

use world::{
    Docker, Engine, Nic, Scenario, World, command,
    docker::{self, IMAGE},
    layout::SERVER,
    s1, talk,
};

use crate::support::{BOUND_PORT, FREE_PORT, await_some, for_each_engine, label, sender, sends};

/// On a tmpfs here; on a disk for an operator.
const FILE: &str = "/run/world/guard.json";

pub fn scenarios() -> Vec<Scenario> {
    for_each_engine("after a reboot nobody leaves by the wrong way before egressd runs", nobody_leaves_before_egressd_runs)
}

fn nobody_leaves_before_egressd_runs(engine: Engine) {
    let world = World::builder().build();
    let mut docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let (volume, bound) = (sender(), label(&world, Nic::Eth1));
    run(&docker, "bound", BOUND_PORT, &[&volume, &bound]);
    run(&docker, "free", FREE_PORT, &[&volume]);

    let mut egressd = world.egressd(&["--docker-socket", docker::SOCKET, "--boot-guard", FILE]);
    answered(&docker, "bound", BOUND_PORT, Nic::Eth1);
    answered(&docker, "free", FREE_PORT, Nic::Eth0);
    await_some("the bridge is remembered", || std::fs::read_to_string(FILE).ok()?.contains(s1::NETWORK).then_some(()));

    // Without the guard the bound container's packets leave by eth0 as soon as Docker runs.
    egressd.kill();
    power_cycle(&world, &mut docker);
    docker.start();
    answered(&docker, "bound", BOUND_PORT, Nic::Eth0);

    power_cycle(&world, &mut docker);
    let told = world.egressctl(&["guard", "--boot-guard", FILE]).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains(s1::NETWORK), "{told}");
    world.forget();
    let astray = by(&world, Nic::Eth0);
    docker.start();
    await_some("both run again", || (docker.cli(&["ps", "-q"]).lines().count() == 2).then_some(()));
    // They send without pause meanwhile.
    thread::sleep(Duration::from_millis(500));
    assert!(world.seen().is_empty(), "before egressd runs: {} left", world.seen());

    egressd.start();
    answered(&docker, "bound", BOUND_PORT, Nic::Eth1);
    answered(&docker, "free", FREE_PORT, Nic::Eth0);
    assert_eq!(by(&world, Nic::Eth0), astray, "not one packet of the bound container more by eth0");
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    await_some("the guard of the boot is gone", || (!command::run(&["nft", "list", "ruleset"]).contains("boot_guard")).then_some(()));
}

fn run(docker: &Docker, name: &str, port: u16, options: &[&str]) {
    let first = ["run", "-d", "--restart=always", "--stop-timeout=0", "--network", s1::NETWORK, "--name", name];
    let program = sends("always", port);
    let all = first.iter().chain(options).copied().chain([IMAGE]).chain(program.iter().map(String::as_str));
    docker.cli(&all.collect::<Vec<_>>());
}

/// What a reboot takes: the engine, our state in the kernel, the bridge. What is on a disk stays.
fn power_cycle(world: &World, docker: &mut Docker) {
    docker.kill();
    world.cleanup();
    world.host.ip(&format!("link del {}", s1::NETWORK));
}

/// How many questions of the bound container the server saw by this NIC.
fn by(world: &World, nic: Nic) -> usize {
    let peer = IpAddr::from(nic.eip());
    world.guests.list().iter().filter(|(at, from)| at.port() == BOUND_PORT && from.ip() == peer).count()
}

fn answered(docker: &Docker, name: &str, port: u16, nic: Nic) {
    let ask = || talk::ask_udp(&docker.netns(name), (SERVER, port).into()).ok().filter(|peer| peer.ip() == IpAddr::from(nic.eip()));
    await_some(&format!("{name} is answered as by {nic:?}"), ask);
}
