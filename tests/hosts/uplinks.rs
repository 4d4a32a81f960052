//! What is an uplink and what is not, on hosts whose default route is not one line of the main table.

use std::{net::IpAddr, thread, time::Duration};

use serde_json::json;
use world::{
    Binding, Nic, Scenario, World,
    layout::PORT,
    segment::{Plain, Router, Segment},
    status::{until, until_within},
    talk::{self, Flow},
};

use crate::support::{Guarded, STRANGER, await_reason};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        Scenario::new("a bridge's own address as an exit is refused and harms nobody on that bridge", a_bridges_own_address),
        Scenario::new("an address of the loopback device leaves by the NIC that is named, or not at all", an_address_on_loopback),
        Scenario::new("a NIC that comes anew under the same name is the exit's NIC again", a_nic_that_comes_anew),
        Scenario::new("the guard holds after 130 interfaces have had the default route", a_reconnecting_default),
        Scenario::new("who calls another NIC's address through a tunnel is answered through the tunnel", calls_through_a_tunnel),
        Scenario::new("of two lines with one address, the host's own stays its own", one_address_by_two_routers),
        Scenario::new("an address on two NICs is told, and its exit does not move at a restart", an_address_on_two_nics),
    ];
    for (name, lines) in DEFAULTS {
        scenarios.push(Scenario::new(format!("an unknown source has no way out by {name}"), move || a_default_route(lines)));
    }
    scenarios
}

/// Lines for `ip`, when `vpn0` leads to a router at 10.7.0.1.
const DEFAULTS: [(&str, &str); 5] = [
    ("a multipath default route", "route replace default nexthop via 172.31.0.1 dev eth0 nexthop via 172.31.16.1 dev eth1"),
    (
        "a group of next hops",
        "nexthop add id 1 via 172.31.0.1 dev eth0
         nexthop add id 2 via 172.31.16.1 dev eth1
         nexthop add id 10 group 1/2
         route replace default nhid 10",
    ),
    (
        "a default route in another table that a rule leads to",
        "route add default via 10.7.0.1 dev vpn0 table 101
         rule add from 172.28.0.0/16 lookup 101 pref 20000",
    ),
    (
        "halves of the address space",
        "route add 0.0.0.0/1 via 10.7.0.1 dev vpn0
         route add 128.0.0.0/1 via 10.7.0.1 dev vpn0",
    ),
    (
        "all but private ranges",
        "route add 0.0.0.0/5 via 10.7.0.1 dev vpn0
         route add 8.0.0.0/7 via 10.7.0.1 dev vpn0
         route add 11.0.0.0/8 via 10.7.0.1 dev vpn0
         route add 12.0.0.0/6 via 10.7.0.1 dev vpn0
         route add 16.0.0.0/4 via 10.7.0.1 dev vpn0
         route add 32.0.0.0/3 via 10.7.0.1 dev vpn0
         route add 64.0.0.0/2 via 10.7.0.1 dev vpn0
         route add 128.0.0.0/3 via 10.7.0.1 dev vpn0
         route add 160.0.0.0/5 via 10.7.0.1 dev vpn0
         route add 168.0.0.0/6 via 10.7.0.1 dev vpn0
         route add 173.0.0.0/8 via 10.7.0.1 dev vpn0
         route add 174.0.0.0/7 via 10.7.0.1 dev vpn0
         route add 176.0.0.0/4 via 10.7.0.1 dev vpn0
         route add 193.0.0.0/8 via 10.7.0.1 dev vpn0
         route add 194.0.0.0/7 via 10.7.0.1 dev vpn0
         route add 196.0.0.0/6 via 10.7.0.1 dev vpn0
         route add 200.0.0.0/5 via 10.7.0.1 dev vpn0
         route add 208.0.0.0/4 via 10.7.0.1 dev vpn0",
    ),
];

fn a_default_route(lines: &str) {
    let guarded = Guarded::new();
    let world = &guarded.world;
    let router = Segment::plug(world, "vpn0").router(world, 7);
    world.host.ip(lines);
    guarded.lets_out(&guarded.free, STRANGER, &[&router], "nothing holds it without egressd");
    // To one place a route with two next hops may lead by the exit's NIC: which one does differs from boot to boot.
    assert!(!guarded.far_by_eth1().0, "it is not bound");
    let mut egressd = guarded.start();
    let right = |when: &str| {
        let (all, count) = guarded.far_by_eth1();
        assert!(all, "{when}: {count} leave by the exit");
        guarded.holds(&guarded.free, STRANGER, &[&router], &format!("{when}: the unknown source"));
        guarded.lets_out(&guarded.free, guarded.free.address.into(), &[&router], &format!("{when}: the free one"));
        guarded.bound_by_eth1(when);
    };
    right("alive");
    egressd.kill();
    right("dead");
    let late = world.container("late", &guarded.bridge, 12);
    guarded.holds(&late, late.address.into(), &[&router], "nobody knows it yet");
}

