//! What a binding names and cannot serve as it is written is held, and what it names beside that goes on: the host's own packets, and the
//! rest of a subnet.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use world::{
    Binding, Netns, Nic, Scenario, Subnets, World,
    layout::{PORT, SERVER, SERVER6},
    segment::{Plain, Segment},
    status::until,
    talk,
    traffic::nobody,
};

use crate::support::await_reason;

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (family, v6) in [("IPv4", false), ("IPv6", true)] {
        scenarios.push(Scenario::new(format!("a bound subnet of an uplink leaves the host's own {family} traffic alone"), move || {
            a_subnet_of_an_uplink(v6)
        }));
        scenarios.push(Scenario::new(
            format!("a bound subnet with the host's address leaves the host's own {family} traffic alone"),
            move || a_subnet_with_the_hosts_address(v6),
        ));
    }
    scenarios.push(Scenario::new("who is bound on a host without an uplink is held when one comes", no_uplink_yet));
    for unknown in UNKNOWN {
        let name = format!("a routed subnet is held while its interface is unknown, and served afterwards: {}", unknown.what);
        scenarios.push(Scenario::new(name, move || an_unknown_interface(unknown)));
    }
    for (order, priority) in [("comes later and has a higher priority", true), ("has the first name", false)] {
        let name = format!("of overlapping subnets the loser keeps the rest, when the winner {order}");
        scenarios.push(Scenario::new(name, move || overlapping_subnets(priority)));
    }
    scenarios
}

/// A server beside the host routes through the host, which has one leg in that subnet.
fn a_subnet_of_an_uplink(v6: bool) {
    let world = World::builder().subnets(Subnets::Two).build();
    forward(&world);
    let beside = world.neighbour(Nic::Eth0);
    let like: IpAddr = if v6 { SERVER6.into() } else { SERVER.into() };
    let (own, exit) = (world.layout.private(Nic::Eth0, like), world.layout.private(Nic::Eth1, like));
    let from = world.neighbour_at(Nic::Eth0, like, PORT).ip();
    beside.ip(&format!("route replace default via {own}"));
    // While it is not bound, the host tells it that the router is as near as itself: it would go there from then on, past the host.
    for family in ["ipv4", "ipv6"] {
        ["all", "eth0"].iter().for_each(|place| beside.sysctl(&format!("{family}/conf/{place}/accept_redirects"), "0"));
    }
    // An answer would come by eth0 with the server's address, which the cloud does not let through.
    let by_the_exit = || {
        let ((), seen) = world.watch(|| (0..3).for_each(|_| talk::shout(beside, from, nobody(like))));
        seen.count(Nic::Eth1, exit)
    };
    let hosts_own = |when: &str| {
        let right = |result: Result<(), String>| result.unwrap_or_else(|error| panic!("{when}: {error}"));
        right(world.leaves_by(&world.host, Nic::Eth0));
        right(world.leaves_to_neighbour_by(&world.host, Nic::Eth0, Nic::Eth0));
    };
    hosts_own("before");
    assert_eq!(by_the_exit(), 0, "it is not bound");
    let subnet = if v6 { "'fd31:0:1::/64'" } else { "172.31.0.0/20" };
    world.bind(&Binding::new("beside", &format!("addresses: [{subnet}]")).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    until("the server beside has its exit", || match by_the_exit() {
        3 => Ok(()),
        other => Err(format!("{other} of 3 packets")),
    });
    hosts_own("afterwards");
    egressd.kill();
    hosts_own("without the daemon");
    assert_eq!(by_the_exit(), 3, "without the daemon");
}

/// What the host sends with an address in the bound subnet, into the subnet and out of it.
fn a_subnet_with_the_hosts_address(v6: bool) {
    let world = World::builder().build();
    forward(&world);
    let lan = world.lan();
    let (server, in_lan, own, subnet): (IpAddr, IpAddr, _, _) = if v6 {
        (SERVER6.into(), lan.address6.into(), "fd10:9::1", "'fd10:9::/64'")
    } else {
        (SERVER.into(), lan.address.into(), "10.9.0.1", "10.9.0.0/24")
    };
    let own: IpAddr = own.parse().expect("an address");
    let served = || world.leaves_by_to(&lan.netns, Nic::Eth1, (server, PORT).into());
    talk::serve(&lan.netns, &[in_lan], &[PORT]);
    let hosts_own = |when: &str| {
        let near = talk::ask_tcp(&world.host, (in_lan, PORT).into()).unwrap_or_else(|error| panic!("{when}: into the subnet: {error}"));
        assert_eq!(near.ip(), own, "{when}");
        let far = talk::ask_udp_from(&world.host, SocketAddr::new(own, 0), (server, PORT).into());
        let far = far.unwrap_or_else(|error| panic!("{when}: to the internet as {own}: {error}"));
        assert_eq!(far.ip(), world.layout.public(Nic::Eth0, server), "{when}");
    };
    hosts_own("before");
    served().expect_err("it is not bound");
    world.bind(&Binding::new("lan", &format!("addresses: [{subnet}]")).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    until("it is bound", served);
    hosts_own("afterwards");
}

/// Nothing leads outside while egressd lives, as before a line is dialled; then a default route comes, and egressd is dead.
fn no_uplink_yet() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    plain.free_by_eth0("at first");
    world.leaves_by(blue, Nic::Eth0).expect("it is not bound");
    let routes = ["-4", "-6"].map(|family| world.host.run(&["ip", family, "route", "show", "default"])).concat();
    let each = |verb: &str| routes.lines().map(|route| format!("route {verb} {route}\n")).collect::<String>();
    world.host.ip(&each("del"));
    world.bind(&Binding::of(blue).with("exits: [{address: 172.31.0.99}]"));
    let mut egressd = world.egressd_alone();
    world.await_state("netns/blue", "Dropped");
    egressd.kill();
    world.host.ip(&each("add"));
    world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("a default route came: {error}"));
    plain.free_by_eth0("beside it");
}

