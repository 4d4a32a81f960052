//! `all: true`: whatever program of the host it is leaves by the exits, and what is not for them stays as it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use world::{
    Binding, Nic, Programs, World,
    layout::{PORT, SERVER, SERVER6},
    status::until,
    talk,
};

use crate::bound::{exits, second_exit};
use crate::lab::{assert_held, assert_leaves_by, await_state, binding, leaves_by, servers};

const ALL: &str = "host/all";

/// Three exits of each family on two NICs: those of IPv4, and those of IPv6.
fn three(world: &World) -> [[(Nic, IpAddr); 3]; 2] {
    let second = second_exit(world);
    let of = |nic: Nic, v6: bool| if v6 { world.layout.address6(nic).into() } else { IpAddr::from(world.layout.address(nic)) };
    [false, true].map(|v6| [(Nic::Eth1, of(Nic::Eth1, v6)), (Nic::Eth1, second[usize::from(v6)]), (Nic::Eth0, of(Nic::Eth0, v6))])
}

fn by_turn_of(world: &World, three: &[[(Nic, IpAddr); 3]; 2]) {
    let all: Vec<IpAddr> = three.iter().flatten().map(|(_, address)| *address).collect();
    world.bind(&Binding::new("all", "hostSelector: {all: true}").with(&exits(&all)).with("spread: RoundRobin"));
}

fn assert_by_turn(world: &World, programs: &Programs, three: &[[(Nic, IpAddr); 3]; 2]) {
    for (like, exits) in [IpAddr::from(SERVER), SERVER6.into()].into_iter().zip(three) {
        // Each shouts in two flows, a datagram's and a connection's; whoever it is.
        let ((), seen) = world.watch(|| {
            for uid in [1, 1001, 65_533] {
                programs.program().shout(like);
                programs.program().user(uid).shout(like);
            }
        });
        let counts = exits.map(|(nic, exit)| seen.count(nic, exit));
        assert!(counts.iter().all(|count| *count >= 4) && seen.0.len() == 3, "a third each: {seen}");
    }
}

fn assert_by_default(world: &World, programs: &Programs) {
    for like in [IpAddr::from(SERVER), SERVER6.into()] {
        let ((), seen) = world.watch(|| (0..3).for_each(|_| programs.program().shout(like)));
        assert_eq!((seen.0.len(), seen.by(Nic::Eth1)), (1, 0), "all by the default route: {seen}");
    }
}

pub fn by_turn() {
    let world = World::builder().build();
    let programs = Programs::new();
    let three = three(&world);
    by_turn_of(&world, &three);
    assert_by_default(&world, &programs);
    let mut egressd = world.egressd_alone();
    await_state(&world, ALL, "Bound");
    assert_by_turn(&world, &programs, &three);
    let mut flow = programs.program().flow(servers(&world)[0]);
    let seen = flow.seen.clone().expect("it is bound");
    egressd.kill();
    assert_by_turn(&world, &programs, &three);
    egressd.start();
    world.await_handled();
    assert_by_turn(&world, &programs, &three);
    assert_eq!(flow.ask(), Ok(seen), "an open flow keeps its exit");
    let explained = world.egressctl(&["explain", ALL, &SERVER.to_string()]).expect("it is known");
    assert!(explained.contains("a socket that no other binding names") && explained.contains("RoundRobin"), "{explained}");
    // Who names a program has it, whatever the priority.
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth0).with("priority: -7"));
    world.await_handled();
    let crawler = programs.program().user(4242);
    let ((), seen) = world.watch(|| (0..4).for_each(|_| crawler.shout(SERVER.into())));
    assert_eq!((seen.0.len(), seen.by(Nic::Eth1)), (1, 0), "{seen}");
    assert_by_turn(&world, &programs, &three);
    drop(egressd);
    world.cleanup();
    assert_by_default(&world, &programs);
}

