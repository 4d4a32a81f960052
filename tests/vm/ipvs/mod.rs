//! Published ports with the engine IPVS. (The kernel of this machine may have none.)

mod kept;
mod last_resort;
mod route_back;
mod schedulers;
mod subnet;

use std::net::{IpAddr, SocketAddr};

use world::{
    Nic, Scenario, World,
    published::{self, CALLED, Server, assert_by_turn, called, stage},
    status::until,
    talk::{ask_tcp, ask_udp},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("IPVS: calls to both NICs' exits go by turn, each answered by its NIC, through firewalls that drop", by_turn),
        Scenario::new("IPVS: client, director and servers in one subnet", subnet::answered),
        Scenario::new("IPVS: answers of servers on the host go back through it by a rule that egressd keeps", route_back::kept),
        Scenario::new("IPVS: schedulers, persistence, weights and thresholds are the kernel's", schedulers::all),
        Scenario::new("IPVS: what another program does to it is put right, a restart changes nothing, cleanup takes all away", kept::kept),
        Scenario::new(
            "IPVS: a server of last resort gets all calls while no server does, and none while one is up",
            last_resort::gets_calls,
        ),
        Scenario::new("IPVS: servers that drain, fail or die touch nobody else's connections", kept::servers_come_and_go),
    ]
}

/// As [`published::publish`], with the engine.
fn publish(world: &World, servers: &[&Server], more: &str) {
    published::publish(world, servers, &format!(", engine: Ipvs{more}"));
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
    published::call(world, &called(world, Nic::Eth1)[..1], times, servers)
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
    assert_by_turn(&world, &servers, 2);
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
