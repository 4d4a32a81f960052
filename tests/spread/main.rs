//! Several exits for one binding: by turn, at random, by a hash; weights, draining, and exits that go.

mod forwarder;
mod ping;
mod size;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::ExitCode,
};

use world::{
    Binding, Container, Nic, Scenario, Seen, Subnets, World,
    layout::{PORT, SERVER},
    status::until,
    talk::{Flow, shout},
    traffic::nobody,
};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: three exits of one NIC by turn, exactly"), move || by_turn(subnets)));
        scenarios.push(Scenario::new(format!("{subnets:?}: exits of two NICs by turn, each by its own"), move || over_two_nics(subnets)));
    }
    scenarios.push(Scenario::new("weights are parts of a turn", weights));
    scenarios.push(Scenario::new("a subnet's flows are spread as well", a_subnet));
    scenarios.push(Scenario::new("random exits are all used", at_random));
    scenarios.push(Scenario::new("a hash of the source keeps a workload at one exit, also after a restart", by_source));
    scenarios.push(Scenario::new("a hash of the destination keeps a destination at one exit", by_destination));
    scenarios.push(Scenario::new("an exit that goes takes no new flow, and comes back", an_exit_goes));
    scenarios.push(Scenario::new("an exit that drains takes no new flow and keeps its open ones", draining));
    scenarios.push(Scenario::new("unbound, spread flows end", unbound));
    scenarios.push(Scenario::new("each echo stream of a subnet or a container keeps one exit, and streams are spread", ping::streams));
    scenarios.push(Scenario::new("3,000 connections by turn are six exits' alike, also of four senders at once", size::by_turn));
    scenarios.push(Scenario::new("3,000 connections have exactly their parts by weight", size::by_weight));
    scenarios.push(Scenario::new("3,000 connections at random are six exits' alike, and no turn", size::at_random));
    scenarios.push(Scenario::new("a binding whose exits exist in part, or not at all, harms no other one's turn", spoiled));
    scenarios.push(Scenario::new("a subnet of the internet that a binding names stops nobody's answers", forwarder::a_slip_beside_it));
    world::harness::main_of_waiting(scenarios)
}

/// Addresses of a NIC beside its own, by their number; they are added to it.
fn more(world: &World, nic: Nic, number: u8) -> [IpAddr; 2] {
    let [a, b, c, d] = world.layout.address(nic).octets();
    let v4 = Ipv4Addr::new(a, b, c, d + 16 + number);
    let mut segments = world.layout.address6(nic).segments();
    segments[7] += 0x100 + u16::from(number);
    let v6 = Ipv6Addr::from(segments);
    world.host.ip(&format!("addr add {v4}/20 dev {nic}\naddr add {v6}/64 dev {nic} nodad", nic = nic.name()));
    [v4.into(), v6.into()]
}

/// A masqueraded workload that is not bound yet.
fn stage(world: &World) -> Container {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    blue
}

fn bind(world: &World, who: &Container, exits: &[String], spread: &str) {
    let exits = exits.join(", ");
    world.bind(&Binding::of(&who.netns).with(&format!("exits: [{exits}]")).with(&format!("spread: {spread}")));
}

/// An address of a NIC, with the NIC's router.
fn exit(world: &World, nic: Nic, address: &IpAddr) -> String {
    format!("{{address: '{address}', gateway: '{}'}}", world.gateway(nic, *address))
}

/// The same, for some of eth1.
fn exits(world: &World, addresses: &[[IpAddr; 2]]) -> Vec<String> {
    addresses.iter().flatten().map(|address| exit(world, Nic::Eth1, address)).collect()
}

/// What leaves when a workload begins so many flows in each family.
fn begin(world: &World, from: &Container, flows: usize) -> Seen {
    let ((), seen) = world.watch(|| {
        for _ in 0..flows {
            from.shout_as(from.address.into());
            from.shout_as(from.address6.into());
        }
    });
    assert_eq!(seen.0.values().sum::<u64>(), 2 * flows as u64, "each leaves once: {seen}");
    seen
}

/// How many of these left as what, all by the NIC.
fn counts<const N: usize>(seen: &Seen, nic: Nic, exits: [IpAddr; N]) -> [u64; N] {
    exits.map(|exit| seen.count(nic, exit))
}

