//! Clients that stay at their server for a time.

use std::{net::SocketAddr, thread, time::Duration};

use world::{
    Nic, World,
    status::until,
    talk::{ask_tcp, ask_udp_from},
};

use crate::{Server, called, publish, served, stage};

/// The server that answers this call.
fn answered(servers: &[Server], ask: impl FnOnce() -> std::io::Result<SocketAddr>) -> usize {
    let before: Vec<usize> = servers.iter().map(Server::calls).collect();
    ask().unwrap_or_else(|error| panic!("{error}"));
    (0..servers.len()).find(|at| servers[*at].calls() > before[*at]).expect("one of them answered")
}

/// A datagram of a client with this last byte, from a new port.
fn datagram(world: &World, client: u8, port: u16) -> std::io::Result<SocketAddr> {
    ask_udp_from(&world.internet, ([198, 51, 100, client], port).into(), called(world, Nic::Eth1)[0])
}

/// The servers of the clients 100 to 105, each asked from a port of its own.
fn dealt(world: &World, servers: &[Server], port: u16) -> Vec<usize> {
    (100..106).map(|client| answered(servers, || datagram(world, client, port))).collect()
}

pub fn stays() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    let [one, two, three] = servers.each_ref();
    for client in 100..106 {
        world.internet.ip(&format!("addr add 198.51.100.{client}/24 dev wan"));
    }
    publish(&world, &[one, two, three], "");
    let mut egressd = served(&world);
    let at = called(&world, Nic::Eth1);
    let of = |at: SocketAddr| (0..3).map(|_| answered(&servers, || ask_tcp(&world.internet, at))).collect::<Vec<_>>();
    for at in at {
        let mut all = of(at);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2], "without an affinity each connection is dealt by itself");
    }
    publish(&world, &[one, two, three], ", affinity: 1h");
    world.await_handled();
    let tcp = at.map(of);
    for all in &tcp {
        assert!(all.iter().all(|server| *server == all[0]), "one client, one server: {all:?}");
    }
    let first = dealt(&world, &servers, 5001);
    assert_eq!((0..3).map(|server| first.iter().filter(|at| **at == server).count()).collect::<Vec<_>>(), [2, 2, 2], "clients take turns");
    assert_eq!(dealt(&world, &servers, 5002), first);
    let explained = world.egressctl(&["explain", "--inbound", &format!("{}:{}", world.layout.address(Nic::Eth1), crate::CALLED)]);
    assert!(explained.as_ref().is_ok_and(|text| text.contains("stays at its server for 1h")), "{explained:?}");
    // The kernel keeps it, whether egressd is there or not.
    egressd.kill();
    assert_eq!(dealt(&world, &servers, 5003), first, "while egressd is dead");
    egressd.start();
    world.await_ready();
    assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "nothing has changed");
    assert_eq!(dealt(&world, &servers, 5004), first, "after its restart");
    assert_eq!(at.map(of), tcp);
    // One server goes: its clients are dealt anew, and nobody else's.
    publish(&world, &[one, two], ", affinity: 1h");
    world.await_handled();
    let second = dealt(&world, &servers, 5005);
    for (before, after) in first.iter().zip(&second) {
        assert!(if *before == 2 { *after != 2 } else { after == before }, "{first:?} {second:?}");
    }
    // It comes back, and finds none of them.
    publish(&world, &[one, two, three], ", affinity: 1h");
    world.await_handled();
    assert_eq!(dealt(&world, &servers, 5006), second);
    // Another time counts from the next call on, and what is kept stays.
    publish(&world, &[one, two, three], ", affinity: 1s");
    world.await_handled();
    assert_eq!(dealt(&world, &servers, 5007), second);
    let mut port = 5008;
    until("the time is over", || {
        thread::sleep(Duration::from_millis(1500));
        port += 1;
        let next = dealt(&world, &servers, port);
        if next == second { Err(format!("{next:?}")) } else { Ok(()) }
    });
}
