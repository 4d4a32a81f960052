//! Servers that take so many connections, and clients that may open so many in a second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use world::{
    Nic, World,
    netns::Netns,
    status::until,
    talk::{Flow, ask_tcp, ask_udp},
};

use crate::{CALLED, Server, TARGET, called, publish, served, stage};

fn open(world: &World, at: SocketAddr) -> Flow {
    Flow::open(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}: {:#}", world.status()["dropped"]))
}

/// Refused, at once.
fn assert_refused(answer: io::Result<SocketAddr>) {
    let error = answer.expect_err("it is one too many");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
}

/// Packets that were dropped for this reason.
fn dropped(world: &World, reason: &str) -> u64 {
    let status = world.status();
    let all = status["dropped"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|one| one["reason"] == reason).filter_map(|one| one["packets"].as_u64()).sum()
}

pub fn of_servers() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    let all = servers.each_ref();
    let calls = || all.map(Server::calls);
    publish(&world, &all, "");
    let mut egressd = served(&world);
    for at in called(&world, Nic::Eth1) {
        publish(&world, &all, "");
        world.await_handled();
        let free: Vec<Flow> = (0..9).map(|_| open(&world, at)).collect();
        free.into_iter().for_each(|flow| flow.close().expect("it ends"));
        publish(&world, &all, ", maxConnections: 2");
        world.await_handled();
        let before = calls();
        // Each second one is another server's.
        let mut flows: Vec<(usize, Flow)> = Vec::new();
        for _ in 0..6 {
            let last = calls();
            let flow = open(&world, at);
            let server = (0..3).find(|server| calls()[*server] > last[*server]).expect("one of them");
            flows.push((server, flow));
        }
        let opened = calls();
        assert_eq!([0, 1, 2].map(|server| opened[server] - before[server]), [2; 3], "{at}");
        let refused = dropped(&world, "ServerLimit");
        for _ in 0..3 {
            assert_refused(ask_tcp(&world.internet, at));
        }
        assert!(dropped(&world, "ServerLimit") >= refused + 3, "{:#}", world.status()["dropped"]);
        assert!(flows.iter_mut().all(|(_, flow)| flow.ask().is_ok()), "open connections go on");
        // What does not come by the published port is not counted.
        let direct = if at.is_ipv4() { IpAddr::from(all[0].at.address) } else { all[0].at.address6.into() };
        ask_tcp(&world.host, (direct, TARGET).into()).expect("it is no call to the published port");
        // The limit holds while egressd is dead, and over its restart.
        egressd.kill();
        assert_refused(ask_tcp(&world.internet, at));
        egressd.start();
        world.await_ready();
        assert_refused(ask_tcp(&world.internet, at));
        // Whose connections end takes new ones, whoever's turn it is.
        let (ended, kept): (Vec<_>, Vec<_>) = flows.into_iter().partition(|(server, _)| *server != 0);
        ended.into_iter().for_each(|(_, flow)| flow.close().expect("it ends"));
        // It serves a port of both NICs.
        until("the others are not full any more", || {
            let free = world.egressctl(&["status"])?;
            if free.matches("(full)").count() == 2 { Ok(()) } else { Err(free) }
        });
        let before = calls();
        let again: Vec<Flow> = (0..4).map(|_| open(&world, at)).collect();
        let opened = calls();
        assert_eq!([0, 1, 2].map(|server| opened[server] - before[server]), [0, 2, 2], "{at}");
        for flow in kept.into_iter().map(|(_, flow)| flow).chain(again) {
            flow.close().expect("it ends");
        }
    }
}

pub fn of_clients() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    publish(&world, &servers.each_ref(), "");
    let _egressd = served(&world);
    let at = |nic| called(&world, nic);
    type Ask = fn(&Netns, SocketAddr) -> io::Result<SocketAddr>;
    // A connection is refused, a datagram dropped.
    let asks: [(Ask, usize, io::ErrorKind); 2] = [(ask_tcp, 4, io::ErrorKind::ConnectionRefused), (ask_udp, 2, io::ErrorKind::WouldBlock)];
    for at in Nic::ALL.into_iter().flat_map(at) {
        publish(&world, &servers.each_ref(), "");
        world.await_handled();
        for (ask, calls, _) in asks {
            for _ in 0..calls {
                ask(&world.internet, at).unwrap_or_else(|error| panic!("{at}: without a limit all are served: {error}"));
            }
        }
        publish(&world, &servers.each_ref(), ", newConnectionsPerSecond: 1");
        world.await_handled();
        for (ask, calls, kind) in asks {
            let before = dropped(&world, "ClientLimit");
            let answers: Vec<_> = (0..calls).map(|_| ask(&world.internet, at)).collect();
            let served = answers.iter().filter(|answer| answer.is_ok()).count();
            assert!((1..calls).contains(&served), "{at}: {served} of {calls} at once");
            let kinds: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err().map(io::Error::kind)).collect();
            assert!(kinds.iter().all(|one| *one == kind), "{at}: {kinds:?} {:#}", world.status()["dropped"]);
            assert_eq!(dropped(&world, "ClientLimit"), before + (calls - served) as u64, "each is counted");
            // Another client has a rate of its own.
            ask(&world.host, SocketAddr::new(at_host(&world, at), CALLED)).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
    }
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains("ClientLimit (ip6: eth1 "), "{shown}");
    assert!(world.metric("egressd_dropped_packets_total{reason=\"ClientLimit\",family=\"ip6\"}") > 0);
}

/// The address of eth1 of this family, which the host itself calls.
fn at_host(world: &World, like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { world.layout.address(Nic::Eth1).into() } else { world.layout.address6(Nic::Eth1).into() }
}
