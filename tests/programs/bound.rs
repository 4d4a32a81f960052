//! Who is bound leaves by its exit, and what is not for an exit stays as it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use world::{
    Nic, Programs, Subnets, World,
    layout::{PORT, SERVER, SERVER6},
    status::until,
    talk,
};

use crate::lab::{BATCH, assert_leaves_by, await_state, binding, leaves_by, servers};

pub fn a_control_group(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let programs = Programs::new();
    programs.make(BATCH);
    let (batch, below, other) = (programs.within(BATCH), programs.within("/jobs/batch/below/deep"), programs.within("/jobs/other"));
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    leaves_by(&world, &batch, Nic::Eth1).expect_err("without egressd it is not bound");
    let _egressd = world.egressd_alone();
    await_state(&world, "cgroup/jobs/batch", "Bound");
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert_leaves_by(&world, &below, Nic::Eth1);
    // A new neighbour is held for the moment until it is known.
    programs.make("/jobs/other");
    world.await_handled();
    assert_leaves_by(&world, &other, Nic::Eth0);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    let explained = world.egressctl(&["explain", "cgroup/jobs/batch", &SERVER.to_string()]).expect("it is known");
    assert!(explained.contains("NIC       eth1") && explained.contains("control group"), "{explained}");
}

pub fn a_user() {
    // With a strict filter the answers, which come by eth1 for the host's address, would be dropped.
    let world = World::builder().rp_filter(1).build();
    let programs = Programs::new();
    let (crawler, root) = (programs.program().user(4242), programs.program());
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    leaves_by(&world, &crawler, Nic::Eth1).expect_err("without egressd it is not bound");
    let _egressd = world.egressd_alone();
    assert_leaves_by(&world, &crawler, Nic::Eth1);
    assert_leaves_by(&world, &root, Nic::Eth0);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

/// Addresses of eth1 beside its own, which are added to it.
pub fn second_exit(world: &World) -> [IpAddr; 2] {
    let [a, b, c, d] = world.layout.address(Nic::Eth1).octets();
    let mut segments = world.layout.address6(Nic::Eth1).segments();
    segments[7] += 0x100;
    let (v4, v6) = (Ipv4Addr::new(a, b, c, d + 16), std::net::Ipv6Addr::from(segments));
    world.host.ip(&format!("addr add {v4}/20 dev eth1\naddr add {v6}/64 dev eth1 nodad"));
    [v4.into(), v6.into()]
}

pub fn exits(addresses: &[IpAddr]) -> String {
    let exits: Vec<String> = addresses.iter().map(|address| format!("{{address: '{address}'}}")).collect();
    format!("exits: [{}]", exits.join(", "))
}

pub fn two_exits() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    let second = second_exit(&world);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1).with("priority: 1"));
    let user = |priority: u8| {
        let user = world::Binding::new("crawler", "hostSelector: {users: ['4242']}").with(&exits(&second));
        world.bind(&user.with(&format!("priority: {priority}")));
    };
    user(0);
    let _egressd = world.egressd_alone();
    let (batch, crawler, both) = (programs.within(BATCH), programs.program().user(4242), programs.within(BATCH).user(4242));
    let own = [world.layout.address(Nic::Eth1).into(), world.layout.address6(Nic::Eth1).into()];
    let sent = |who: &world::programs::Program, exits: [IpAddr; 2]| {
        for like in [IpAddr::from(SERVER), SERVER6.into()] {
            let ((), seen) = world.watch(|| who.shout(like));
            let exit = exits[usize::from(like.is_ipv6())];
            assert!(seen.count(Nic::Eth1, exit) >= 2 && seen.0.len() == 1, "all as {exit}: {seen}");
        }
    };
    sent(&batch, own);
    sent(&crawler, second);
    sent(&both, own);
    user(2);
    world.await_handled();
    sent(&both, second);
    sent(&batch, own);
}

