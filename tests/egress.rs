//! Who leaves how, with no engine: bound by namespace, by address or by subnet; and who is not bound as ever.
//!
//! Every check of packets is made twice in the same world: without egressd, where it has to fail, and with it.

use std::{net::IpAddr, process::ExitCode, thread, time::Duration};

use world::{
    Binding, Netns, Nic, Scenario, Subnets, World,
    layout::{PORT, SERVER, SERVER_B, SERVER6, SERVER6_B},
    talk,
};

fn main() -> ExitCode {
    // It takes a minute, and the others as long together.
    let mut scenarios = vec![Scenario::new("routers that forget their neighbours find the NICs again", routers_forget_their_neighbours)];
    for subnets in [Subnets::One, Subnets::Two] {
        for (who, yaml) in BY_ADDRESS {
            scenarios.push(Scenario::new(format!("{subnets:?}: {who} leaves by its NIC"), move || {
                an_address_leaves_by_its_nic(subnets, who, yaml)
            }));
        }
        for (how, exits) in EXITS {
            scenarios.push(Scenario::new(format!("{subnets:?}: a namespace leaves by its exit, {how}"), move || {
                a_namespace_leaves_by_its_exit(subnets, exits)
            }));
        }
        scenarios.push(Scenario::new(format!("{subnets:?}: what is inside stays untouched"), move || what_is_inside_stays(subnets)));
        scenarios.push(Scenario::new(format!("{subnets:?}: only the traffic that is asked for leaves by the exit"), move || {
            only_some_traffic_leaves_by_the_exit(subnets)
        }));
    }
    scenarios.push(Scenario::new("what is configured as inside is reached the host's way", what_is_configured_as_inside));
    world::harness::main_of_waiting(scenarios)
}

/// Bound sources that are found by their route or named with their interface.
const BY_ADDRESS: [(&str, &str); 4] = [
    ("a subnet behind another interface", "addresses: [10.9.0.0/24, 'fd10:9::/64']"),
    ("a subnet with its interface", "addresses: [{cidr: 10.9.0.0/24, interface: lan0}, {cidr: 'fd10:9::/64', interface: lan0}]"),
    ("a single address behind another interface", "addresses: [10.9.0.10/32, 'fd10:9::10/128']"),
    ("a single address on a bridge", "addresses: [172.28.0.10/32, 'fd72:0:0:1c::a/128']"),
];

fn an_address_leaves_by_its_nic(subnets: Subnets, who: &str, yaml: &str) {
    let world = World::builder().subnets(subnets).rp_filter(1).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let lan = world.lan();
    let netns = if who.contains("bridge") { blue.netns } else { lan.netns };
    assert_unbound(&world, &netns);
    world.bind(&Binding::new("routed", yaml).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    bound_everywhere(&world, &netns);
}

/// Ways to write an exit; A and B stand for the address and gateway of eth1.
const EXITS: [(&str, &str); 3] = [
    ("whose gateway is found", "{address: A}"),
    ("with its interface", "{address: A, interface: eth1, gateway: G}"),
    ("with its gateway", "{address: A, gateway: G}"),
];

fn a_namespace_leaves_by_its_exit(subnets: Subnets, exit: &str) {
    let builder = World::builder().subnets(subnets).rp_filter(1);
    let world = if exit.contains('G') { builder.build() } else { builder.default_by_eth1(700).build() };
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    let free = world.container("free", &bridge, 11).netns;
    assert_unbound(&world, &blue);
    let written = |like: &IpAddr| {
        let (address, gateway) = (world.layout.private(Nic::Eth1, *like), world.gateway(Nic::Eth1, *like));
        exit.replace('A', &format!("'{address}'")).replace('G', &format!("'{gateway}'"))
    };
    let exits: Vec<String> = world.servers().iter().map(written).collect();
    world.bind(&Binding::of(&blue).with(&format!("exits: [{}]", exits.join(", "))));
    let _egressd = world.egressd_alone();
    bound_everywhere(&world, &blue);
    assert_unbound(&world, &free);
}

fn what_is_inside_stays(subnets: Subnets) {
    let world = World::builder().subnets(subnets).rp_filter(1).build();
    let (one, other) = (world.bridge("plain0", 28), world.bridge("plain1", 29));
    world.masquerade(&one);
    world.masquerade(&other);
    let blue = world.container("blue", &one, 10);
    let beside = world.container("beside", &one, 11);
    let across = world.container("across", &other, 10);
    assert_unbound(&world, &blue.netns);
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    let before = world.state();
    let _egressd = world.egressd_alone();
    let difference = before.difference(&world.state());
    let foreign: Vec<&String> = difference.iter().filter(|line| line.starts_with("links") && line.contains("plain")).collect();
    assert!(foreign.is_empty(), "bridges are not ours to change: {foreign:?}");
    world.leaves_by(&blue.netns, Nic::Eth1).expect("outside, it is bound");
    for peer in [&beside, &across] {
        let guests = talk::serve(&peer.netns, &[peer.address.into(), peer.address6.into()], &[PORT]);
        let ((), seen) = world.watch(|| {
            for at in [IpAddr::from(peer.address), peer.address6.into()] {
                blue.ask_tcp((at, PORT)).expect("they are on the same host");
                blue.ask_udp((at, PORT)).expect("they are on the same host");
            }
        });
        assert!(seen.is_empty(), "{}: {seen}", peer.netns.name());
        let own = [IpAddr::from(blue.address), blue.address6.into()];
        // Between two bridges the world's masquerade stands, as an engine's would.
        let bridges_own = [IpAddr::from(other.address(1)), other.address6(1).into()];
        let sources = if peer.netns.name() == "across" { bridges_own } else { own };
        for (_, seen) in guests.list() {
            assert!(sources.contains(&seen.ip()), "{} saw {seen}", peer.netns.name());
        }
    }
}

fn only_some_traffic_leaves_by_the_exit(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    for (traffic, cases) in TRAFFIC {
        let inside: Vec<_> = cases.iter().filter(|(_, inside)| *inside).collect();
        for (at, _) in &inside {
            world.leaves_by_to(&blue, Nic::Eth1, at.parse().expect("an address")).expect_err("it is masqueraded");
        }
        let fields = traffic.iter().fold(Binding::of(&blue).to(&world, Nic::Eth1), |binding, field| binding.with(field));
        world.bind(&fields);
        let egressd = world.egressd_alone();
        for (at, inside) in cases {
            let nic = if *inside { Nic::Eth1 } else { Nic::Eth0 };
            let at = at.parse().expect("an address");
            world.leaves_by_to(&blue, nic, at).unwrap_or_else(|error| panic!("{traffic:?}: {error}"));
        }
        drop(egressd);
        world.cleanup();
    }
}

fn what_is_configured_as_inside() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    let free = world.container("free", &bridge, 11).netns;
    assert_unbound(&world, &blue);
    world.bind(&Binding::of(&blue).to(&world, Nic::Eth1));
    let leaves = |netns: &Netns, nic: Nic, server: IpAddr| {
        world.leaves_by_to(netns, nic, (server, PORT).into()).unwrap_or_else(|error| panic!("{server}: {error}"));
    };
    // Without it they leave by the exit, as does all that is outside.
    let egressd = world.egressd_alone();
    for server in [SERVER.into(), SERVER_B.into(), SERVER6.into(), IpAddr::from(SERVER6_B)] {
        leaves(&blue, Nic::Eth1, server);
    }
    drop(egressd);
    let inside = ["--inside", "198.51.100.0/24", "--inside", "198.51.100.10/32", "--inside", "2001:db8:10::/48"];
    let _egressd = world.egressd_alone_with(&inside);
    for server in [SERVER.into(), IpAddr::from(SERVER6)] {
        leaves(&blue, Nic::Eth0, server);
    }
    for server in [SERVER_B.into(), IpAddr::from(SERVER6_B)] {
        leaves(&blue, Nic::Eth1, server);
    }
    assert_unbound(&world, &free);
}

