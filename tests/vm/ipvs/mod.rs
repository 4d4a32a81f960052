//! Published ports with the engine IPVS. (The kernel of this machine may have none.)

mod kept;
mod schedulers;
mod subnet;

use std::net::{IpAddr, SocketAddr};

use world::{
    Binding, Container, Nic, Scenario, World,
    container::Bridge,
    status::until,
    talk::{Guests, ask_tcp, ask_udp, serve},
};

/// The port that is called.
const CALLED: u16 = 27017;
/// The port that servers listen on.
const TARGET: u16 = 1234;
/// The port that they are asked at for their health.
const PROBED: u16 = 1235;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("IPVS: calls to both NICs' exits go by turn, each answered by its NIC, through firewalls that drop", by_turn),
        Scenario::new("IPVS: client, director and servers in one subnet", subnet::answered),
        Scenario::new("IPVS: schedulers, persistence, weights and thresholds are the kernel's", schedulers::all),
        Scenario::new("IPVS: what another program does to it is put right, a restart changes nothing, cleanup takes all away", kept::kept),
        Scenario::new("IPVS: servers that drain, fail or die touch nobody else's connections", kept::servers_come_and_go),
    ]
}

/// A workload that serves, and whom it has seen.
struct Server {
    at: Container,
    guests: Guests,
}

impl Server {
    fn new(world: &World, bridge: &Bridge, number: u8) -> Self {
        let at = world.container(&format!("s{number}"), bridge, number);
        let guests = serve(&at.netns, &[at.address.into(), at.address6.into()], &[TARGET, PROBED]);
        Self { at, guests }
    }

    fn calls(&self) -> usize {
        self.guests.list().iter().filter(|(at, _)| at.port() == TARGET).count()
    }
}

/// Three servers on a masqueraded bridge.
fn stage(world: &World) -> (Bridge, [Server; 3]) {
    let bridge = world.bridge("plain0", 28);
    world.host.ip("link set plain0 address 02:42:ac:1c:00:01");
    world.masquerade(&bridge);
    let servers = [10, 11, 12].map(|number| Server::new(world, &bridge, number));
    (bridge, servers)
}

/// Binds the servers to both NICs, with one entry of `inbound` for each of both protocols.
fn publish(world: &World, servers: &[&Server], more: &str) {
    let names: Vec<&str> = servers.iter().map(|server| server.at.netns.name()).collect();
    let entry = |protocol: &str| format!("{{protocol: {protocol}, port: {CALLED}, targetPort: {TARGET}, engine: Ipvs{more}}}");
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

/// The services that IPVS has, as its own tool lists them.
fn listed(world: &World) -> String {
    world.host.run(&["ipvsadm", "-Ln"])
}

/// Waits until IPVS's own tool lists all of these words, and none of those.
fn until_listed(world: &World, there: &[&str], gone: &[&str]) {
    until("IPVS is as it should be", || {
        let list = listed(world);
        let right = there.iter().all(|word| list.contains(word)) && !gone.iter().any(|word| list.contains(word));
        if right { Ok(()) } else { Err(format!("{list}\n{:#}", world.status()["problems"])) }
    });
}

/// So many calls by TCP to the first address of a NIC; how often each server was called.
fn call<const N: usize>(world: &World, times: usize, servers: [&Server; N]) -> [usize; N] {
    let before = servers.map(Server::calls);
    let at = called(world, Nic::Eth1)[0];
    for _ in 0..times {
        ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}\n{}", listed(world)));
    }
    let after = servers.map(Server::calls);
    std::array::from_fn(|at| after[at] - before[at])
}

fn problems(world: &World) -> String {
    world.status()["problems"].to_string()
}

fn by_turn() {
    let world = World::builder().rp_filter(1).build();
    let (bridge, servers) = stage(&world);
    for iptables in ["iptables", "ip6tables"] {
        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            world.host.run(&[iptables, "-P", chain, "DROP"]);
        }
        // What asks for the status.
        world.host.run(&[iptables, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"]);
        world.host.run(&[iptables, "-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT"]);
        world.host.run(&[iptables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]);
    }
    // Neighbours have to be found.
    for chain in ["INPUT", "OUTPUT"] {
        world.host.run(&["ip6tables", "-A", chain, "-p", "icmpv6", "-j", "ACCEPT"]);
    }
    publish(&world, &servers.each_ref(), ", scheduler: rr");
    ask_tcp(&world.internet, called(&world, Nic::Eth0)[0]).expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    let service = format!("TCP  {}:{CALLED} rr", world.layout.address(Nic::Eth1));
    until_listed(&world, &[&service, "172.28.0.12:1234"], &[]);
    until("the firewalls have the rule", || {
        let asked: Result<Vec<_>, _> = called(&world, Nic::Eth1).into_iter().map(|at| ask_tcp(&world.internet, at)).collect();
        asked.map(drop).map_err(|error| format!("{error}\n{}", world.host.run(&["nft", "list", "ruleset"])))
    });
    for nic in Nic::ALL {
        for at in called(&world, nic) {
            for ask in [ask_tcp, ask_udp] {
                let before = servers.each_ref().map(Server::calls);
                let (answers, seen) = world.watch(|| (0..6).map(|_| ask(&world.internet, at)).collect::<Vec<_>>());
                for answer in answers {
                    let answer = answer.unwrap_or_else(|error| panic!("{at}: {error}; {seen}\n{}", listed(&world)));
                    assert!(!world.layout.own(nic).contains(&answer.ip()), "the server sees its client's address: {answer}");
                }
                let own = world.layout.private(nic, at.ip());
                assert_eq!(seen.count(nic, own), seen.0.values().sum::<u64>(), "answers of {at} leave by {nic:?} alone: {seen}");
                let after = servers.each_ref().map(Server::calls);
                assert_eq!(std::array::from_fn(|at| after[at] - before[at]), [2; 3], "{at}");
            }
        }
    }
    // Who is beside a server, the server itself, and the host.
    let neighbour = world.container("neighbour", &bridge, 20);
    for at in [IpAddr::from(world.layout.address(Nic::Eth1)), world.layout.address6(Nic::Eth1).into()] {
        let at = SocketAddr::new(at, CALLED);
        for netns in [&servers[0].at.netns, &neighbour.netns, &world.host] {
            for _ in 0..3 {
                for ask in [ask_tcp, ask_udp] {
                    ask(netns, at).unwrap_or_else(|error| panic!("{} to {at}: {error}\n{}", netns.name(), listed(&world)));
                }
            }
        }
    }
    // Nothing else is let through.
    world.leaves_by(&servers[0].at.netns, Nic::Eth0).expect_err("its own calls are no balanced flows");
    publish(&world, &servers.each_ref(), ", scheduler: rr, clientSource: Masquerade");
    world.await_handled();
    let peers = called(&world, Nic::Eth1).map(|at| ask_tcp(&world.internet, at).expect("it is served").ip());
    assert_eq!(peers, [IpAddr::from(bridge.address(1)), bridge.address6(1).into()], "it sees the host");
    let inbound = format!("{}:{CALLED}", world.layout.address(Nic::Eth1));
    let explained = world.egressctl(&["explain", "--inbound", &inbound]).expect("it answers");
    assert!(explained.contains("IPVS's scheduler rr"), "{explained}");
}
