//! Clients that call all the time: each of their calls is answered by a server that is there.

use std::net::IpAddr;

use world::{
    Nic, World,
    callers::Callers,
    talk::{ask_tcp, serve},
};

use crate::{
    Server, called,
    health::{await_health, block},
    publish, served, stage,
};

/// Clients that call at once.
const CLIENTS: usize = 4;
/// Calls of each that anything is given the time for: hundreds together.
const CALLS: usize = 60;
/// A port that tells whether a server is to get calls; it serves on, whatever this says.
const READY: u16 = 1235;

fn callers(world: &World) -> Callers<std::net::SocketAddr> {
    let (internet, at) = (world.internet.clone(), called(world, Nic::Eth1)[0]);
    Callers::start(CLIENTS, move || ask_tcp(&internet, at))
}

pub fn killed() {
    let world = World::builder().build();
    let (_, [one, two, three]) = stage(&world);
    publish(&world, &[&one, &two, &three], "");
    let mut egressd = served(&world);
    let callers = callers(&world);
    callers.await_each(CALLS);
    publish(&world, &[&one, &three], "");
    world.await_handled();
    // What it had goes on to its end; from then on a call to it would be lost.
    callers.await_each(1);
    let guests = two.guests;
    let before = guests.list().len();
    world.remove(two.at);
    for _ in 0..3 {
        egressd.kill();
        callers.await_each(CALLS);
        egressd.start();
        world.await_ready();
        callers.await_each(CALLS);
    }
    let answered = callers.end().len();
    assert_eq!(guests.list().len(), before, "it is gone");
    assert_eq!(before + one.calls() + three.calls(), answered, "each call is one server's");
}

pub fn replaced() {
    let world = World::builder().build();
    let (bridge, servers) = stage(&world);
    let readies = |server: &Server| drop(serve(&server.at.netns, &[IpAddr::from(server.at.address), server.at.address6.into()], &[READY]));
    servers.iter().for_each(readies);
    let mut serving: Vec<Server> = servers.into();
    let publish = |serving: &[Server]| {
        // A machine that stands still for a moment answers no question: nobody is refused for that.
        let health = format!(", health: {{tcp: {{port: {READY}}}, intervalMilliseconds: 100}}, allDown: KeepAll");
        publish(&world, &serving.iter().collect::<Vec<_>>(), &health);
    };
    publish(&serving);
    let mut egressd = served(&world);
    await_health(&world, "Healthy", 2 * serving.len());
    let callers = callers(&world);
    let mut calls = 0;
    for number in [20, 21, 22] {
        let new = Server::new(&world, &bridge, number);
        readies(&new);
        serving.push(new);
        publish(&serving);
        await_health(&world, "Healthy", 2 * serving.len());
        let old = serving.remove(0);
        block(&old, READY, "REJECT --reject-with tcp-reset");
        await_health(&world, "Unhealthy", 2);
        publish(&serving);
        world.await_handled();
        callers.await_each(1);
        let before = old.guests.list().len();
        world.remove(old.at);
        egressd.kill();
        callers.await_each(CALLS);
        egressd.start();
        await_health(&world, "Healthy", 2 * serving.len());
        assert_eq!(old.guests.list().len(), before, "it is gone");
        calls += before;
    }
    let answered = callers.end().len();
    assert!(serving.iter().all(|server| server.calls() >= CALLS), "each of the new ones has its part");
    assert_eq!(calls + serving.iter().map(Server::calls).sum::<usize>(), answered, "each call is one server's");
}
