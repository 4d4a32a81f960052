//! The label `egress.guard` of a network decides about containers that nobody vouches for.

use world::{
    Engine, Nic, Scenario, World,
    layout::{PORT, SERVER},
};

use crate::support::{await_state, fails_without_egressd, for_each_engine, label};

pub fn scenarios() -> Vec<Scenario> {
    for_each_engine("a container that is started while egressd is dead has a way out where egress.guard says off only", newcomers)
}

fn newcomers(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    // On a network with no bound container only the label makes a guard.
    for (network, guard, bound) in [("on", Some("on"), false), ("off", Some("off"), true), ("unsaid", None, true), ("idle", None, false)] {
        let label_of_network = guard.map(|guard| format!("--label=egress.guard={guard}"));
        docker.cli(&["network", "create"].into_iter().chain(label_of_network.as_deref()).chain([network]).collect::<Vec<_>>());
        if bound {
            docker.run(&format!("bound-{network}"), &["--network", network, &label(&world, Nic::Eth1)]);
        }
    }
    fails_without_egressd(&docker, &["--network=on"], |netns| world.leaves_not_at_all(netns));
    world.leaves_by(&docker.netns("bound-off"), Nic::Eth1).expect_err("without egressd it leaves by eth0");
    let mut egressd = world.egressd_for_docker();
    await_state(&world, "bound-off", "Bound");
    egressd.kill();
    for network in ["on", "off", "unsaid", "idle"] {
        docker.run(&format!("late-{network}"), &["--network", network]);
    }
    let leaves = |name: &str| world.leaves_by_to(&docker.netns(name), Nic::Eth0, (SERVER, PORT).into());
    for network in ["off", "idle"] {
        leaves(&format!("late-{network}")).unwrap_or_else(|error| panic!("network {network} is open: {error}"));
    }
    for network in ["on", "unsaid"] {
        world.leaves_not_at_all(&docker.netns(&format!("late-{network}"))).unwrap_or_else(|error| panic!("it is guarded: {error}"));
    }
    world.leaves_by_to(&docker.netns("bound-off"), Nic::Eth1, (SERVER, PORT).into()).expect("bound ones stay bound on an open network");
    egressd.start();
    for network in ["on", "unsaid"] {
        let name = format!("late-{network}");
        await_state(&world, &name, "Unbound");
        leaves(&name).unwrap_or_else(|error| panic!("egressd knows it: {error}"));
    }
}
