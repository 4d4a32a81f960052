//! Other programs' policy rules, packet marks, settings and proxies on the host, which bound workloads' packets come by.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use nix::sys::socket::{setsockopt, sockopt};
use world::{
    Binding, Nic, Scenario, World,
    egressd::Egressd,
    layout::{PORT, SERVER},
    segment::{Plain, Segment},
    status::until,
    talk,
};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        Scenario::new("a VPN that takes all with a rule ahead of others, as wg-quick does, leaves the exit alone", a_vpn_for_all),
        Scenario::new("a policy rule that leaves no place ahead of it is told", no_place_ahead),
        Scenario::new("the host's addresses are reached where their look-up was moved behind", local_moved_behind),
        Scenario::new("a transparent proxy's mark 1 leads a bound workload to the proxy", a_transparent_proxy),
    ];
    for (name, rule) in RULES {
        scenarios
            .push(Scenario::new(format!("the exit goes on behind another program's policy rule that {name}"), move || a_rule_ahead(rule)));
    }
    for link in ["eth1", "plain0"] {
        scenarios.push(Scenario::new(format!("the forwarding of {link} alone is put back"), move || forwarding_of_one_link(link)));
    }
    for hook in ["forward", "postrouting"] {
        scenarios
            .push(Scenario::new(format!("a mark that another program sets in {hook} leaves the exit alone"), move || a_late_mark(hook)));
        scenarios.push(Scenario::new(format!("a mark that another program sets in {hook} leaves exits by turn alone"), move || {
            a_late_mark_and_turns(hook)
        }));
    }
    scenarios
}

/// Rules that take what bound workloads send, for each family. WORKLOAD is the address of one. Table 101 leads to eth0's gateway. A rule without
/// a preference goes ahead of all others.
const RULES: [(&str, &str); 5] = [
    ("looks up the main table", "from all lookup main pref 5"),
    ("looks up the main table for a bridge", "iif plain0 lookup main pref 100"),
    ("jumps ahead", "from all goto 32766 pref 50"),
    ("names the workload", "from WORKLOAD lookup 101"),
    ("forbids all that comes by a bridge", "iif plain0 prohibit pref 1000"),
];

/// A world with blue bound to eth1, and the daemon.
fn bound() -> (Plain, Egressd) {
    let plain = Plain::new(World::builder().build());
    let egressd = bind(&plain);
    (plain, egressd)
}

/// Binds blue, which was not bound before, to eth1.
fn bind(plain: &Plain) -> Egressd {
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.leaves_by(blue, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(blue).to(world, Nic::Eth1));
    let egressd = world.egressd_alone();
    plain.blue_by_eth1("at first");
    egressd
}

/// Until blue has its exit, and then for certain.
fn blue_keeps_its_exit(plain: &Plain, when: &str) {
    until(when, || plain.world.leaves_by(&plain.blue.netns, Nic::Eth1));
    plain.blue_by_eth1(when);
}

/// Runs `ip rule` on the host for each family.
fn rule(plain: &Plain, line: &str) {
    let of: [(&str, IpAddr); 2] = [("-4", plain.blue.address.into()), ("-6", plain.blue.address6.into())];
    for (family, workload) in of {
        let line = line.replace("WORKLOAD", &workload.to_string());
        let words: Vec<&str> = ["ip", family, "rule"].into_iter().chain(line.split(' ')).collect();
        plain.world.host.run(&words);
    }
}

fn a_rule_ahead(line: &str) {
    let (plain, mut egressd) = bound();
    let layout = plain.world.layout;
    for gateway in [IpAddr::from(layout.gateway(Nic::Eth0)), layout.gateway6(Nic::Eth0).into()] {
        plain.world.host.ip(&format!("route add default via {gateway} dev eth0 table 101"));
    }
    rule(&plain, &format!("add {line}"));
    blue_keeps_its_exit(&plain, "the rule is there");
    egressd.kill();
    plain.blue_by_eth1("without the daemon");
    egressd.start();
    plain.blue_by_eth1("it is started again");
    if !line.contains("prohibit") {
        plain.free_by_eth0("the rule is there");
    }
    rule(&plain, &format!("del {line}"));
    blue_keeps_its_exit(&plain, "the rule is gone");
    plain.free_by_eth0("the rule is gone");
}

