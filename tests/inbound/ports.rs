//! Ports of the exits that programs of the host have already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use world::{
    Binding, Nic, World,
    status::until,
    talk::{ask_tcp, ask_udp},
};

use crate::{CALLED, Server, TARGET, called, served, stage};

/// Waits until `status` has a problem with these words.
fn await_problem(world: &World, words: &[&str]) {
    until(&format!("{words:?} is told"), || {
        let problems = world.status()["problems"].clone();
        let has = |problem: &serde_json::Value| words.iter().all(|word| problem.as_str().is_some_and(|text| text.contains(word)));
        if problems.as_array().is_some_and(|all| all.iter().any(has)) { Ok(()) } else { Err(problems.to_string()) }
    });
}

fn await_no_problem(world: &World) {
    until("nothing is wrong", || {
        let problems = world.status()["problems"].clone();
        if problems.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(problems.to_string()) }
    });
}

/// Listens on an address of the host.
fn listen(world: &World, address: impl Into<IpAddr>) -> TcpListener {
    let at = SocketAddr::new(address.into(), CALLED);
    world.host.enter(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("{at}: {error}"))
}

fn listen_udp(world: &World, address: impl Into<IpAddr>) -> UdpSocket {
    let at = SocketAddr::new(address.into(), CALLED);
    world.host.enter(|| UdpSocket::bind(at)).unwrap_or_else(|error| panic!("{at}: {error}"))
}

/// Binds a server to eth1, with one port of both of its addresses.
fn publish(world: &World, server: &Server, protocol: &str) {
    let inbound = format!("inbound: [{{protocol: {protocol}, port: {CALLED}, targetPort: {TARGET}}}]");
    world.bind(&Binding::of(&server.at.netns).to(world, Nic::Eth1).with(&inbound));
}

/// The addresses of eth1 whose port a server answers.
fn answered(world: &World, protocol: &str) -> Vec<IpAddr> {
    let ask = if protocol == "TCP" { ask_tcp } else { ask_udp };
    called(world, Nic::Eth1).into_iter().filter(|at| ask(&world.internet, *at).is_ok()).map(|at| at.ip()).collect()
}

/// What listens where, and which of eth1's addresses is its.
pub fn taken_by_programs() {
    let world = World::builder().build();
    let (_, [server, ..]) = stage(&world);
    let [v4, v6] = called(&world, Nic::Eth1).map(|at| at.ip());
    let own = world.layout.address(Nic::Eth1);
    let own6 = world.layout.address6(Nic::Eth1);
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    for (listens, left) in [
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), vec![v6]),
        (Ipv6Addr::UNSPECIFIED.into(), vec![]),
        (own.into(), vec![v6]),
        (own6.into(), vec![v4]),
        (Ipv4Addr::LOCALHOST.into(), vec![v4, v6]),
        (world.layout.address(Nic::Eth0).into(), vec![v4, v6]),
    ] {
        for protocol in ["TCP", "UDP"] {
            let (tcp, udp) =
                if protocol == "TCP" { (Some(listen(&world, listens)), None) } else { (None, Some(listen_udp(&world, listens))) };
            publish(&world, &server, protocol);
            let me = format!("(process {}), which listens on {}", std::process::id(), SocketAddr::new(listens, CALLED));
            for (taken, address) in [(v4, IpAddr::from(own)), (v6, own6.into())].into_iter().filter(|(at, _)| !left.contains(at)) {
                let name = format!("{}/{} is taken by", protocol.to_lowercase(), SocketAddr::new(address, CALLED));
                await_problem(&world, &["file/default/s10: spec.inbound[0].port", &name, &me, "publish another port"]);
                assert!(
                    world.status()["services"].as_array().is_some_and(|all| all.iter().all(|one| one["address"] != address.to_string())),
                    "{taken}"
                );
            }
            if left.len() == 2 {
                await_no_problem(&world);
            }
            if let Some(listener) = &tcp {
                // Nobody takes the host's own program's calls.
                listener.set_nonblocking(true).expect("a socket");
                for at in called(&world, Nic::Eth1).into_iter().filter(|at| !left.contains(&at.ip())) {
                    let before = server.calls();
                    let _stream = world.internet.enter(|| std::net::TcpStream::connect(at)).expect("the host's program takes it");
                    until("it has the call", || listener.accept().map(drop).map_err(|error| error.to_string()));
                    assert_eq!(server.calls(), before);
                }
            }
            until("what is free is served", || {
                let free: Vec<IpAddr> = answered_of(&world, protocol, &left);
                if free == left { Ok(()) } else { Err(format!("{free:?} instead of {left:?} with {listens}/{protocol}")) }
            });
            // One that goes frees the port.
            drop((tcp, udp));
            await_no_problem(&world);
            until("all of it is served", || {
                let all = answered(&world, protocol);
                if all == [v4, v6] { Ok(()) } else { Err(format!("{all:?}")) }
            });
            world.unbind("s10");
            world.await_handled();
        }
    }
}