/// So many of these left as each of the exits, in both families, all by the NIC.
fn assert_parts<const N: usize>(seen: &Seen, nic: Nic, exits: [[IpAddr; 2]; N], parts: [u64; N]) {
    for family in 0..2 {
        assert_eq!(counts(seen, nic, exits.map(|one| one[family])), parts, "{seen}");
    }
}

fn by_turn(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let blue = stage(&world);
    let own = [world.layout.address(Nic::Eth1).into(), world.layout.address6(Nic::Eth1).into()];
    let all = [own, more(&world, Nic::Eth1, 1), more(&world, Nic::Eth1, 2)];
    let exits = exits(&world, &all);
    bind(&world, &blue, &exits, "FirstUsable");
    let _egressd = world.egressd_alone();
    let first = begin(&world, &blue, 6);
    assert_eq!(counts(&first, Nic::Eth1, own), [6, 6], "all by the first, where nothing else is said: {first}");
    bind(&world, &blue, &exits, "RoundRobin");
    world.await_handled();
    let seen = begin(&world, &blue, 30);
    assert_parts(&seen, Nic::Eth1, all, [10, 10, 10]);
    let row = &world.status()["workloads"][0];
    assert_eq!(row["exits"].as_array().map(Vec::len), Some(3), "{row}");
    assert!(world.egressctl(&["status"]).expect("it answers").contains(&format!("{} +2", own[0])));
}

fn over_two_nics(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let blue = stage(&world);
    let own = |nic| [world.layout.address(nic).into(), world.layout.address6(nic).into()];
    let (first, second) = (own(Nic::Eth0), own(Nic::Eth1));
    let third = more(&world, Nic::Eth1, 1);
    let neighbour = world.container("neighbour", &world.bridge("other0", 29), 10);
    let exits = [first.map(|address| exit(&world, Nic::Eth0, &address)).to_vec(), exits(&world, &[second, third])].concat();
    bind(&world, &blue, &exits, "RoundRobin");
    let _egressd = world.egressd_alone();
    // A flow to the inside before each of them takes nobody's turn.
    let ((), seen) = world.watch(|| {
        for _ in 0..30 {
            shout(&blue.netns, blue.address.into(), (neighbour.address, 9).into());
            shout(&blue.netns, blue.address6.into(), (neighbour.address6, 9).into());
            blue.shout_as(blue.address.into());
            blue.shout_as(blue.address6.into());
        }
    });
    assert_parts(&seen, Nic::Eth0, [first], [10]);
    assert_parts(&seen, Nic::Eth1, [second, third], [10, 10]);
}

fn weights() {
    let world = World::builder().build();
    let blue = stage(&world);
    let (one, two, five) = (more(&world, Nic::Eth1, 1), more(&world, Nic::Eth1, 2), more(&world, Nic::Eth1, 3));
    let weighted = |addresses: [IpAddr; 2], weight: u8| addresses.map(|address| format!("{{address: '{address}', weight: {weight}}}"));
    let exits = [weighted(one, 1), weighted(two, 2), weighted(five, 5)].concat();
    bind(&world, &blue, &exits, "RoundRobin");
    let _egressd = world.egressd_alone();
    let seen = begin(&world, &blue, 40);
    assert_parts(&seen, Nic::Eth1, [one, two, five], [5, 10, 25]);
    let wide = world.egressctl(&["status", "-o", "wide"]).expect("it prints a table");
    assert!(wide.contains(&format!("{}*1,{}*2,{}*5 (RoundRobin)", one[0], two[0], five[0])), "{wide}");
}

fn a_subnet() {
    let world = World::builder().build();
    let lan = world.lan();
    let [first, second] = [more(&world, Nic::Eth1, 1)[0], more(&world, Nic::Eth1, 2)[0]];
    world.leaves_by(&lan.netns, Nic::Eth1).expect_err("it is not bound");
    let range = format!("exits: [{{addresses: {first}-{second}}}]");
    world.bind(&Binding::new("lan", "addresses: [10.9.0.0/24]").with(&range).with("spread: RoundRobin"));
    let _egressd = world.egressd_alone();
    let ((), seen) = world.watch(|| (0..10).for_each(|_| shout(&lan.netns, lan.address.into(), (SERVER, 9).into())));
    let explained = world.egressctl(&["explain", &lan.address.to_string()]).expect("its subnet is known");
    assert!(explained.starts_with("10.9.0.0/24\n"), "{explained}");
    assert_eq!(counts(&seen, Nic::Eth1, [first, second]), [5, 5], "{seen}");
}

