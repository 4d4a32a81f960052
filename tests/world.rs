//! The test world itself: what later tests trust has to be seen to work, and to notice what is wrong.
//!
//! Only here marks, rules and the like are set by hand: to see that the checks can be met, and not only by egressd.

use std::{
    env,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use world::{
    Engine, Nic, Scenario, Subnets, World, command,
    layout::PORT,
    s1::{self, CRAWLERS},
    talk,
};

/// Set for the test program that [`failures_are_reported_and_leave_nothing`] starts.
const BROKEN: &str = "EGRESSD_TEST_BROKEN";

fn main() -> ExitCode {
    if env::var_os(BROKEN).is_some() {
        return world::harness::main(broken());
    }
    let mut scenarios = vec![Scenario::new("failures are reported and leave nothing", failures_are_reported_and_leave_nothing)];
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: the host leaves by eth0, with its elastic address outside"), move || {
            the_host_leaves_by_eth0(subnets);
        }));
        scenarios.push(Scenario::new(format!("{subnets:?}: a foreign source is counted and dropped"), move || {
            a_foreign_source_is_counted_and_dropped(subnets);
        }));
        scenarios.push(Scenario::new(format!("{subnets:?}: elastic addresses lead to their NICs"), move || {
            elastic_addresses_lead_to_their_nics(subnets);
        }));
        scenarios.push(Scenario::new(format!("{subnets:?}: a route by advertisement is there until IPv6 is forwarded"), move || {
            an_advertised_route_is_there(subnets)
        }));
        scenarios.push(Scenario::new(format!("{subnets:?}: the cure by hand passes the checks that fail without"), move || {
            the_cure_by_hand_passes(subnets);
        }));
    }
    for engine in Engine::ALL {
        scenarios.push(Scenario::new(format!("{engine:?}: the cure by hand passes the checks of Docker's containers"), move || {
            the_cure_by_hand_passes_with_docker(engine);
        }));
    }
    world::harness::main(scenarios)
}

