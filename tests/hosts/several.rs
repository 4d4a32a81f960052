//! Several subnets, routers and tables on one NIC, and several links to one workload.

use std::net::{IpAddr, SocketAddr};

use world::{
    Binding, Nic, Scenario, World,
    layout::{PORT, SERVER, SERVER6},
    segment::{Plain, Segment},
    status::until,
    talk::{self, Flow},
};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        Scenario::new("an interface's own address is its gateway's subnet's, whatever else comes", an_interfaces_own_address),
        Scenario::new("the host's own sockets keep to its tables, whoever else is bound to their address", own_tables),
        Scenario::new("the host's own sockets keep to its rules, and else leave by the NIC of the exit that they are bound to", own_rules),
        Scenario::new("what another program translates to an address of the exit's NIC stays on that NIC", translated_ahead),
        Scenario::new("a container's connections go on when its default route moves to another network", another_link),
        Scenario::new("a router that another NIC knows is this one's while that NIC is down", a_shared_router),
        Scenario::new("whoever has no exit is told so at each try", refused_at_each_try),
    ];
    for (how, lines) in TWO_ROUTERS {
        scenarios
            .push(Scenario::new(format!("each address of a NIC has its own router: {how}"), move || a_router_for_each_address(how, lines)));
    }
    scenarios
}

/// How a host is told which of two routers on eth2 an address has. The one of subnet 51 comes first to who does not look.
const TWO_ROUTERS: [(&str, &str); 2] = [
    (
        "a table and a rule for each",
        "route add default via 10.51.0.1 dev eth2 table 101
         rule add from 10.51.0.2 lookup 101 pref 10001
         route add default via 10.50.0.1 dev eth2 table 102
         rule add from 10.50.0.2 lookup 102 pref 10002
         route add default via fd10:33::1 dev eth2 table 101
         rule add from fd10:33::2 lookup 101 pref 10001
         route add default via fd10:32::1 dev eth2 table 102
         rule add from fd10:32::2 lookup 102 pref 10002",
    ),
    (
        "source-specific routes of IPv6, and two metrics of IPv4",
        "route add default via 10.51.0.1 dev eth2 metric 500
         route add default via 10.50.0.1 dev eth2 metric 600
         route add default from fd10:33::/64 via fd10:33::1 dev eth2 metric 500
         route add default from fd10:32::/64 via fd10:32::1 dev eth2 metric 600",
    ),
];

fn a_router_for_each_address(how: &str, lines: &str) {
    let plain = Plain::new(World::builder().build());
    let (world, blue, red) = (&plain.world, &plain.blue.netns, &plain.free.netns);
    let segment = Segment::plug(world, "eth2");
    let (first, second) = (segment.router(world, 51), segment.router(world, 50));
    lines.lines().map(str::trim).for_each(|line| {
        // Rules have no address by which `ip` would know the family.
        let family = if line.contains("fd10:") { "-6" } else { "-4" };
        world.host.run(&[&["ip", family], line.split(' ').collect::<Vec<_>>().as_slice()].concat());
    });
    second.serves(world, blue).expect_err("it is not bound");
    let own = |when: &str| {
        // Two metrics say nothing of sources.
        let addresses = second.host().into_iter().filter(|at| how.starts_with("a table") || at.is_ipv6());
        for address in addresses {
            second.forget();
            talk::shout(&world.host, address, outside(address));
            assert!(second.seen().0.contains_key(&address), "{when}: the host's own from {address}");
        }
    };
    own("without egressd");
    world.bind(&Binding::of(blue).with(&second.exits(false)));
    let mut egressd = world.egressd_alone();
    until("it leaves by its subnet's router", || second.serves(world, blue));
    own("with egressd");
    talk::serve(blue, &[IpAddr::from(plain.blue.address)], &[8080]);
    world.bind(&Binding::of(blue).with(&second.exits(false)).with("inbound: [{protocol: TCP, port: 8080}]"));
    // Its answers by another router would be refused there.
    until("callers are answered by the router that they called through", || {
        let called = Flow::open_from(&second.netns, SERVER.into(), (second.host()[0], 8080).into());
        called.and_then(|mut flow| flow.ask()).map(drop).map_err(|error| error.to_string())
    });
    world.bind(&Binding::of(red).with(&first.exits(false)));
    until("so does another one", || first.serves(world, red));
    egressd.kill();
    egressd.start();
    world.await_ready();
    second.serves(world, blue).unwrap_or_else(|error| panic!("after a restart: {error}"));
    own("after a restart");
}

fn outside(address: IpAddr) -> SocketAddr {
    (if address.is_ipv4() { IpAddr::from(SERVER) } else { SERVER6.into() }, PORT).into()
}