fn at_random() {
    let world = World::builder().build();
    let blue = stage(&world);
    let all = [more(&world, Nic::Eth1, 1), more(&world, Nic::Eth1, 2)];
    bind(&world, &blue, &exits(&world, &all), "Random");
    let _egressd = world.egressd_alone();
    let seen = begin(&world, &blue, 60);
    for family in 0..2 {
        let [first, second] = counts(&seen, Nic::Eth1, all.map(|one| one[family]));
        assert_eq!(first + second, 60, "{seen}");
        // One run in 10^9 is further out.
        assert!(first > 7 && second > 7, "{seen}");
    }
}

fn by_source() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let many: Vec<Container> = (10..22).map(|number| world.container(&format!("c{number}"), &bridge, number)).collect();
    let all = [1, 2, 3].map(|number| more(&world, Nic::Eth1, number));
    let exits = exits(&world, &all);
    let names: Vec<&str> = many.iter().map(|one| one.netns.name()).collect();
    let who = format!("networkNamespaces: [{}]", names.join(", "));
    world.bind(&Binding::new("many", &who).with(&format!("exits: [{}]", exits.join(", "))).with("spread: BySource"));
    let mut egressd = world.egressd_alone();
    let chosen = || -> BTreeMap<usize, Vec<(Nic, IpAddr)>> {
        let of = |(at, one): (usize, &Container)| (at, begin(&world, one, 5).0.into_keys().collect());
        many.iter().enumerate().map(of).collect()
    };
    let before = chosen();
    assert!(before.values().all(|exits| exits.len() == 2), "one exit in each family: {before:?}");
    let different: BTreeSet<_> = before.values().flatten().collect();
    assert!(different.len() > 3, "not all by the same: {different:?}");
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert_eq!(chosen(), before);
    for (one, exits) in many.iter().zip(before.values()) {
        let explained = world.egressctl(&["explain", &format!("netns/{}", one.netns.name())]).expect("it is known");
        let told = |(_, exit): &(Nic, IpAddr)| explained.contains(&format!("  source    {exit}\n"));
        assert!(exits.iter().all(told), "{exits:?}\n{explained}");
    }
}

fn by_destination() {
    let world = World::builder().build();
    let blue = stage(&world);
    let all = [1, 2, 3].map(|number| more(&world, Nic::Eth1, number));
    bind(&world, &blue, &exits(&world, &all), "ByDestination");
    let _egressd = world.egressd_alone();
    let mut different = BTreeSet::new();
    for last in 1..=12 {
        let to = IpAddr::from([203, 0, 113, last]);
        let ((), seen) = world.watch(|| (0..4).for_each(|_| shout(&blue.netns, blue.address.into(), (to, 9).into())));
        assert_eq!((seen.0.len(), seen.by(Nic::Eth1)), (1, 4), "one exit for one destination: {seen}");
        let explained = world.egressctl(&["explain", &format!("netns/{}", blue.netns.name()), &to.to_string()]).expect("it is known");
        let (_, exit) = seen.0.keys().next().expect("there is one");
        assert!(explained.contains(&format!("  source    {exit}\n")), "{seen}\n{explained}");
        different.extend(seen.0.into_keys());
    }
    assert_eq!(different.len(), 3, "not one for all: {different:?}");
}

fn an_exit_goes() {
    let world = World::builder().build();
    let blue = stage(&world);
    let all = [1, 2, 3].map(|number| more(&world, Nic::Eth1, number));
    bind(&world, &blue, &exits(&world, &all), "RoundRobin");
    let _egressd = world.egressd_alone();
    let lost = all[1];
    world.host.ip(&format!("addr del {}/20 dev eth1\naddr del {}/64 dev eth1", lost[0], lost[1]));
    world.await_handled();
    let seen = begin(&world, &blue, 20);
    assert_parts(&seen, Nic::Eth1, all, [10, 0, 10]);
    assert_eq!(more(&world, Nic::Eth1, 2), lost);
    world.await_handled();
    let seen = begin(&world, &blue, 30);
    assert_parts(&seen, Nic::Eth1, all, [10, 10, 10]);
    world.host.ip("link set eth1 down");
    world.await_handled();
    let ((), seen) = world.watch(|| (0..6).for_each(|_| blue.shout_as(blue.address.into())));
    assert!(seen.is_empty(), "without its NIC nothing leaves: {seen}");
}