/// One label with the wrong address must not turn a bridge into an uplink.
fn a_bridges_own_address() {
    let guarded = Guarded::new();
    let world = &guarded.world;
    let other = world.bridge("other0", 29);
    world.masquerade(&other);
    let slip = world.container("slip", &other, 10);
    guarded.engine.create_network("other", &other.name, json!({}));
    let by_eth0 = |container: &world::Container, when: &str| {
        world.leaves_by(&container.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{when}: {error}"));
    };
    by_eth0(&slip, "without egressd");
    guarded.lets_out(&guarded.free, STRANGER, &[], "nothing holds it without egressd");
    let _egressd = guarded.start();
    let right = |when: &str| {
        guarded.bound_by_eth1(when);
        by_eth0(&guarded.free, when);
        guarded.holds(&guarded.free, STRANGER, &[], when);
    };
    right("before");
    let label = json!({ "egress.ip": guarded.bridge.address(1).to_string() });
    guarded.engine.run("slip", "other", slip.address, &label, json!({}));
    let message = await_reason(world, "slip", "NotAnUplink");
    assert!(message.contains("plain0") && message.contains("bridge"), "{message}");
    right("after");
    world.leaves_not_at_all(&slip.netns).unwrap_or_else(|error| panic!("it has no exit: {error}"));
}

/// Addresses that are routed to the host are on lo: nobody can guess by which NIC they leave.
fn an_address_on_loopback() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let router = Segment::plug(world, "eth2").router(world, 7);
    let [at, at6] = ["203.0.113.5", "2001:db8:77::5"].map(|address| address.parse::<IpAddr>().expect("an address"));
    world.host.ip(&format!(
        "addr add {at}/32 dev lo
         addr add {at6}/128 dev lo"
    ));
    let [gateway, gateway6] = router.own();
    router.serves_as(world, blue, &[at, at6]).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with(&format!("exits: [{{address: {at}}}, {{address: '{at6}'}}]")));
    let _egressd = world.egressd_alone();
    let message = await_reason(world, "netns/blue", "NotAnUplink");
    assert!(message.starts_with("lo is") && message.contains("name the NIC"), "{message}");
    world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("{error}"));
    let exits = [(at, gateway), (at6, gateway6)].map(|(at, by)| format!("{{address: '{at}', interface: eth2, gateway: '{by}'}}"));
    world.bind(&Binding::of(blue).with(&format!("exits: [{}]", exits.join(", "))));
    until("it is bound", || router.serves_as(world, blue, &[at, at6]));
    plain.free_by_eth0("all the while");
}

fn a_nic_that_comes_anew() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let segment = Segment::plug(world, "eth2");
    let router = segment.router(world, 7);
    router.serves(world, blue).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with(&router.exits(true)));
    let _egressd = world.egressd_alone();
    for round in 0..3 {
        router.serves(world, blue).unwrap_or_else(|error| panic!("round {round}: {error}"));
        world.host.run(&["ip", "link", "del", "eth2"]);
        world.await_state("netns/blue", "Dropped");
        world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("round {round}: {error}"));
        segment.plug_again(world);
        segment.address(world, 7, 2);
        world.await_rows("netns/blue", |row| row["state"] == "Bound" && row["nic"] == "eth2");
    }
    router.serves(world, blue).unwrap_or_else(|error| panic!("after all: {error}"));
    plain.free_by_eth0("after all");
}

/// A dial-up line has a new interface at each connection.
fn a_reconnecting_default() {
    let guarded = Guarded::new();
    let world = &guarded.world;
    let segment = Segment::plug(world, "ppp0");
    let router = segment.router(world, 7);
    let default = |metric: u32| world.host.ip(&format!("route replace default via 10.7.0.1 dev ppp0 metric {metric}"));
    world.host.ip("route del default");
    default(1);
    guarded.lets_out(&guarded.free, STRANGER, &[&router], "nothing holds it without egressd");
    let _egressd = guarded.start();
    for round in 0..130 {
        world.host.run(&["ip", "link", "del", "ppp0"]);
        segment.plug_again(world);
        segment.address(world, 7, 2);
        default(1);
        until_within(Duration::from_secs(5), Duration::from_millis(5), "it is an uplink", || {
            let status = world.status();
            let known = status["uplinks"].as_array().into_iter().flatten().any(|uplink| uplink["nic"] == "ppp0");
            if known { Ok(()) } else { Err(format!("round {round}: {status:#}")) }
        });
    }
    guarded.lets_out(&guarded.free, guarded.free.address.into(), &[&router], "the free one");
    guarded.holds(&guarded.free, STRANGER, &[&router], "the unknown source");
    guarded.bound_by_eth1("after all");
    assert_eq!(world.status()["problems"], json!([]));
}