fn an_interfaces_own_address() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let segment = Segment::plug(world, "eth2");
    // Lower numbers: a modem's page, and before all others.
    world.host.ip("address add 10.9.9.9/24 dev eth2");
    let router = segment.router(world, 50);
    world.host.ip("route add default via 10.50.0.1 dev eth2 metric 500");
    let own = &router.host()[..1];
    router.serves_as(world, blue, own).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with("exits: [{interface: eth2}]"));
    let _egressd = world.egressd_alone();
    until("it leaves with the address of the gateway's subnet", || router.serves_as(world, blue, own));
    // As keepalived puts one there.
    world.host.ip("address add 10.5.0.200/32 dev eth2");
    world.bind(&Binding::of(&plain.free.netns).with("exits: [{interface: eth2}]"));
    until("who comes later leaves with the same", || router.serves_as(world, &plain.free.netns, own));
    router.serves_as(world, blue, own).unwrap_or_else(|error| panic!("a VIP is no reason to leave with it: {error}"));
}

/// A VPN's routes, and a hole, in tables that rules lead to.
fn own_tables() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let (segment, vpn) = (Segment::plug(world, "eth2"), Segment::plug(world, "vpn0"));
    let (router, tunnel) = (segment.router(world, 50), vpn.router(world, 7));
    let address = router.host()[0];
    world.host.ip(&format!(
        "route add default via 10.50.0.1 dev eth2 table 101
         route add blackhole 10.98.0.0/16 table 101
         route add 10.96.0.0/16 via 10.7.0.1 dev vpn0 table 101
         rule add from {address} lookup 101 pref 10001
         route add 100.64.0.9/32 via 10.7.0.1 dev vpn0 table 52
         rule add lookup 52 pref 5270"
    ));
    let own = |when: &str| {
        for (to, by_tunnel) in [("10.96.0.1", true), ("100.64.0.9", true), ("10.98.0.1", false)] {
            router.forget();
            tunnel.forget();
            // What goes nowhere is an error to who sends it.
            let to: IpAddr = to.parse().expect("an address");
            world.host.enter(|| {
                if let Ok(socket) = std::net::UdpSocket::bind((address, 0)) {
                    let _ = socket.send_to(b"own", (to, PORT));
                }
            });
            let seen = (tunnel.seen().0.contains_key(&address), router.seen().0.contains_key(&address));
            assert_eq!(seen, (by_tunnel, false), "{when}: the host's own to {to}, by the tunnel and by the NIC");
        }
    };
    own("without egressd");
    router.serves_as(world, blue, &[address]).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with(&format!("exits: [{{address: {address}}}]")));
    let _egressd = world.egressd_alone();
    until("it is bound", || router.serves_as(world, blue, &[address]));
    own("with egressd");
}

/// Rules that select by more than the source.
fn own_rules() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let (segment, vpn) = (Segment::plug(world, "eth2"), Segment::plug(world, "vpn0"));
    let (router, tunnel) = (segment.router(world, 50), vpn.router(world, 7));
    let address = router.host()[0];
    world.host.ip("route add default via 10.50.0.1 dev eth2 metric 500\nroute add default via 10.7.0.1 dev vpn0 table 200");
    let to = SocketAddr::from(([10, 96, 0, 1], PORT));
    let sent = || {
        router.forget();
        tunnel.forget();
        let sent = world.host.enter(|| std::net::UdpSocket::bind((address, 0)).and_then(|socket| socket.send_to(b"own", to)));
        let seen = (tunnel.seen().0.contains_key(&address), router.seen().0.contains_key(&address));
        (sent.is_ok(), seen)
    };
    let own = |when: &str, preference: u32| {
        for (rule, expected) in [
            ("to 10.96.0.0/16 lookup 200", (true, (true, false))),
            ("ipproto udp lookup 200", (true, (true, false))),
            ("iif lo lookup 200", (true, (true, false))),
            ("uidrange 0-0 lookup 200", (true, (true, false))),
            ("to 10.96.0.0/16 prohibit", (false, (false, false))),
            ("to 10.96.0.0/16 blackhole", (false, (false, false))),
        ] {
            world.host.ip(&format!("rule add {rule} pref {preference}"));
            if when == "with egressd" {
                world.await_handled();
            }
            assert_eq!(sent(), expected, "{when}: by the tunnel and by the NIC, with a rule {rule}");
            world.host.ip(&format!("rule del pref {preference} {rule}"));
        }
    };
    own("without egressd", 9000);
    assert_eq!(sent().1, (false, false), "without a rule it leaves by the default route");
    // `ip rule` gives them the places right ahead of main.
    world.host.ip("rule add to 10.97.0.0/16 lookup 200\nrule add to 10.96.0.0/16 lookup 200");
    world.bind(&Binding::of(blue).with(&format!("exits: [{{address: {address}}}]")));
    let _egressd = world.egressd_alone();
    until("it is bound", || router.serves_as(world, blue, &[address]));
    assert_eq!(sent(), (true, (true, false)), "the host's rules were there first");
    world.host.ip("rule del to 10.96.0.0/16 lookup 200");
    own("with egressd", 9000);
    own("with egressd", 32765);
    world.await_handled();
    assert_eq!(sent(), (true, (false, true)), "without a rule it leaves by the exit's NIC");
}