fn draining() {
    let world = World::builder().ipv6(false).build();
    let blue = stage(&world);
    let (own, other) = (IpAddr::from(world.layout.address(Nic::Eth1)), more(&world, Nic::Eth1, 1)[0]);
    bind(&world, &blue, &[exit(&world, Nic::Eth1, &own)], "RoundRobin");
    let _egressd = world.egressd_alone();
    let mut open = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    bind(&world, &blue, &[format!("{{address: '{own}', draining: true}}"), exit(&world, Nic::Eth1, &other)], "RoundRobin");
    world.await_handled();
    open.ask().expect("it goes on by the exit that drains");
    let ((), seen) = world.watch(|| (0..6).for_each(|_| blue.shout_as(blue.address.into())));
    assert_eq!(counts(&seen, Nic::Eth1, [own, other]), [0, 6], "{seen}");
    let wide = world.egressctl(&["status", "-o", "wide"]).expect("it prints a table");
    assert!(wide.contains(&format!("{other},{own} (draining)")), "{wide}");
    let explained = world.egressctl(&["explain", &format!("netns/{}", blue.netns.name())]).expect("it is known");
    assert!(explained.contains(&format!("  draining  {own}: it gets no new flow")), "{explained}");
    bind(&world, &blue, &[format!("{{address: '{own}', draining: true}}")], "RoundRobin");
    until("it says why", || {
        let row = world.status()["workloads"][0].clone();
        if row["reason"] == "Draining" { Ok(()) } else { Err(row.to_string()) }
    });
}

fn unbound() {
    let world = World::builder().ipv6(false).build();
    let blue = stage(&world);
    let exits = Nic::ALL.map(|nic| exit(&world, nic, &world.layout.address(nic).into()));
    bind(&world, &blue, &exits, "RoundRobin");
    let _egressd = world.egressd_alone();
    let mut open: Vec<Flow> = (0..4).map(|_| Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound")).collect();
    let seen: BTreeSet<IpAddr> = open.iter().map(|flow| flow.seen.ip()).collect();
    assert_eq!(seen, Nic::ALL.map(|nic| nic.eip().into()).into(), "half of them by each NIC");
    world.unbind("blue");
    world.await_handled();
    // What left by eth0 is masqueraded with the same address from now on.
    for flow in open.iter_mut().filter(|flow| flow.seen.ip() == Nic::Eth1.eip()) {
        flow.ask().expect_err("it was ended");
    }
    world.leaves_by(&blue.netns, Nic::Eth0).expect("it goes the host's way");
}

fn spoiled() {
    let world = World::builder().ipv6(false).build();
    let (blue, lan) = (stage(&world), world.lan());
    let [first, second] = [1, 2].map(|number| more(&world, Nic::Eth1, number)[0]);
    let (first_exit, second_exit) = (exit(&world, Nic::Eth1, &first), exit(&world, Nic::Eth1, &second));
    let nowhere = exit(&world, Nic::Eth1, &[172, 31, 0, 99].into());
    bind(&world, &blue, &[first_exit.clone(), second_exit.clone()], "RoundRobin");
    let _egressd = world.egressd_alone();
    // Both send in turn: what one of them begins takes nobody else's turn.
    let parts = || {
        let ((), seen) = world.watch(|| {
            for _ in 0..10 {
                blue.shout_as(blue.address.into());
                shout(&lan.netns, lan.address.into(), nobody(SERVER.into()));
            }
        });
        let own = world.layout.address(Nic::Eth0).into();
        (counts(&seen, Nic::Eth1, [first, second]), seen.count(Nic::Eth0, own))
    };
    assert_eq!(parts(), ([5, 5], 10), "the subnet is not bound");
    for (exits, spread, state, theirs) in [
        (vec![nowhere.clone()], "RoundRobin", "Dropped", 0),
        (vec![nowhere, first_exit.clone()], "RoundRobin", "Bound", 10),
        (vec![first_exit, second_exit], "Sometimes", "Dropped", 0),
    ] {
        let exits = format!("exits: [{}]", exits.join(", "));
        world.bind(&Binding::new("lan", "addresses: [10.9.0.0/24]").with(&exits).with(&format!("spread: {spread}")));
        world.await_handled();
        world.await_state("10.9.0.0/24", state);
        assert_eq!(parts(), ([5 + theirs, 5], 0), "{exits}, {spread}: {:#}", world.status());
    }
}