/// An administrator calls the host by a tunnel, whichever of its addresses, and then somebody is bound to the tunnel's.
fn calls_through_a_tunnel() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let segment = Segment::plug(world, "wg0");
    let router = segment.router(world, 7);
    segment.tunnel(world, &router);
    let called: Vec<IpAddr> =
        Nic::ALL.into_iter().flat_map(|nic| [world.layout.address(nic).into(), world.layout.address6(nic).into()]).collect();
    talk::serve(&world.host, &called, &[PORT]);
    let call = |at: &IpAddr| Flow::open(&router.netns, (*at, PORT).into());
    let mut open: Vec<Flow> = called.iter().map(|at| call(at).expect("it is reached without egressd")).collect();
    router.serves(world, blue).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with(&router.exits(true)));
    let _egressd = world.egressd_alone();
    until("it is bound", || router.serves(world, blue));
    for (at, flow) in called.iter().zip(&mut open) {
        flow.ask().unwrap_or_else(|error| panic!("{at} was called before: {error}"));
        call(at).unwrap_or_else(|error| panic!("{at} is called: {error}"));
    }
    let (answer, seen) = world.watch(|| talk::ask_tcp(&world.internet, (IpAddr::from(world.layout.eip(Nic::Eth0)), PORT).into()));
    answer.unwrap_or_else(|error| panic!("who calls by eth0 is answered by it, as ever: {error}; left: {seen}"));
}

fn an_address_on_two_nics() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let (one, other) = (Segment::plug(world, "eth2"), Segment::plug(world, "eth3"));
    let router = one.router(world, 7);
    let elsewhere = other.silent_router("r9", 7, 1);
    other.address(world, 7, 2);
    // Of the two subnets the first one's is the host's way there.
    router.serves(world, blue).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with(&router.exits(true)));
    let mut egressd = world.egressd_alone();
    for when in ["at first", "after a restart", "gone and back"] {
        until("it is told", || {
            let problems = world.status()["problems"].to_string();
            let told = router.host().into_iter().all(|at| problems.contains(&format!("{at} is on eth2 and on eth3: eth2 is used")));
            if told { Ok(()) } else { Err(problems) }
        });
        router.serves(world, blue).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(!came_by(&elsewhere, &router), "{when}");
        if when == "at first" {
            egressd.kill();
            egressd.start();
        } else {
            world.host.run(&["ip", "address", "flush", "dev", "eth2"]);
            thread::sleep(Duration::from_millis(200));
            one.address(world, 7, 2);
        }
    }
}

/// The routers of two lines have one address, and gave the host one. Its own traffic, and answers to who calls it, leave by the first line.
fn one_address_by_two_routers() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let (first, second) = (Segment::plug(world, "eth2"), Segment::plug(world, "eth3"));
    let router = first.router(world, 7);
    let _elsewhere = second.silent_router("r9", 7, 1);
    let [address, address6] = second.address(world, 7, 2);
    let [at, at6] = router.own();
    world.host.ip(&format!(
        "route add default via {at} dev eth2 metric 500
         route add default via {at} dev eth3 metric 600
         route add default via {at6} dev eth2 metric 2500
         route add default via {at6} dev eth3 metric 2600"
    ));
    talk::serve(&world.host, &[address, address6], &[PORT]);
    let answered = |when: &str| {
        for called in [address, address6] {
            Flow::open(&router.netns, (called, PORT).into()).unwrap_or_else(|error| panic!("{when}: {called} is called: {error}"));
        }
    };
    answered("without egressd");
    let row = format!("netns/{}", blue.name());
    for exits in ["exits: [{interface: eth3}]".to_owned(), format!("exits: [{{address: {address}, interface: eth3}}]")] {
        world.bind(&Binding::of(blue).with(&exits));
        let _egressd = world.egressd_alone();
        until("it is refused", || {
            let status = world.status();
            let mut rows = status["workloads"].as_array().into_iter().flatten().filter(|found| found["workload"] == row);
            let told = |found: &serde_json::Value| {
                let message = found["message"].as_str().unwrap_or_default();
                found["reason"] == "AddressOnTwoNics" && message.starts_with(&format!("{address} is on both eth3 and eth2,"))
            };
            if rows.any(told) { Ok(()) } else { Err(format!("{status:#}")) }
        });
        answered("while it is refused");
        router.serves(world, blue).expect_err("it is held");
    }
    world.bind(&Binding::of(blue).with("exits: [{interface: eth2}]"));
    let _egressd = world.egressd_alone();
    until("it is bound to the first line", || router.serves_as(world, blue, &[address]));
    answered("while somebody is bound to the first line");
}

/// Whether packets with the host's addresses came by a router.
fn came_by(router: &Router, of: &Router) -> bool {
    of.host().iter().any(|at| router.seen().0.contains_key(at))
}