fn forward(world: &World) {
    world.host.sysctl("ipv4/ip_forward", "1");
    world.host.sysctl("ipv6/conf/all/forwarding", "1");
}

/// Why nobody knows by which interface a subnet comes. ROUTER is the address of the container that leads to it, OTHER its neighbour's, and NET
/// the subnet.
#[derive(Clone, Copy)]
struct Unknown {
    what: &'static str,
    /// For `ip`, in each family.
    lines: &'static [&'static str],
    /// That the binding names.
    interface: Option<&'static str>,
    reason: &'static str,
}

const UNKNOWN: [Unknown; 5] = [
    Unknown { what: "there is no route", lines: &[], interface: None, reason: "NoRouteToSource" },
    Unknown {
        what: "the route has two next hops",
        lines: &["route add NET nexthop via ROUTER dev plain0 nexthop via OTHER dev plain0"],
        interface: None,
        reason: "NoRouteToSource",
    },
    Unknown {
        what: "each half has a route",
        lines: &["route add HALF1 via ROUTER dev plain0", "route add HALF2 via ROUTER dev plain0"],
        interface: None,
        reason: "NoRouteToSource",
    },
    Unknown {
        what: "the route is in another table",
        lines: &["route add NET via ROUTER dev plain0 table 77", "rule add to NET lookup 77 pref 900"],
        interface: None,
        reason: "NoRouteToSource",
    },
    Unknown {
        what: "the interface that is named is not there yet",
        lines: &["route add NET via ROUTER dev plain0"],
        interface: Some("plain9"),
        reason: "NoSuchInterface",
    },
];

/// A subnet behind a container: `10.5.0.0/24` and `fd10:5::/64`.
const BEHIND: [[&str; 3]; 2] = [["10.5.0.0/24", "10.5.0.0/25", "10.5.0.128/25"], ["fd10:5::/64", "fd10:5::/65", "fd10:5:0:0:8000::/65"]];