fn the_host_leaves_by_eth0(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    world.leaves_by(&world.host, Nic::Eth0).expect("the default route is by eth0");
    world.leaves_by(&world.host, Nic::Eth1).expect_err("there is no route by eth1");
    world.leaves_not_at_all(&world.host).expect_err("it does leave");
    world.leaves_to_neighbour_by(&world.host, Nic::Eth0, Nic::Eth0).expect("it is in eth0's subnet");
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

fn a_foreign_source_is_counted_and_dropped(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    for server in world.servers() {
        let other = world.layout.private(Nic::Eth1, server);
        let (peer, seen) = world.watch(|| talk::ask_udp_from(&world.host, (other, 0).into(), (server, PORT).into()));
        assert!(peer.is_err(), "eth1's address passed by eth0: {peer:?}");
        assert_eq!(seen.foreign(world.layout).count(Nic::Eth0, other), 1, "{seen}");
    }
    assert!(world.guests.list().is_empty(), "{:?}", world.guests.list());
}

fn elastic_addresses_lead_to_their_nics(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let addresses = Nic::ALL.map(|nic| world.layout.address(nic).into());
    let guests = talk::serve(&world.host, &addresses, &[PORT]);
    talk::ask_tcp(&world.internet, (Nic::Eth0.eip(), PORT).into()).expect("eth0 answers");
    let (at, peer) = guests.list()[0];
    assert_eq!((at.ip(), peer.ip()), (addresses[0], world.servers()[0]));
    // The call arrives, and the answer takes the default route with an address that is not eth0's.
    talk::ask_tcp(&world.internet, (Nic::Eth1.eip(), PORT).into()).expect_err("the cloud drops the answer");
    assert!(world.foreign().count(Nic::Eth0, addresses[1]) > 0, "{}", world.seen());
}

fn an_advertised_route_is_there(subnets: Subnets) {
    let world = World::builder().subnets(subnets).advertised(Nic::Eth1).build();
    let routes = || world.host.run(&["ip", "-6", "route", "show", "default"]);
    let printed = routes();
    assert!(printed.contains("dev eth1 proto ra"), "{printed}");
    world.leaves_by(&world.host, Nic::Eth0).expect("the route that was set up is preferred");
    // What egressd has to prevent: the kernel drops the route when forwarding begins, and hears no advertisement from then on.
    world.host.sysctl("ipv6/conf/all/forwarding", "1");
    thread::sleep(Duration::from_millis(1100));
    let printed = routes();
    assert!(!printed.contains("dev eth1 proto ra"), "{printed}");
}

fn the_cure_by_hand_passes(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let free = world.container("free", &bridge, 11);
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("without the cure it leaves by eth0");
    cure(&world, blue.address, blue.address6);
    world.leaves_by(&blue.netns, Nic::Eth1).expect("the cure sends it by eth1");
    world.leaves_by(&free.netns, Nic::Eth0).expect("the other one is masqueraded");
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    // The cure goes by address: a neighbour that takes it has the same way out.
    let thief = free;
    thief.take(blue.address.into());
    let (_, seen) = world.watch(|| thief.ask_udp_as(blue.address.into(), (world.servers()[0], PORT)));
    assert!(seen.by(Nic::Eth1) > 0, "{seen}");
    // And it stays for a successor.
    let blue = world.renew(blue);
    world.leaves_by(&blue.netns, Nic::Eth1).expect("it has the same address");
}

fn the_cure_by_hand_passes_with_docker(engine: Engine) {
    let world = World::builder().build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let [_, by_eth1] = CRAWLERS;
    by_eth1.run(&world, &docker);
    by_eth1.leaves(&world, &docker).expect_err("without the cure it leaves by eth0");
    by_eth1.is_reached(&world).expect_err("without the cure its answers leave by eth0");
    let address6 = docker.cli(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}", by_eth1.name]);
    cure(&world, by_eth1.address, address6.trim().parse().expect("an address"));
    by_eth1.leaves(&world, &docker).expect("the cure sends it by eth1");
    by_eth1.is_reached(&world).expect("its answers have its address, so they go the same way");
}

/// What the field report does, ahead of any masquerade, and the route that it lacks.
fn cure(world: &World, address: Ipv4Addr, address6: Ipv6Addr) {
    let nic = Nic::Eth1;
    let (layout, name) = (world.layout, nic.name());
    let ways = [
        ("-4", "ip", layout.gateway(nic).to_string(), address.to_string(), layout.address(nic).to_string()),
        ("-6", "ip6", layout.gateway6(nic).to_string(), address6.to_string(), layout.address6(nic).to_string()),
    ];
    for (option, family, gateway, from, to) in ways {
        world.host.run(&["ip", option, "route", "add", "default", "via", &gateway, "dev", name, "table", "100"]);
        world.host.run(&["ip", option, "rule", "add", "from", &from, "lookup", "100"]);
        world.host.nft(&format!(
            "table {family} cure {{
                chain postrouting {{
                    type nat hook postrouting priority 90; policy accept;
                    {family} saddr {from} oifname {name} snat to {to}
                }}
            }}"
        ));
    }
}

fn broken() -> Vec<Scenario> {
    let sleeps = || {
        let orphan = Command::new("sh").args(["-c", "sleep 4711 &"]).status();
        assert!(orphan.expect("there is a shell").success());
    };
    vec![
        Scenario::new("it fails", move || {
            sleeps();
            panic!("this is wrong");
        }),
        Scenario::new("it hangs", move || {
            sleeps();
            thread::sleep(Duration::from_secs(4711));
        })
        .within(Duration::from_secs(1)),
    ]
}

fn failures_are_reported_and_leave_nothing() {
    let program = env::current_exe().expect("a running program has a path");
    let output =
        Command::new(program).env_remove("EGRESSD_TEST_STAGE").env(BROKEN, "1").output().expect("the program that runs can be run");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{printed}");
    for line in ["this is wrong", "not finished after 1 s", "2 failed"] {
        assert!(printed.contains(line), "no {line:?} in:\n{printed}");
    }
    let alive = command::run(&["ps", "-eo", "args"]);
    assert!(!alive.contains("sleep 4711"), "{alive}");
    let mounts = command::run(&["cat", "/proc/mounts"]);
    assert_eq!(mounts.matches("world /run ").count(), 1, "{mounts}");
}