/// Fields of a binding, and servers with whether they are reached through its exit.
type Traffic = (&'static [&'static str], &'static [(&'static str, bool)]);
const TRAFFIC: [Traffic; 4] = [
    (
        &["to: [{cidr: 198.51.100.0/24}, {cidr: '2001:db8:10::/48'}]"],
        &[("198.51.100.10:8000", true), ("203.0.113.20:8000", false), ("[2001:db8:10::10]:443", true), ("[2001:db8:20::20]:443", false)],
    ),
    (
        &["to: [{cidr: 0.0.0.0/0, except: [203.0.113.0/24]}, {cidr: '::/0', except: ['2001:db8:20::/48']}]"],
        &[("198.51.100.10:8000", true), ("203.0.113.20:8000", false), ("[2001:db8:10::10]:443", true), ("[2001:db8:20::20]:443", false)],
    ),
    (
        &["ports: [{protocol: TCP, port: 8000, endPort: 8001}, {protocol: UDP, port: 8000, endPort: 8001}]"],
        &[("198.51.100.10:8000", true), ("198.51.100.10:8001", true), ("198.51.100.10:443", false), ("[2001:db8:10::10]:443", false)],
    ),
    (
        &["to: [{cidr: 198.51.100.0/24}]", "ports: [{protocol: TCP, port: 443}, {protocol: UDP, port: 443}]"],
        &[("198.51.100.10:443", true), ("198.51.100.10:8000", false), ("203.0.113.20:443", false)],
    ),
];

fn routers_forget_their_neighbours() {
    let world = World::builder().rp_filter(1).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    let free = world.container("free", &bridge, 11).netns;
    assert_unbound(&world, &blue);
    world.bind(&Binding::of(&blue).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    world.forget();
    // A minute, and a new question every five seconds.
    for _ in 0..12 {
        world.forget_neighbours();
        world.leaves_by(&blue, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
        world.leaves_by(&free, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
        thread::sleep(Duration::from_secs(5));
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

/// Without a binding: by eth0, as the world masquerades it; and so the check of the binding fails.
fn assert_unbound(world: &World, netns: &Netns) {
    world.leaves_by(netns, Nic::Eth0).expect("the world masquerades it");
    world.leaves_by(netns, Nic::Eth1).expect_err("it is not bound");
}

/// To the internet and to neighbours in the NICs' subnets.
fn bound_everywhere(world: &World, netns: &Netns) {
    for server in [SERVER.into(), SERVER_B.into(), SERVER6.into(), IpAddr::from(SERVER6_B)] {
        world.leaves_by_to(netns, Nic::Eth1, (server, PORT).into()).unwrap_or_else(|error| panic!("{error}"));
    }
    for neighbour in Nic::ALL {
        world.leaves_to_neighbour_by(netns, Nic::Eth1, neighbour).unwrap_or_else(|error| panic!("{error}"));
    }
}