fn an_unknown_interface(unknown: Unknown) {
    let plain = Plain::new(World::builder().build());
    let world = &plain.world;
    let deep = behind(&plain);
    let on_host = |lines: &[&str]| lines.iter().for_each(|line| in_each_family(&plain, line));
    on_host(unknown.lines);
    // An answer would have no way back: nobody is asked who answers.
    until("nothing holds it without egressd", || match world.sends_nothing_out(&deep) {
        Ok(()) => Err("nothing left".to_owned()),
        Err(_) => Ok(()),
    });
    let trickle = world.trickle(&deep, false);
    until("so it is with what it began", || if world.seen().is_empty() { Err("nothing left".to_owned()) } else { Ok(()) });
    let [net, net6] = BEHIND.map(|[net, ..]| net);
    let named = |name: &str| format!("addresses: [{{cidr: {net}, interface: {name}}}, {{cidr: '{net6}', interface: {name}}}]");
    let addresses = unknown.interface.map_or(format!("addresses: [{net}, '{net6}']"), named);
    world.bind(&Binding::new("deep", &addresses).to(world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    for net in [net, net6] {
        await_reason(world, net, unknown.reason);
    }
    until("what it began before has ended", || match world.count(|| thread::sleep(Duration::from_millis(100))) {
        seen if seen.is_empty() => Ok(()),
        seen => Err(format!("{seen} left")),
    });
    drop(trickle);
    let held = |when: &str| world.sends_nothing_out(&deep).unwrap_or_else(|error| panic!("{when}: {error}"));
    held("alive");
    egressd.kill();
    held("dead");
    egressd.start();
    held("started again");
    plain.free_by_eth0("it is not bound");
    if let Some(name) = unknown.interface {
        world.host.ip(&format!("link set plain0 name {name}"));
    } else {
        on_host(&["route replace NET via ROUTER dev plain0"]);
    }
    until("it is served", || world.leaves_by(&deep, Nic::Eth1));
    plain.free_by_eth0("it is not bound afterwards");
}

/// A server in a subnet that the container blue routes for.
fn behind(plain: &Plain) -> Netns {
    let (world, router) = (&plain.world, &plain.blue.netns);
    let deep = Netns::add("deep");
    deep.sysctl("ipv6/conf/default/dad_transmits", "0");
    router.sysctl("ipv4/ip_forward", "1");
    router.sysctl("ipv6/conf/all/forwarding", "1");
    router.ip("link add in type veth peer name eth0 netns deep
         addr add 10.5.0.1/24 dev in
         addr add fd10:5::1/64 dev in nodad
         link set in up");
    deep.ip("addr add 10.5.0.9/24 dev eth0
         addr add fd10:5::9/64 dev eth0 nodad
         link set eth0 up
         route add default via 10.5.0.1
         route add default via fd10:5::1");
    for (iptables, [net, ..]) in ["iptables", "ip6tables"].into_iter().zip(BEHIND) {
        world.host.run(&[iptables, "-t", "nat", "-A", "POSTROUTING", "-s", net, "-o", "eth+", "-j", "MASQUERADE"]);
    }
    deep
}

/// Runs `ip` on the host with a line for IPv4, and with the same one for IPv6.
fn in_each_family(plain: &Plain, line: &str) {
    let (router, other) = (&plain.blue, &plain.free);
    let of: [(&str, IpAddr, IpAddr); 2] =
        [("-4", router.address.into(), other.address.into()), ("-6", router.address6.into(), other.address6.into())];
    for ((family, router, other), [net, half1, half2]) in of.into_iter().zip(BEHIND) {
        let words = [("ROUTER", router.to_string()), ("OTHER", other.to_string())];
        let line = words.iter().fold(line.to_owned(), |line, (word, value)| line.replace(word, value));
        let line = line.replace("HALF1", half1).replace("HALF2", half2).replace("NET", net);
        let words: Vec<&str> = ["ip", family].into_iter().chain(line.split(' ')).collect();
        plain.world.host.run(&words);
    }
}

/// A whole subnet is bound to eth1, and its lower half to another NIC, which wins.
fn overlapping_subnets(later: bool) {
    let plain = Plain::new(World::builder().build());
    let (world, low) = (&plain.world, &plain.blue.netns);
    // Of the bridge's addresses, ends in 130: in the whole alone.
    let high = &plain.free;
    high.netns.ip("addr flush dev eth0 scope global
         addr add 172.28.0.130/16 dev eth0
         addr add fd72:0:0:1c::82/64 dev eth0 nodad
         route replace default via 172.28.0.1
         route replace default via fd72:0:0:1c::1");
    let high = &high.netns;
    let router = Segment::plug(world, "eth2").router(world, 7);
    let whole = Binding::new("b-whole", "addresses: [172.28.0.0/24, 'fd72:0:0:1c::/64']").to(world, Nic::Eth1);
    let part = Binding::new("a-part", "addresses: [172.28.0.0/25, 'fd72:0:0:1c::/121']").with(&router.exits(true));
    router.serves(world, low).expect_err("it is not bound");
    world.leaves_by(high, Nic::Eth1).expect_err("it is not bound");
    let right = |when: &str| {
        router.serves(world, low).unwrap_or_else(|error| panic!("{when}: what both name: {error}"));
        world.leaves_by(high, Nic::Eth1).unwrap_or_else(|error| panic!("{when}: what the whole alone names: {error}"));
    };
    if !later {
        world.bind(&part);
    }
    world.bind(&whole);
    let mut egressd = world.egressd_alone();
    if later {
        world.leaves_by(low, Nic::Eth1).unwrap_or_else(|error| panic!("the whole has all at first: {error}"));
        world.bind(&part.with("priority: 9"));
    }
    until("what both name is the winner's", || router.serves(world, low));
    right("alive");
    egressd.kill();
    right("dead");
    egressd.start();
    right("started again");
    world.unbind("a-part");
    until("the whole has all again", || world.leaves_by(low, Nic::Eth1));
    world.leaves_by(high, Nic::Eth1).unwrap_or_else(|error| panic!("in the end: {error}"));
}
