//! The test world itself: what later tests trust has to be seen to work, and to notice what is wrong.

use std::{net::IpAddr, process::ExitCode};

use world::{
    Nic, Scenario, Subnets, World,
    layout::{PORT, SERVER, SERVER6},
    talk,
};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(
            format!("{subnets:?}: the host leaves by eth0 and the internet sees its elastic address"),
            move || the_host_leaves_by_eth0(subnets),
        ));
        scenarios.push(Scenario::new(
            format!("{subnets:?}: a foreign source is counted and dropped"),
            move || a_foreign_source_is_counted_and_dropped(subnets),
        ));
    }
    world::harness::main(scenarios)
}

fn the_host_leaves_by_eth0(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    for server in [IpAddr::from(SERVER), SERVER6.into()] {
        let own = world.layout.private(Nic::Eth0, server);
        let (peer, seen) = world.watch(|| talk::ask_tcp(&world.host, (server, PORT).into()));
        assert_eq!(peer.expect("it is answered").ip(), world.layout.public(Nic::Eth0, server));
        assert!(seen.count(Nic::Eth0, own) > 0, "{seen}");
        let peer = talk::ask_udp(&world.host, (server, PORT).into());
        assert_eq!(peer.expect("it is answered").ip(), world.layout.public(Nic::Eth0, server));
        assert!(world.foreign().is_empty(), "{}", world.foreign());
    }
}

fn a_foreign_source_is_counted_and_dropped(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    for server in [IpAddr::from(SERVER), SERVER6.into()] {
        let other = world.layout.private(Nic::Eth1, server);
        let (peer, seen) = world.watch(|| talk::ask_udp_from(&world.host, (other, 0).into(), (server, PORT).into()));
        assert!(peer.is_err(), "eth1's address passed by eth0: {peer:?}");
        assert_eq!(seen.foreign(world.layout).count(Nic::Eth0, other), 1, "{seen}");
    }
    assert!(world.guests.list().is_empty(), "{:?}", world.guests.list());
}