pub fn left_alone() {
    let world = World::builder().build();
    let programs = Programs::new();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let container = world.container("blue", &bridge, 10);
    let _guests = talk::serve(&container.netns, &[container.address.into(), container.address6.into()], &[PORT]);
    world.bind(&binding(&world, "all", "all: true", Nic::Eth1));
    let program = programs.program();
    leaves_by(&world, &program, Nic::Eth1).expect_err("without egressd it is not bound");
    let _egressd = world.egressd_alone();
    await_state(&world, ALL, "Bound");
    assert_leaves_by(&world, &program, Nic::Eth1);
    world.leaves_by(&container.netns, Nic::Eth0).expect("what is forwarded is not the host's");
    for address in [IpAddr::from(container.address), container.address6.into()] {
        program.tcp((address, PORT).into()).expect("the inside is reached");
    }
    for address in ["127.0.0.1", "::1"] {
        let at = SocketAddr::new(address.parse().expect("an address"), PORT);
        let server = program.serve(at);
        server.seen.as_ref().expect("the port is free");
        assert_eq!(program.tcp(at).expect("the loopback is never touched").ip(), at.ip());
    }
    // Who is called answers by the NIC that was called.
    let server = program.serve("0.0.0.0:8090".parse().expect("an address"));
    server.seen.as_ref().expect("the port is free");
    for nic in Nic::ALL {
        let ((), seen) = world.watch(|| {
            talk::ask_tcp(&world.internet, (nic.eip(), 8090).into()).expect("it answers");
            talk::ask_tcp(&world.internet, (nic.eip(), 8099).into()).expect_err("nobody serves it");
        });
        let other = if nic == Nic::Eth0 { Nic::Eth1 } else { Nic::Eth0 };
        assert!(seen.by(nic) > 0 && seen.by(other) == 0, "answers leave by the NIC that was called: {seen}");
    }
    // A client of DHCP renews its lease where the address is, and a cloud tells what a machine is on the link that it looks at.
    let eth0 = world.layout.address(Nic::Eth0);
    let send = |from: SocketAddr, to: SocketAddr| {
        let sent = world.host.enter(|| UdpSocket::bind(from).and_then(|socket| socket.send_to(b"?", to)));
        sent.unwrap_or_else(|error| panic!("from {from} to {to}: {error}"));
    };
    let unspecified = Ipv4Addr::UNSPECIFIED;
    for (from, to, by) in [
        ((unspecified, 68), (SERVER, 67), Nic::Eth0),
        ((unspecified, 6868), (SERVER, 67), Nic::Eth1),
        ((eth0, 68), (SERVER, 67), Nic::Eth0),
        ((unspecified, 8000), (Ipv4Addr::new(169, 254, 169, 254), 80), Nic::Eth0),
    ] {
        let ((), seen) = world.watch(|| send(from.into(), to.into()));
        assert!(seen.by(by) > 0 && seen.0.len() == 1, "{from:?}: {seen}");
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

/// A socket that is bound to an address keeps it, and leaves by its NIC.
pub fn own_addresses() {
    let world = World::builder().ipv6(false).build();
    let (own, second) = (IpAddr::from(world.layout.address(Nic::Eth1)), second_exit(&world)[0]);
    let eth0 = IpAddr::from(world.layout.address(Nic::Eth0));
    let [a, b, c, d] = world.layout.address(Nic::Eth0).octets();
    let beside = Ipv4Addr::new(a, b, c, d + 16);
    world.host.ip(&format!("addr add {beside}/20 dev eth0"));
    world.bind(
        &Binding::new("all", "hostSelector: {all: true}").with(&exits(&[own, second, eth0, beside.into()])).with("spread: RoundRobin"),
    );
    let _egressd = world.egressd_alone();
    for (nic, address) in [(Nic::Eth1, own), (Nic::Eth1, second), (Nic::Eth0, beside.into())] {
        let ((), seen) = world.watch(|| (0..4).for_each(|_| talk::shout(&world.host, address, (SERVER, 9).into())));
        assert!(seen.count(nic, address) >= 4 && seen.0.len() == 1, "{address} stays: {seen}");
    }
    // That of the default route is no choice: the kernel takes it for whoever asks for none.
    let ((), seen) = world.watch(|| (0..8).for_each(|_| talk::shout(&world.host, eth0, (SERVER, 9).into())));
    assert_eq!(seen.0.len(), 4, "{seen}");
}

pub fn without_exits() {
    let world = World::builder().build();
    let programs = Programs::new();
    world.bind(&binding(&world, "all", "all: true", Nic::Eth1));
    let _egressd = world.egressd_alone();
    await_state(&world, ALL, "Bound");
    let program = programs.program();
    world.host.ip("link set eth1 down");
    await_state(&world, ALL, "Dropped");
    assert_held(&world, &program);
    world.bind(&binding(&world, "all", "all: true", Nic::Eth1).with("whenUnavailable: Fallback"));
    await_state(&world, ALL, "Fallback");
    assert_leaves_by(&world, &program, Nic::Eth0);
    world.host.ip("link set eth1 up");
    world.host.ip(&format!("addr replace {}/64 dev eth1 nodad", world.layout.address6(Nic::Eth1)));
    await_state(&world, ALL, "Bound");
    assert_leaves_by(&world, &program, Nic::Eth1);
    world.unbind("all");
    world.await_handled();
    assert_leaves_by(&world, &program, Nic::Eth0);
}

/// A probe of an exit tells of that one, though its socket has the address that the kernel would pick.
pub fn one_family() {
    let world = World::builder().build();
    let programs = Programs::new();
    let exit = format!("exits: [{{address: {}}}]", world.layout.address(Nic::Eth1));
    let all = || Binding::new("all", "hostSelector: {all: true}").with(&exit);
    let states = || -> Vec<String> {
        let status = world.status();
        let rows = status["workloads"].as_array().into_iter().flatten();
        rows.map(|row| format!("{} {}", row["address"].as_str().unwrap_or_default(), row["state"].as_str().unwrap_or_default())).collect()
    };
    world.bind(&all());
    let _egressd = world.egressd_alone();
    until("a family without an exit is dropped", || match states() {
        states if states == ["0.0.0.0/0 Bound", "::/0 Dropped"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let program = programs.program();
    let [v4, v6] = servers(&world)[..] else { panic!("a server of each family") };
    program.tcp(v6).expect_err("it is held");
    world.bind(&all().with("to: [{cidr: 0.0.0.0/0}]"));
    until("a family that the binding is not for is as without it", || match states() {
        states if states == ["0.0.0.0/0 Bound", "::/0 Unbound"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let ((), seen) = world.watch(|| {
        for server in [v4, v6] {
            program.tcp(server).expect("it leaves");
        }
    });
    assert!(seen.by(Nic::Eth1) > 0 && seen.by(Nic::Eth0) > 0, "{seen}");
    let explained = world.egressctl(&["explain", ALL, &SERVER6.to_string()]).expect("it is known");
    assert!(explained.contains("  not ours  the binding has no traffic of this family"), "{explained}");
}

pub fn probes() {
    let world = World::builder().ipv6(false).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    let exit = world.layout.address(Nic::Eth0);
    let probe = format!("{{tcp: '{}', intervalMilliseconds: 100, failures: 2}}", SocketAddr::from((SERVER, PORT)));
    world.bind(&Binding::of(&blue).with(&format!("exits: [{{address: {exit}, probe: {probe}}}]")));
    world.bind(&binding(&world, "all", "all: true", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let ((), seen) = world.watch(|| std::thread::sleep(std::time::Duration::from_secs(1)));
    assert!(seen.count(Nic::Eth0, exit.into()) >= 5 && seen.by(Nic::Eth1) == 0, "{seen}");
    let programs = Programs::new();
    let ((), seen) = world.watch(|| drop(programs.program().tcp(servers(&world)[0])));
    assert!(seen.by(Nic::Eth1) > 0, "the control: a program without that mark is taken: {seen}");
}
