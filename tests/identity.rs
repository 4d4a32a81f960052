//! An address is not an identity: neighbours and successors with a bound container's address; and exits keep theirs over many changes.

use std::{net::IpAddr, process::ExitCode, thread, time::Duration};

use world::{
    Binding, Container, Nic, Scenario, Seen, Subnets, World,
    container::Bridge,
    layout::{PORT, SERVER, SERVER6},
    status::until,
    talk::{self, Flow},
    traffic::{call, nobody},
};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        for alive in [true, false] {
            let daemon = if alive { "alive" } else { "dead" };
            scenarios.push(Scenario::new(
                format!("{subnets:?}: a neighbour with the victim's address gets no exit, daemon {daemon}"),
                move || a_neighbour_gets_no_exit(subnets, alive),
            ));
            scenarios.push(Scenario::new(format!("{subnets:?}: a successor with the address gets no exit, daemon {daemon}"), move || {
                a_successor_gets_no_exit(subnets, alive)
            }));
        }
        scenarios.push(Scenario::new(format!("{subnets:?}: an older neighbour does not take a bound address over"), move || {
            an_older_neighbour_does_not_take_over(subnets)
        }));
        for (existing, goes_on) in [("Keep", true), ("Reset", false)] {
            scenarios.push(Scenario::new(format!("{subnets:?}: open flows at a change of the exit: {existing}"), move || {
                open_flows_at_a_change(subnets, existing, goes_on)
            }));
        }
    }
    scenarios.push(Scenario::new("a long flow keeps its exit over 300 changes of its binding", a_long_flow_keeps_its_exit));
    scenarios.push(Scenario::new("a call that nobody answers goes on by the exit that there is", a_call_that_nobody_answers));
    scenarios.push(Scenario::new("a successor of the same name is bound anew", a_successor_of_the_same_name_is_bound));
    world::harness::main_of_waiting(scenarios)
}

/// A masqueraded bridge with a thief and a victim, which is bound to eth1.
fn stage(world: &World) -> (Bridge, Container, Container) {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let thief = world.container("thief", &bridge, 11);
    let victim = world.container("victim", &bridge, 10);
    world.leaves_by(&victim.netns, Nic::Eth0).expect("the world masquerades it");
    world.leaves_by(&victim.netns, Nic::Eth1).expect_err("it is not bound");
    assert_eq!(by_exit(world, &sent_as(world, &victim, addresses(&victim))), 0, "it has no exit");
    (bridge, thief, victim)
}

/// What leaves when the container sends with these addresses, which it has or takes.
fn sent_as(world: &World, from: &Container, addresses: [IpAddr; 2]) -> Seen {
    let ((), seen) = world.watch(|| {
        for address in addresses {
            for _ in 0..3 {
                from.shout_as(address);
            }
        }
    });
    seen
}

fn by_exit(world: &World, seen: &Seen) -> u64 {
    world.layout.own(Nic::Eth1).into_iter().map(|exit| Nic::ALL.map(|nic| seen.count(nic, exit)).iter().sum::<u64>()).sum()
}

fn addresses(container: &Container) -> [IpAddr; 2] {
    [container.address.into(), container.address6.into()]
}

