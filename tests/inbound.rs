//! Calls to ports of the exits go to the workloads that serve them: by turn, at random, by a hash; servers that come and go.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use world::{
    Binding, Container, Nic, Scenario, Subnets, World,
    layout::PORT,
    talk::{Flow, Guests, ask_tcp, ask_udp, serve},
};

/// The port that is called.
const CALLED: u16 = 27017;
/// The port that servers listen on.
const TARGET: u16 = 1234;

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: calls to both NICs' exits go by turn, each answered by its NIC"), move || {
            by_turn(subnets);
        }));
    }
    world::harness::main_of_waiting(scenarios)
}

/// A workload that serves, and whom it has seen.
struct Server {
    at: Container,
    guests: Guests,
}

impl Server {
    /// Makes one on a bridge, which is bound by nobody yet.
    fn new(world: &World, bridge: &world::container::Bridge, number: u8) -> Self {
        let at = world.container(&format!("s{number}"), bridge, number);
        let guests = serve(&at.netns, &[at.address.into(), at.address6.into()], &[TARGET]);
        Self { at, guests }
    }

    /// How many have called it since.
    fn calls(&self) -> usize {
        self.guests.list().len()
    }
}

/// Three servers on a masqueraded bridge.
fn stage(world: &World) -> [Server; 3] {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    [10, 11, 12].map(|number| Server::new(world, &bridge, number))
}

/// Binds the servers to both NICs, with one entry of `inbound` for each of both protocols.
fn publish(world: &World, servers: &[&Server], more: &str) {
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
fn called(world: &World, nic: Nic) -> [SocketAddr; 2] {
    [IpAddr::from(world.layout.eip(nic)), world.layout.address6(nic).into()].map(|address| (address, CALLED).into())
}

fn by_turn(subnets: Subnets) {
    let world = World::builder().subnets(subnets).rp_filter(1).build();
    let servers = stage(&world);
    ask_tcp(&world.internet, called(&world, Nic::Eth0)[0]).expect_err("nobody serves it without egressd");
    publish(&world, &servers.each_ref(), "");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    let mut all = 0;
    for nic in Nic::ALL {
        for at in called(&world, nic) {
            for ask in [ask_tcp, ask_udp] {
                let (answers, seen) = world.watch(|| (0..9).map(|_| ask(&world.internet, at)).collect::<Vec<_>>());
                for answer in answers {
                    let answer = answer.unwrap_or_else(|error| panic!("{at}: {error}; {seen}"));
                    assert!(!world.layout.own(nic).contains(&answer.ip()), "the server sees its client's address: {answer}");
                }
                let own = world.layout.private(nic, at.ip());
                assert_eq!(seen.count(nic, own), seen.0.values().sum::<u64>(), "answers of {at} leave by {nic:?} alone: {seen}");
                all += 9;
                let calls = servers.each_ref().map(Server::calls);
                assert_eq!(calls, [all / 3; 3], "{at}");
            }
        }
    }
}
