//! A version is replaced by this one, under traffic: nothing leaves wrongly meanwhile, what it kept goes on, and nothing of it is left.
//!
//! `EGRESSD_FORMER` names the program of 0.1.0: then it runs itself, and once more in the end. With `UPDATE_GENERATED`, too, what it
//! leaves in the kernel is recorded.

mod former;

use std::{env, process::ExitCode};

use former::Former;
use world::{
    Binding, Container, Nic, Scenario, World,
    layout::{PORT, SERVER},
    talk::Flow,
};

fn main() -> ExitCode {
    let mut scenarios = vec![Scenario::new("what 0.1.0 left is taken over under traffic, and nothing of it stays", || upgrade(None))];
    if let Some(program) = env::var_os("EGRESSD_FORMER") {
        scenarios.push(Scenario::new("0.1.0 itself is replaced under traffic, and runs again after a cleanup", move || {
            upgrade(Some(program.as_ref()));
        }));
    }
    world::harness::main_of_waiting(scenarios)
}

fn upgrade(program: Option<&std::path::Path>) {
    // Strict filters, and nothing forwards: all that is set shows.
    let world = World::builder().rp_filter(1).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let [blue, some, free] = [("blue", 10), ("some", 11), ("free", 12)].map(|(name, number)| world.container(name, &bridge, number));
    let found = world.state();
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("nothing binds it yet");
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    world.bind(&Binding::of(&some.netns).to(&world, Nic::Eth1).with("to: [{cidr: 198.51.100.0/24}, {cidr: 2001:db8::/32}]"));
    let all_as_bound = |who: &str| {
        for (container, nic) in [(&blue, Nic::Eth1), (&some, Nic::Eth1), (&free, Nic::Eth0)] {
            world.leaves_by(&container.netns, nic).unwrap_or_else(|error| panic!("{who}: {error}"));
        }
    };
    let mut former = Former::start(&world, &found, program);
    all_as_bound("the former version");
    let mut kept = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    let mut egressd = under_traffic(&world, &blue, || {
        former.end();
        world.egressd_alone()
    });
    assert_eq!(kept.ask().expect("a flow goes on").ip(), Nic::Eth1.eip());
    all_as_bound("this version");
    egressd.stop();
    world.cleanup();
    found.assert_same(&world.state(), "nothing is left of either");
    if program.is_some() {
        // It does not know this version's flows, so they have ended with the rules.
        former = Former::start(&world, &found, program);
        all_as_bound("the former version again");
        former.end();
    }
}

/// Does it while the container sends all the time, in an open flow and in new ones: all of that leaves by its exit.
fn under_traffic<T>(world: &World, from: &Container, change: impl FnOnce() -> T) -> T {
    let trickle = world.trickle(&from.netns, true);
    world.forget();
    let changed = change();
    drop(trickle);
    let seen = world.seen();
    assert!(seen.by(Nic::Eth1) > 0 && seen.by(Nic::Eth0) == 0 && world.foreign().is_empty(), "{seen}");
    changed
}