fn a_neighbour_gets_no_exit(subnets: Subnets, alive: bool) {
    let world = World::builder().subnets(subnets).build();
    let (_bridge, thief, victim) = stage(&world);
    world.bind(&Binding::of(&victim.netns).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    assert!(by_exit(&world, &sent_as(&world, &victim, addresses(&victim))) >= 6, "the victim has its exit");
    if !alive {
        egressd.kill();
    }
    for address in addresses(&victim) {
        thief.take(address);
    }
    if alive {
        world.await_handled();
    }
    let seen = sent_as(&world, &thief, addresses(&victim));
    assert_eq!(by_exit(&world, &seen), 0, "{seen}");
    assert!(seen.foreign(world.layout).is_empty(), "{seen}");
    assert!(by_exit(&world, &sent_as(&world, &victim, addresses(&victim))) >= 6, "the victim still has its exit");
}

fn a_successor_gets_no_exit(subnets: Subnets, alive: bool) {
    let world = World::builder().subnets(subnets).build();
    let (bridge, _thief, victim) = stage(&world);
    world.bind(&Binding::of(&victim.netns).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    assert!(by_exit(&world, &sent_as(&world, &victim, addresses(&victim))) >= 6, "the victim has its exit");
    if !alive {
        egressd.kill();
    }
    let gone = addresses(&victim);
    world.remove(victim);
    let successor = world.container("successor", &bridge, 10);
    assert_eq!(addresses(&successor), gone);
    let first = sent_as(&world, &successor, gone);
    assert_eq!(by_exit(&world, &first), 0, "{first}");
    if alive {
        world.await_handled();
    }
    let seen = sent_as(&world, &successor, gone);
    assert_eq!(by_exit(&world, &seen), 0, "{seen}");
    assert!(seen.foreign(world.layout).is_empty(), "{seen}");
    // While nobody has said that the binding's namespace is gone its address is nobody else's.
    if alive {
        world.leaves_by(&successor.netns, Nic::Eth0).expect("it is masqueraded");
    }
}

/// Bound by address alone, the one who had it first keeps it, however old the other's interface is.
fn an_older_neighbour_does_not_take_over(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let (_bridge, thief, victim) = stage(&world);
    world.bind(&Binding::new("single", "addresses: [172.28.0.10/32, 'fd72:0:0:1c::a/128']").to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    assert!(by_exit(&world, &sent_as(&world, &victim, addresses(&victim))) >= 6, "the victim has its exit");
    for address in addresses(&victim) {
        thief.take(address);
    }
    for again in ["at once", "after a restart"] {
        world.await_handled();
        let seen = sent_as(&world, &thief, addresses(&victim));
        assert_eq!(by_exit(&world, &seen), 0, "{again}: {seen}");
        assert!(by_exit(&world, &sent_as(&world, &victim, addresses(&victim))) >= 6, "{again}: the victim still has its exit");
        egressd.kill();
        egressd.start();
    }
}

fn a_successor_of_the_same_name_is_bound() {
    let world = World::builder().build();
    let (_bridge, _thief, victim) = stage(&world);
    world.bind(&Binding::of(&victim.netns).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    let mut victim = victim;
    for _ in 0..5 {
        victim = world.renew(victim);
        until("the new one is bound", || world.leaves_by(&victim.netns, Nic::Eth1));
    }
}

fn open_flows_at_a_change(subnets: Subnets, existing: &str, goes_on: bool) {
    let world = World::builder().subnets(subnets).build();
    let (_bridge, _thief, victim) = stage(&world);
    let blue = &victim.netns;
    let existing = format!("existingFlows: {existing}");
    world.bind(&Binding::of(blue).to(&world, Nic::Eth1).with(&existing));
    let _egressd = world.egressd_alone();
    let open = |at: IpAddr| Flow::open(blue, (at, PORT).into()).expect("it is bound");
    let mut flows: Vec<Flow> = world.servers().into_iter().map(open).collect();
    let seen_before: Vec<IpAddr> = flows.iter().map(|flow| flow.seen.ip()).collect();
    let trickle = world.trickle(blue, false);
    for nic in [Nic::Eth0, Nic::Eth1, Nic::Eth0] {
        world.forget();
        world.bind_to(blue, Binding::of(blue).with(&existing), nic);
        // The kernel is told before the flows are cut; both are done by the time that a new reading shows one NIC alone.
        until("the datagrams have moved", || {
            let seen = world.count(|| thread::sleep(Duration::from_millis(20)));
            let other = Nic::ALL.into_iter().find(|other| *other != nic).expect("there are two");
            if seen.by(other) == 0 && seen.by(nic) > 0 { Ok(()) } else { Err(seen.to_string()) }
        });
        assert!(world.foreign().is_empty(), "{}", world.foreign());
        if goes_on {
            for (flow, before) in flows.iter_mut().zip(&seen_before) {
                assert_eq!(flow.ask().expect("it goes on").ip(), *before);
            }
        }
    }
    drop(trickle);
    if !goes_on {
        for flow in &mut flows {
            flow.ask().expect_err("it was cut");
        }
    }
    world.leaves_by(blue, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
}

fn a_call_that_nobody_answers() {
    let world = World::builder().build();
    let (_bridge, _thief, victim) = stage(&world);
    let blue = &victim.netns;
    let begin = || world.servers().into_iter().map(|server| call(blue, nobody(server))).collect::<Vec<_>>();
    let (early, seen) = world.watch(begin);
    assert!(seen.by(Nic::Eth0) > 0 && seen.by(Nic::Eth1) == 0, "it is not bound yet: {seen}");
    world.bind(&Binding::of(blue).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    let repeated_by = |nic: Nic, when: &str| {
        world.await_nic(&format!("netns/{}", blue.name()), nic);
        world.forget();
        let other = Nic::ALL.into_iter().find(|other| *other != nic).expect("there are two");
        until(when, || match world.seen() {
            // Between the rules and the end of the old flow.
            seen if seen.by(other) > 0 => {
                world.forget();
                Err(seen.to_string())
            }
            seen if seen.count(nic, world.layout.private(nic, SERVER.into())) == 0 => Err(seen.to_string()),
            seen if seen.count(nic, world.layout.private(nic, SERVER6.into())) == 0 => Err(seen.to_string()),
            _ => Ok(()),
        });
    };
    repeated_by(Nic::Eth1, "what began before it was bound");
    drop(early);
    let late = begin();
    world.bind_to(blue, Binding::of(blue), Nic::Eth0);
    repeated_by(Nic::Eth0, "what began before the exit changed");
    drop(late);
}

fn a_long_flow_keeps_its_exit() {
    let world = World::builder().build();
    let (_bridge, _thief, victim) = stage(&world);
    let blue = &victim.netns;
    let more: Vec<IpAddr> = (100..110).map(|host| IpAddr::from([172, 31, 0, host])).collect();
    for address in &more {
        world.host.ip(&format!("addr add {address}/32 dev eth1"));
    }
    world.bind(&Binding::of(blue).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    let mut flow = Flow::open(blue, (SERVER, PORT).into()).expect("it is bound");
    let first = flow.seen;
    assert_eq!(first.ip(), IpAddr::from(Nic::Eth1.eip()));
    let gateway = world.layout.gateway(Nic::Eth1);
    for change in 0..300 {
        let address = more[change % more.len()];
        world.bind(&Binding::of(blue).with(&format!("exits: [{{address: {address}, gateway: {gateway}}}]")));
        if change % 10 == 0 {
            let text = address.to_string();
            until("the exit is taken", || {
                let ((), seen) = world.watch(|| victim.shout_as(victim.address.into()));
                if seen.count(Nic::Eth1, address) > 0 { Ok(()) } else { Err(format!("{text}: {seen}")) }
            });
            let (answer, seen) = world.watch(|| flow.ask());
            assert_eq!(answer.expect("it goes on"), first);
            assert!(seen.by(Nic::Eth0) == 0 && seen.count(Nic::Eth1, world.layout.address(Nic::Eth1).into()) > 0, "{seen}");
        }
    }
    assert_eq!(talk::ask_udp(blue, (SERVER6, PORT).into()).ok(), None, "there is no exit of that family");
}