/// Of the addresses that are free, those that are answered.
fn answered_of(world: &World, protocol: &str, free: &[IpAddr]) -> Vec<IpAddr> {
    let ask = if protocol == "TCP" { ask_tcp } else { ask_udp };
    free.iter().copied().filter(|at| ask(&world.internet, (*at, CALLED).into()).is_ok()).collect()
}

/// A range takes no call of a program that was there before it; what came later takes nothing from the range, also after a restart.
pub fn first_come() {
    let world = World::builder().build();
    let (_, [server, ..]) = stage(&world);
    let ssh = listen(&world, Ipv4Addr::UNSPECIFIED);
    let range = |first: u16, last: u16| {
        let inbound = format!("inbound: [{{protocol: TCP, port: {first}, endPort: {last}}}]");
        world.bind(&Binding::of(&server.at.netns).to(&world, Nic::Eth1).with(&inbound));
    };
    range(TARGET, CALLED + 10);
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    let at = SocketAddr::new(called(&world, Nic::Eth1)[0].ip(), TARGET);
    let name = format!("tcp/{}:{TARGET}-{}", world.layout.address(Nic::Eth1), CALLED + 10);
    await_problem(&world, &[&format!("{name} is taken by"), &format!("listens on 0.0.0.0:{CALLED}")]);
    ask_tcp(&world.internet, at).expect_err("none of the range is served");
    range(TARGET, TARGET);
    until("a port that nobody has is served", || ask_tcp(&world.internet, at).map(drop).map_err(|error| error.to_string()));
    drop(ssh);
    let late = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET))).expect("the host's port is free");
    for _ in 0..2 {
        await_problem(&world, &["stays with the binding, which had it first", &format!("listens on 0.0.0.0:{TARGET}")]);
        ask_tcp(&world.internet, at).expect("the server has it still");
        egressd.kill();
        egressd.start();
    }
    drop(late);
    await_no_problem(&world);
}

