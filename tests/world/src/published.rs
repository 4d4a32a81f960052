//! Servers that share a port of both NICs' exits, the binding that publishes it, and calls to it.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Binding, Container, Nic, World,
    container::Bridge,
    talk::{Guests, ask_tcp, ask_udp, serve},
};

/// The port that is called.
pub const CALLED: u16 = 27017;
/// The port that servers listen on.
pub const TARGET: u16 = 1234;

/// A workload that serves, and whom it has seen.
pub struct Server {
    pub at: Container,
    pub guests: Guests,
}

impl Server {
    /// Makes one on a bridge, which is bound by nobody yet.
    pub fn new(world: &World, bridge: &Bridge, number: u8) -> Self {
        let at = world.container(&format!("s{number}"), bridge, number);
        let guests = serve(&at.netns, &[at.address.into(), at.address6.into()], &[TARGET]);
        Self { at, guests }
    }

    /// How many have called it since.
    pub fn calls(&self) -> usize {
        self.guests.list().len()
    }
}

/// Three servers on a masqueraded bridge.
pub fn stage(world: &World) -> (Bridge, [Server; 3]) {
    let bridge = world.bridge("plain0", 28);
    // As engines do: else the bridge has its lowest port's, and another one when that port goes.
    world.host.ip("link set plain0 address 02:42:ac:1c:00:01");
    world.masquerade(&bridge);
    let servers = [10, 11, 12].map(|number| Server::new(world, &bridge, number));
    (bridge, servers)
}

/// Binds the servers to both NICs, with one entry of `inbound` for each of both protocols.
pub fn publish(world: &World, servers: &[&Server], more: &str) {
    let names: Vec<&str> = servers.iter().map(|server| server.at.netns.name()).collect();
    let entry = |protocol: &str| format!("{{protocol: {protocol}, port: {CALLED}, targetPort: {TARGET}{more}}}");
    let exits: Vec<String> = Nic::ALL
        .iter()
        .flat_map(|nic| [IpAddr::from(world.layout.address(*nic)), world.layout.address6(*nic).into()].map(|address| (*nic, address)))
        .map(|(nic, address)| format!("{{address: '{address}', gateway: '{}'}}", world.gateway(nic, address)))
        .collect();
    world.bind(
        &Binding::new("service", &format!("networkNamespaces: [{}]", names.join(", ")))
            .with(&format!("exits: [{}]", exits.join(", ")))
            .with(&format!("inbound: [{}, {}]", entry("TCP"), entry("UDP"))),
    );
}

/// What a client on the internet calls.
pub fn called(world: &World, nic: Nic) -> [SocketAddr; 2] {
    [IpAddr::from(world.layout.eip(nic)), world.layout.address6(nic).into()].map(|address| (address, CALLED).into())
}

/// So many calls by TCP to each of these; how often each server was called.
pub fn call<const N: usize>(world: &World, to: &[SocketAddr], times: usize, servers: [&Server; N]) -> [usize; N] {
    let before = servers.map(Server::calls);
    for at in to {
        for _ in 0..times {
            ask_tcp(&world.internet, *at).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
    }
    let after = servers.map(Server::calls);
    std::array::from_fn(|at| after[at] - before[at])
}

/// Calls each address of both NICs by both protocols. Panics unless the servers have so many turns at each, see their client's address, and answer
/// by the NIC that was called.
pub fn assert_by_turn(world: &World, servers: &[Server; 3], turns: usize) {
    for (nic, at) in Nic::ALL.into_iter().flat_map(|nic| called(world, nic).map(|at| (nic, at))) {
        for ask in [ask_tcp, ask_udp] {
            let before = servers.each_ref().map(Server::calls);
            let (answers, seen) = world.watch(|| (0..3 * turns).map(|_| ask(&world.internet, at)).collect::<Vec<_>>());
            for answer in answers {
                let answer = answer.unwrap_or_else(|error| panic!("{at}: {error}; {seen}"));
                assert!(!world.layout.own(nic).contains(&answer.ip()), "the server sees its client's address: {answer}");
            }
            let own = world.layout.private(nic, at.ip());
            assert_eq!(seen.count(nic, own), seen.0.values().sum::<u64>(), "answers of {at} leave by {nic:?} alone: {seen}");
            let after = servers.each_ref().map(Server::calls);
            assert_eq!(std::array::from_fn(|at| after[at] - before[at]), [turns; 3], "{at}");
        }
    }
}