pub fn inside_and_loopback() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let container = world.container("blue", &bridge, 10);
    let _guests = talk::serve(&container.netns, &[container.address.into(), container.address6.into()], &[PORT]);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let batch = programs.within(BATCH);
    for address in [IpAddr::from(container.address), container.address6.into()] {
        batch.tcp((address, PORT).into()).expect("the inside is reached");
        batch.udp((address, PORT).into()).expect("the inside is reached");
    }
    for address in ["127.0.0.1", "::1"] {
        let at = SocketAddr::new(address.parse().expect("an address"), PORT);
        let server = batch.serve(at);
        server.seen.as_ref().expect("the port is free");
        assert_eq!(batch.tcp(at).expect("the loopback is never touched").ip(), at.ip());
        assert_eq!(batch.udp(at).expect("the loopback is never touched").ip(), at.ip());
    }
    let own = SocketAddr::new(world.layout.address(Nic::Eth0).into(), PORT);
    let server = programs.program().serve(own);
    server.seen.as_ref().expect("the port is free");
    batch.tcp(own).expect("the host's own address is the host");
    // Another program's rule leads a destination outside to this host.
    world.host.nft(&format!(
        "table ip elsewhere {{ chain output {{ type nat hook output priority -100; ip daddr 198.51.100.77 dnat to {}; }}\n}}",
        own.ip()
    ));
    batch.tcp(SocketAddr::new([198, 51, 100, 77].into(), PORT)).expect("it is led to the host itself");
    assert_leaves_by(&world, &batch, Nic::Eth1);
}

pub fn called_at_the_other_nic() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let batch = programs.within(BATCH);
    let server = batch.serve("0.0.0.0:8090".parse().expect("an address"));
    server.seen.as_ref().expect("the port is free");
    for nic in Nic::ALL {
        let ((), seen) = world.watch(|| {
            talk::ask_tcp(&world.internet, (nic.eip(), 8090).into()).expect("it answers");
        });
        let other = if nic == Nic::Eth0 { Nic::Eth1 } else { Nic::Eth0 };
        assert!(seen.by(nic) > 0 && seen.by(other) == 0, "answers leave by the NIC that was called: {seen}");
    }
    let each = Nic::ALL.map(|nic| batch.serve(SocketAddr::new(world.layout.address(nic).into(), 8091)));
    for server in &each {
        server.seen.as_ref().expect("the port is free");
    }
    for nic in Nic::ALL {
        talk::ask_udp(&world.internet, (nic.eip(), 8091).into()).expect("datagrams are answered, too");
    }
    assert_leaves_by(&world, &batch, Nic::Eth1);
}

pub fn some_ports() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    programs.make(BATCH);
    let ports = format!("ports: [{{protocol: TCP, port: {PORT}}}]");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1).with(&ports));
    let _egressd = world.egressd_alone();
    let (batch, server) = (programs.within(BATCH), servers(&world)[0]);
    let public = |nic: Nic| IpAddr::from(nic.eip());
    assert_eq!(batch.tcp(server).expect("it is bound").ip(), public(Nic::Eth1));
    assert_eq!(batch.udp(server).expect("it goes by the default route").ip(), public(Nic::Eth0));
    assert_eq!(batch.tcp((SERVER, 443).into()).expect("it goes by the default route").ip(), public(Nic::Eth0));
}

pub fn by_turn() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    let own: IpAddr = world.layout.address(Nic::Eth1).into();
    let (other, third): (IpAddr, IpAddr) = (second_exit(&world)[0], world.layout.address(Nic::Eth0).into());
    let spread = world::Binding::new("batch", "hostSelector: {cgroups: [/jobs/batch]}").with(&exits(&[own, other, third]));
    world.bind(&spread.with("spread: RoundRobin"));
    let _egressd = world.egressd_alone();
    let batch = programs.within(BATCH);
    // Each shouts in two flows, a datagram's and a connection's.
    let ((), seen) = world.watch(|| (0..6).for_each(|_| batch.shout(SERVER.into())));
    let counts = [(Nic::Eth1, own), (Nic::Eth1, other), (Nic::Eth0, third)].map(|(nic, exit)| seen.count(nic, exit));
    assert!(counts.iter().all(|count| *count >= 4) && seen.0.len() == 3, "a third each: {seen}");
}

pub fn source_ports() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    programs.make(BATCH);
    // One exit, and two ranges.
    let address = IpAddr::from(world.layout.address(Nic::Eth1));
    let bind = |name: &str, who: &str, ports: &str| {
        let exit = format!("exits: [{{address: {address}, gateway: {}, sourcePorts: {ports}}}]", world.gateway(Nic::Eth1, address));
        world.bind(&world::Binding::new(name, &format!("hostSelector: {{{who}}}")).with(&exit));
    };
    bind("batch", "cgroups: [/jobs/batch]", "40000-40099");
    bind("crawler", "users: ['4242']", "50000-50099");
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    let of = |who: &world::programs::Program, ports: std::ops::Range<u16>| {
        servers(&world)
            .into_iter()
            .flat_map(|server| [who.tcp(server), who.udp(server)])
            .all(|seen| ports.contains(&seen.expect("it has a way out").port()))
    };
    assert!(!of(&batch, 40_000..40_100) && !of(&crawler, 50_000..50_100), "nothing is bounded yet");
    let mut egressd = world.egressd_alone();
    assert!(of(&batch, 40_000..40_100) && of(&crawler, 50_000..50_100));
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert!(of(&batch, 40_000..40_100) && of(&crawler, 50_000..50_100), "a restart changes nothing");
}