/// Another binding's.
pub fn taken() {
    let world = World::builder().build();
    let (_, [one, two, _]) = stage(&world);
    let inbound = |from: u16, to: u16| format!("inbound: [{{protocol: TCP, port: {from}, endPort: {to}}}]");
    world.bind(&Binding::of(&one.at.netns).to(&world, Nic::Eth1).with(&inbound(TARGET, TARGET)).with("priority: 1"));
    world.bind(&Binding::of(&two.at.netns).to(&world, Nic::Eth1).with(&inbound(1000, 2000)));
    let _egressd = served(&world);
    let called = SocketAddr::new(called(&world, Nic::Eth1)[0].ip(), TARGET);
    for _ in 0..4 {
        ask_tcp(&world.internet, called).expect("the first one serves it");
    }
    assert_eq!([one.calls(), two.calls()], [4, 0]);
    let problems = world.status()["problems"].to_string();
    let words = ["file/default/s11: spec.inbound[0].port", "is served by file/default/s10", "choose another port"];
    assert!(words.iter().all(|word| problems.contains(word)), "{problems}");
    // Its other workloads, and its own way out, are as if nothing was wrong.
    world.leaves_by(&two.at.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
}

/// Whoever else asks for it, by name and by priority.
pub fn stays() {
    let world = World::builder().build();
    let (_, [one, two, _]) = stage(&world);
    let of = |server: &Server| Binding::of(&server.at.netns).to(&world, Nic::Eth1);
    let inbound = |more: &str| format!("inbound: [{{protocol: TCP, port: {TARGET}{more}}}]");
    let serving = of(&one).with(&inbound(""));
    world.bind(&serving);
    let mut egressd = served(&world);
    let at = SocketAddr::new(called(&world, Nic::Eth1)[0].ip(), TARGET);
    until("it is served", || ask_tcp(&world.internet, at).map(drop).map_err(|error| error.to_string()));
    let mut open = world::talk::Flow::open(&world.internet, at).expect("it is served");
    let stays = |egressd: &mut world::Egressd, what: &str| {
        for restart in [false, true] {
            if restart {
                egressd.kill();
                egressd.start();
            }
            world.await_handled();
            let before = [one.calls(), two.calls()];
            for _ in 0..4 {
                ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            assert_eq!([one.calls() - before[0], two.calls() - before[1]], [4, 0], "{what}");
        }
    };
    world.bind(&of(&two).with(&inbound("")).with("priority: 9"));
    await_problem(&world, &["file/default/s11", "is served by file/default/s10"]);
    stays(&mut egressd, "another one came");
    world.bind(&serving.clone().with("priority: -9"));
    stays(&mut egressd, "it was edited");
    // Whom it binds is held meanwhile, and answers who calls.
    for (from, to) in [("exits", "exists"), ("[s10]", "[s10/]"), ("protocol: TCP", "protocol: TPC"), ("name: s10", "name: S10!")] {
        let wrong = serving.text().replace(from, to);
        assert_ne!(wrong, serving.text(), "{from}");
        world.write_manifest("s10.yaml", wrong.as_bytes());
        stays(&mut egressd, to);
        world.bind(&serving);
        world.await_handled();
    }
    open.ask().expect("an open connection goes on through all of that");
    world.unbind("s10");
    until("the other one serves it, once it is given back", || {
        let before = two.calls();
        ask_tcp(&world.internet, at).map_err(|error| error.to_string())?;
        if two.calls() > before { Ok(()) } else { Err("the first one serves it still".to_owned()) }
    });
}

/// A lease that is renewed, say.
pub fn away() {
    let world = World::builder().build();
    let (_, [one, two, _]) = stage(&world);
    let [a, b, c, d] = world.layout.address(Nic::Eth1).octets();
    let exit = Ipv4Addr::new(a, b, c, d + 16);
    world.host.ip(&format!("addr add {exit}/20 dev eth1"));
    let with = |server: &Server, drains: &str| {
        let name = server.at.netns.name();
        let exits = format!("exits: [{{address: {exit}{drains}}}]");
        let inbound = format!("inbound: [{{protocol: TCP, port: {TARGET}}}]");
        Binding::new(name, &format!("networkNamespaces: [{name}]")).with(&exits).with(&inbound)
    };
    let of = |server: &Server| with(server, "");
    world.bind(&of(&one));
    let _egressd = served(&world);
    let is_served = || {
        let services = world.status()["services"].clone();
        if services[0]["binding"].is_null() { Err(services.to_string()) } else { Ok(()) }
    };
    until("it is served", is_served);
    world.bind(&of(&two).with("priority: 9"));
    await_problem(&world, &["file/default/s11", "is served by file/default/s10"]);
    for pause in [0, 0, 300, 2500] {
        world.host.ip(&format!("addr del {exit}/20 dev eth1"));
        if pause > 0 {
            until("it is away", || if is_served().is_err() { Ok(()) } else { Err("it is served".to_owned()) });
            std::thread::sleep(std::time::Duration::from_millis(pause));
        }
        world.host.ip(&format!("addr add {exit}/20 dev eth1"));
        until("it is served again", is_served);
        world.await_handled();
        await_problem(&world, &["file/default/s11", "is served by file/default/s10"]);
        let services = world.status()["services"].to_string();
        assert!(services.contains("default/s10") && !services.contains("default/s11"), "away for {pause} ms: {services}");
    }
    // One that drains takes no calls, and is its binding's all the same.
    world.bind(&with(&one, ", draining: true"));
    await_problem(&world, &["file/default/s10", "takes no new calls: its exit drains"]);
    await_problem(&world, &["file/default/s11", "is served by file/default/s10"]);
    is_served().expect_err("nobody gets its calls");
    world.bind(&of(&one));
    until("it is served again", is_served);
    let services = world.status()["services"].to_string();
    assert!(services.contains("default/s10") && !services.contains("default/s11"), "{services}");
}