fn a_vpn_for_all() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, free) = (&plain.world, &plain.blue.netns, &plain.free.netns);
    let router = Segment::plug(world, "wg0").router(world, 7);
    let up = || {
        for gateway in router.own() {
            world.host.ip(&format!("route add default via {gateway} dev wg0 table 51820"));
        }
        rule(&plain, "add not fwmark 51820 table 51820");
        rule(&plain, "add table main suppress_prefixlength 0");
    };
    let down = || {
        rule(&plain, "del table main suppress_prefixlength 0");
        rule(&plain, "del not fwmark 51820 table 51820");
        for gateway in router.own() {
            world.host.ip(&format!("route del default via {gateway} dev wg0 table 51820"));
        }
    };
    let by_the_vpn = |when: &str| router.serves(world, free).unwrap_or_else(|error| panic!("{when}: {error}"));
    up();
    router.serves(world, blue).expect("the VPN takes all");
    down();
    let mut egressd = bind(&plain);
    plain.free_by_eth0("without the VPN");
    up();
    blue_keeps_its_exit(&plain, "the VPN is up");
    by_the_vpn("it is not bound");
    egressd.kill();
    plain.blue_by_eth1("without the daemon");
    egressd.start();
    plain.blue_by_eth1("it is started again");
    by_the_vpn("it is not bound afterwards");
    down();
    blue_keeps_its_exit(&plain, "the VPN is down");
}

fn no_place_ahead() {
    let (plain, _egressd) = bound();
    rule(&plain, "add from all lookup main pref 1");
    let problems = || plain.world.status()["problems"].to_string();
    until("it is told", || {
        let problems = problems();
        let told = ["program's policy rule 1 leaves", "IPv6 policy rule 1 leaves"].iter().all(|words| problems.contains(words));
        if told { Ok(()) } else { Err(problems) }
    });
    plain.world.leaves_by(&plain.blue.netns, Nic::Eth1).expect_err("there is no place ahead of it");
    rule(&plain, "add from all lookup main pref 2");
    rule(&plain, "del from all lookup main pref 1");
    blue_keeps_its_exit(&plain, "there is a place ahead of it");
    assert_eq!(problems(), "[]");
}

/// As on hosts with VRFs, whose own look-up has to come first.
fn local_moved_behind() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue);
    rule(&plain, "add pref 32765 lookup local");
    rule(&plain, "del pref 0");
    let own = Nic::ALL.map(|nic| world.layout.own(nic));
    let ([a, b, ..], [c, d, e, f, ..]) = (blue.address.octets(), blue.address6.segments());
    let bridge: [IpAddr; 2] = [[a, b, 0, 1].into(), [c, d, e, f, 0, 0, 0, 1].into()];
    talk::serve(&world.host, &[own.concat(), bridge.to_vec()].concat(), &[PORT]);
    let reached = |when: &str| {
        for &at in own.iter().flatten().chain(&bridge) {
            let source: IpAddr = if at.is_ipv4() { blue.address.into() } else { blue.address6.into() };
            let seen = blue.ask_tcp((at, PORT)).unwrap_or_else(|error| panic!("{when}: {at} from the workload: {error}"));
            assert_eq!(seen.ip(), source, "{when}: {at} from the workload");
        }
        for (&exit, &at) in own[1].iter().zip(&own[0]) {
            let seen = talk::ask_udp_from(&world.host, SocketAddr::new(exit, 0), (at, PORT).into());
            let seen = seen.unwrap_or_else(|error| panic!("{when}: {at} from the host as {exit}: {error}"));
            assert_eq!(seen.ip(), exit, "{when}: {at} from the host");
        }
    };
    reached("before");
    let mut egressd = bind(&plain);
    reached("alive");
    egressd.kill();
    reached("dead");
    plain.blue_by_eth1("dead");
}

/// `net.ipv4.ip_forward` stays as it is.
fn forwarding_of_one_link(link: &str) {
    let (plain, _egressd) = bound();
    for round in 0..2 {
        plain.world.host.sysctl(&format!("ipv4/conf/{link}/forwarding"), "0");
        blue_keeps_its_exit(&plain, &format!("it is taken back, round {round}"));
    }
}