/// By a NAT chain ahead of egressd's, which `status` tells of.
fn translated_ahead() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue);
    let segment = Segment::plug(world, "eth2");
    let router = segment.router(world, 50);
    let other = IpAddr::from([10, 50, 0, 66]);
    world.host.ip(&format!("addr add {other}/24 dev eth2\nroute add default via 10.50.0.1 dev eth2 metric 500"));
    router.serves(world, &blue.netns).expect_err("it is not bound");
    world.bind(&Binding::of(&blue.netns).with(&format!("exits: [{{address: {}}}]", router.host()[0])));
    let _egressd = world.egressd_alone();
    until("it is bound", || router.serves_as(world, &blue.netns, &router.host()[..1]));
    world.host.nft(&format!(
        "table ip ahead {{ chain c {{ type nat hook postrouting priority 90; ip saddr {} snat to {other}; }}; }}",
        blue.address
    ));
    world.await_handled();
    router.forget();
    let ((), elsewhere) = world.watch(|| {
        let mut flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it leaves");
        for _ in 0..3 {
            flow.ask().expect("its later packets do, too");
        }
    });
    let seen = router.seen();
    assert!(seen.0.keys().eq([&other]) && elsewhere.is_empty(), "{seen}; elsewhere {elsewhere}");
}

/// An engine moves the default route to the network whose name comes first. What is open keeps its address, and asks for the new gateway with it.
fn another_link() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, other) = (&plain.world, &plain.blue, &plain.free);
    let next = world.bridge("plain1", 29);
    world.masquerade(&next);
    let neighbour = world.container("neighbour", &next, 11);
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    plain.blue_by_eth1("on one network");
    let mut flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    world.connect(blue, &next, 10);
    until("what is open goes on by the new link", || flow.ask().map(drop).map_err(|error| error.to_string()));
    assert_eq!(flow.ask().expect("it goes on").ip(), IpAddr::from(Nic::Eth1.eip()));
    until("new ones are bound, too", || world.leaves_by(&blue.netns, Nic::Eth1));
    // No engine has these networks: who is on them beside it goes as ever, and has nothing of its exit.
    for free in [&neighbour, other] {
        world.leaves_by(&free.netns, Nic::Eth0).expect("nobody asked for it");
    }
    for thief in [&neighbour, other] {
        let address = IpAddr::from(blue.address);
        thief.take(address);
        let ((), seen) = world.watch(|| (0..3).for_each(|_| thief.shout_as(address)));
        assert_eq!(seen.0.values().sum::<u64>(), 0, "{}: {seen}", thief.netns.name());
    }
    assert_eq!(flow.ask().expect("it goes on").ip(), IpAddr::from(Nic::Eth1.eip()));
    world.disconnect(blue, &next);
    until("and back again", || flow.ask().map(drop).map_err(|error| error.to_string()));
    plain.blue_by_eth1("on one network again");
}

/// As where a cloud's machine has two NICs in one subnet.
fn a_shared_router() {
    let plain = Plain::new(World::builder().ipv6(false).subnets(world::Subnets::One).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.leaves_by(blue, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(blue).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    plain.blue_by_eth1("both NICs are up");
    world.host.ip("link set eth0 down");
    until("it is seen", || world.leaves_by(blue, Nic::Eth1));
    assert!(world.host.run(&["ip", "route"]).lines().all(|line| !line.starts_with("default")), "eth0 took its route along");
    plain.blue_by_eth1("the other NIC is down");
}

/// The kernel's limit of ICMP is one error a second and peer; a client that retries must not be left to its time limit.
fn refused_at_each_try() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.bind(&Binding::of(blue).with("exits: [{address: 172.31.99.99}]"));
    let _egressd = world.egressd_alone();
    world.await_rows("netns/blue", |row| row["reason"] == "AddressNotFound");
    for attempt in 0..8 {
        let error = talk::ask_tcp(blue, (SERVER, PORT).into()).expect_err("it has no exit");
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "attempt {attempt}: {error}");
    }
    // The inside is there all the same.
    talk::serve(&world.host, &[IpAddr::from([172, 28, 0, 1])], &[PORT + 1]);
    talk::ask_tcp(blue, ([172, 28, 0, 1], PORT + 1).into()).expect("the host itself answers");
}