pub fn marked_by_others() {
    let world = World::builder().ipv6(false).build();
    let (programs, gateway) = (Programs::new(), world.layout.gateway(Nic::Eth0));
    programs.make(BATCH);
    // Both of what is bound, behind egressd's own chain.
    let rules = |priority: &str| {
        format!(
            "table ip other {{ chain output {{ type route hook output priority {priority};
             meta skuid {{ 0, 4242 }} ip daddr {SERVER} meta mark set 0x55; }}; }}"
        )
    };
    world.host.ip(&format!("rule add fwmark 0x55 lookup 77 pref 10\nroute add default via {gateway} dev eth0 table 77"));
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    for priority in ["-150", "0", "50"] {
        world.host.nft(&rules(priority));
        for program in [&batch, &crawler] {
            assert_leaves_by(&world, program, Nic::Eth1);
        }
        assert_leaves_by(&world, &programs.program(), Nic::Eth0);
        world.host.nft("delete table ip other");
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

/// As tc is told of packets: all of the mark, or some of its bits.
pub fn marked_for_tc() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    leaves_by(&world, &batch, Nic::Eth1).expect_err("it is not bound");
    let mut egressd = world.egressd_alone();
    for set in ["10", "0", "meta mark & 0xffffff00 | 0x10", "meta mark | 0x100"] {
        let shaper =
            format!("chain shaper {{ type filter hook postrouting priority mangle; oifname \"eth*\" counter meta mark set {set}; }};");
        world.host.nft(&format!("table inet shaper {{ {shaper} }};"));
        for when in ["alive", "dead"] {
            for program in [&batch, &crawler] {
                leaves_by(&world, program, Nic::Eth1).unwrap_or_else(|error| panic!("{set}, {when}: {error}"));
            }
            assert_leaves_by(&world, &programs.program(), Nic::Eth0);
            if when == "alive" { egressd.kill() } else { egressd.start() }
        }
        let listed = world.host.run(&["nft", "list", "table", "inet", "shaper"]);
        assert!(!listed.contains("packets 0 "), "the packets came by it: {listed}");
        world.host.nft("delete table inet shaper");
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

pub fn one_port_one_after_the_other() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth0));
    let mut egressd = world.egressd_alone();
    let (batch, crawler, root) = (programs.within(BATCH), programs.program().user(4242), programs.program());
    let mut port = 5000;
    // From one port, to one server: what the first began does not lead the next one.
    let mut in_turn = |who: &[(&str, &world::programs::Program, Nic)]| {
        for server in servers(&world) {
            port += 1;
            for (name, program, nic) in who {
                let seen = program.udp_from(port, server).unwrap_or_else(|error| panic!("{name} to {server}: {error}"));
                assert_eq!(seen.ip(), world.layout.public(*nic, server.ip()), "{name} to {server}");
            }
        }
    };
    let (one, two, free) = (("batch", &batch, Nic::Eth1), ("crawler", &crawler, Nic::Eth0), ("nobody's", &root, Nic::Eth0));
    in_turn(&[one, two, one]);
    in_turn(&[two, one]);
    in_turn(&[free, one, free]);
    in_turn(&[one, free, one]);
    // An open flow goes on as it was, whoever has the same port beside it, and when the daemon is another.
    let server = servers(&world)[0];
    let mut open = batch.datagrams(server);
    let own = open.seen.clone().expect("it has a way out").port();
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert_eq!(open.ask().map(|seen| seen.port()), Ok(own), "a restart moves no flow");
    // What changes its exit begins anew, though the old one is still another's.
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth0));
    world.await_handled();
    let seen = |open: &mut world::programs::Running| open.ask().map(|seen| seen.ip());
    until("its datagrams leave by the other exit", || {
        let now = seen(&mut open);
        if now == Ok(world.layout.public(Nic::Eth0, server.ip())) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    world.unbind("batch");
    world.unbind("crawler");
    world.await_handled();
    in_turn(&[("unbound", &batch, Nic::Eth0), ("unbound", &crawler, Nic::Eth0)]);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}