/// A mark for shaping, set when the packet has its route already.
fn a_late_mark(hook: &str) {
    let (plain, mut egressd) = bound();
    let shaper = format!("chain shaper {{ type filter hook {hook} priority mangle; oifname \"eth1\" counter meta mark set 10; }};");
    plain.world.host.nft(&format!("table inet shaper {{ {shaper} }};"));
    plain.blue_by_eth1("marked");
    let listed = plain.world.host.run(&["nft", "list", "table", "inet", "shaper"]);
    assert!(!listed.contains("packets 0 "), "the packets came by it: {listed}");
    egressd.kill();
    plain.blue_by_eth1("without the daemon");
    plain.free_by_eth0("it is not bound");
}

/// As tc is told of packets, and as Calico marks what its policy accepts: other bits, or all of them.
fn a_late_mark_and_turns(hook: &str) {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue);
    let exits = Nic::ALL.map(|nic| {
        let address: IpAddr = world.layout.address(nic).into();
        format!("{{address: {address}, gateway: '{}'}}", world.gateway(nic, address))
    });
    world.bind(&Binding::of(&blue.netns).with(&format!("exits: [{}], spread: RoundRobin", exits.join(", "))));
    let _egressd = world.egressd_alone();
    let turn = |when: &str| {
        let ask = || blue.ask_tcp((SERVER, PORT)).unwrap_or_else(|error| panic!("{when}: {error}")).ip();
        let seen: Vec<IpAddr> = (0..6).map(|_| ask()).collect();
        for nic in Nic::ALL {
            let own = seen.iter().filter(|address| **address == IpAddr::from(nic.eip())).count();
            assert_eq!(own, 3, "{when}: {seen:?}");
        }
    };
    until("both exits are there", || blue.ask_tcp((SERVER, PORT)).map(drop).map_err(|error| error.to_string()));
    turn("without it");
    for set in ["10", "meta mark | 0x10000", "meta mark | 0x100"] {
        let shaper = format!("chain shaper {{ type filter hook {hook} priority mangle; counter meta mark set {set}; }};");
        world.host.nft(&format!("table inet shaper {{ {shaper} }};"));
        turn(set);
        let listed = world.host.run(&["nft", "list", "table", "inet", "shaper"]);
        assert!(!listed.contains("packets 0 "), "the packets came by it: {listed}");
        world.host.nft("delete table inet shaper");
    }
}

/// The proxy that the kernel's documentation has (tproxy.rst), with its mark.
fn a_transparent_proxy() {
    const AT: u16 = 3129;
    let (plain, mut egressd) = bound();
    let (world, blue, free) = (&plain.world, &plain.blue, &plain.free);
    let seen = |from: &world::Container| from.ask_tcp((SERVER, PORT)).map(|seen| seen.ip()).map_err(|error| error.to_string());
    assert_ne!(seen(blue), Ok(blue.address.into()), "there is no proxy yet");
    // With this the bridge runs the chain itself, and the socket is lost on the way to the host.
    world.host.sysctl("bridge/bridge-nf-call-iptables", "0");
    proxy(world, AT);
    world.host.run(&["ip", "rule", "add", "fwmark", "1", "lookup", "100", "pref", "500"]);
    world.host.run(&["ip", "route", "add", "local", "default", "dev", "lo", "table", "100"]);
    let proxied = format!("tcp dport {PORT} iifname plain0 tproxy to :{AT} meta mark set 1 accept");
    world.host.nft(&format!("table ip proxy {{ chain proxied {{ type filter hook prerouting priority mangle; {proxied}; }}; }};"));
    for when in ["alive", "dead"] {
        assert_eq!(seen(free), Ok(free.address.into()), "{when}: who is not bound");
        assert_eq!(seen(blue), Ok(blue.address.into()), "{when}: who is bound");
        egressd.kill();
    }
}

/// A transparent server on the host, whatever the address that is called. It answers as all servers do.
fn proxy(world: &World, port: u16) {
    let listener = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("the port is free");
    setsockopt(&listener, sockopt::IpTransparent, &true).expect("root may");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

/// Who is gone has no answer.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let peer = stream.peer_addr()?;
    writeln!(stream, "{} {}", peer.ip(), peer.port())?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
