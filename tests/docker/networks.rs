//! Network modes and drivers that cannot be served, and containers on several networks.

use world::{
    Engine, Nic, Scenario, World,
    docker::IMAGE,
    layout::{PORT, SERVER},
};

use crate::support::{RELEASES, await_row, await_some, await_state, fails_without_egressd, for_each, label, rows};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each(&RELEASES, "networks that pass this host's routing by are refused with the reason", refused);
    scenarios.extend(for_each(
        &RELEASES,
        "a container on two bridge networks is bound on both, and followed from one to the other",
        followed,
    ));
    scenarios
}

fn refused(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    let _egressd = world.egressd_for_docker();
    world.host.ip("link add parent type veth peer name far
         link set parent up
         link set far up");
    docker.cli(&["network", "create", "-d", "macvlan", "-o", "parent=parent", "--subnet=10.9.0.0/24", "wide"]);
    docker.run("on-wide", &["--network=wide", &label(&world, Nic::Eth1)]);
    let row = await_state(&world, "on-wide", "Refused");
    let message = row["message"].as_str().unwrap_or_default();
    assert!(message.contains("macvlan") && message.contains("put the container on a bridge network"), "{row}");

    docker.run("plain", &[]);
    for (name, mode) in [("on-host", "host"), ("on-none", "none"), ("on-plain", "container:plain")] {
        let program = ["sleep", "1000"];
        let label = label(&world, Nic::Eth1);
        let options = ["run", "-d", "--stop-timeout=0", "--name", name, "--network", mode, &label, IMAGE];
        docker.cli(&options.into_iter().chain(program).collect::<Vec<_>>());
        let row = await_state(&world, name, "Refused");
        let message = row["message"].as_str().unwrap_or_default();
        let word = mode.split(':').next().unwrap_or_default();
        let cure = if word == "container" { "put the labels on that container" } else { "run it on a bridge network" };
        assert!(message.contains(word) && message.contains(cure), "{row}");
    }
    // They go the way that they would have gone.
    world.leaves_by_to(&docker.netns("plain"), Nic::Eth0, (SERVER, PORT).into()).expect("it asked for nothing");
}

fn followed(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    for (name, subnet) in [("alpha", "172.21.0.0/16"), ("beta", "172.22.0.0/16")] {
        docker.cli(&["network", "create", "--subnet", subnet, name]);
    }
    fails_without_egressd(&docker, &["--network=beta", &label(&world, Nic::Eth1)], |netns| world.leaves_by(netns, Nic::Eth1));
    let _egressd = world.egressd_for_docker();
    docker.run("both", &["--network=beta", &label(&world, Nic::Eth1)]);
    await_state(&world, "both", "Bound");
    world.leaves_by(&docker.netns("both"), Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));

    docker.cli(&["network", "connect", "alpha", "both"]);
    for network in ["alpha", "beta"] {
        await_row(&world, "both", |row| row["state"] == "Bound" && row["network"] == network);
    }
    // What Docker did with the default route is seen in the container.
    let route = docker.netns("both").run(&["ip", "route", "get", &SERVER.to_string()]);
    let carries = if route.contains("172.21.0.1") { "alpha" } else { "beta" };
    for row in rows(&world, "both") {
        assert_eq!(row["defaultRoute"], row["network"] == carries, "the default route is {route}: {row}");
    }
    world.leaves_by(&docker.netns("both"), Nic::Eth1).expect("whichever way it takes");

    docker.cli(&["network", "disconnect", "beta", "both"]);
    await_some("it is known on one network alone", || {
        let rows = rows(&world, "both");
        (rows.len() == 1 && rows[0]["network"] == "alpha" && rows[0]["state"] == "Bound").then_some(())
    });
    world.leaves_by(&docker.netns("both"), Nic::Eth1).expect("alpha carries it now");
    docker.cli(&["network", "disconnect", "alpha", "both"]);
    docker.cli(&["network", "connect", "--ip=172.21.0.77", "alpha", "both"]);
    await_row(&world, "both", |row| row["state"] == "Bound" && row["address"] == "172.21.0.77");
    world.leaves_by(&docker.netns("both"), Nic::Eth1).expect("with another address");
    docker.remove("both");
    await_some("it is forgotten", || rows(&world, "both").is_empty().then_some(()));
}
