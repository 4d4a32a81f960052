//! `make demo-forwarder`: a forwarder with one NIC and six addresses, which two business servers route through. Each new connection takes the next
//! address; egressd has put five of them on the NIC itself.
//!
//! It runs in namespaces of its own, ends by itself and leaves nothing behind; it is a test as well, and fails when the tables do not show what they
//! should.

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode, time::Duration};

use world::{
    Binding, Scenario, World,
    layout::{PORT, SERVER},
    segment::Segment,
    status::until,
    talk::{self, Flow},
};

const NIC: &str = "ens5";
const CONNECTIONS: usize = 60;

fn main() -> ExitCode {
    let demo = Scenario::new("demo of a forwarder", demo).within(Duration::from_secs(60)).shown();
    world::harness::main(vec![demo])
}

fn demo() {
    let world = World::builder().ipv6(false).build();
    let segment = Segment::plug(&world, NIC);
    let router = segment.router(&world, 5);
    let servers = [segment.client("business1", 5, 11), segment.client("business2", 5, 12)];
    world.host.ip(&format!("route replace default via 10.5.0.1 dev {NIC}"));
    world.host.sysctl("ipv4/ip_forward", "1");
    world.host.run(&["iptables", "-t", "nat", "-A", "POSTROUTING", "-o", NIC, "-j", "MASQUERADE"]);
    println!(
        "\n\nA forwarder with one NIC, {NIC} 10.5.0.2/24, behind the router 10.5.0.1. Two business servers, 10.5.0.11 and 10.5.0.12, have it as"
    );
    println!(
        "their default route. They open {CONNECTIONS} connections by turn to a server on the internet ({SERVER}), which counts whom it sees.\n"
    );

    let before = talk::peers(&servers, (SERVER, PORT).into(), CONNECTIONS);
    print("Without egressd, all are masqueraded:", &before);

    bind(&world, 5);
    println!("\nThe manifest of a binding: six addresses, of which the NIC has one.\n");
    println!("{}", manifest(5).text());
    let _egressd = world.egressd_for_manifests();
    await_exits(&world, 6);
    let by_turn = talk::peers(&servers, (SERVER, PORT).into(), CONNECTIONS);
    print("With egressd, each new connection takes the next of them:", &by_turn);

    let mut open: Vec<Flow> = (0..6).map(|_| Flow::open(&servers[0], (SERVER, PORT).into()).expect("the server answers")).collect();
    bind(&world, 4);
    await_exits(&world, 5);
    let without = talk::peers(&servers, (SERVER, PORT).into(), CONNECTIONS);
    print("One address is taken out of the manifest:", &without);
    let kept = open.iter_mut().filter_map(|flow| flow.ask().ok()).count();
    println!("\nConnections that were open before, one by each address, and go on: {kept} of 6.");

    world.host.ip(&format!("addr del 10.5.0.98/32 dev {NIC}"));
    until("it is put back", || {
        let there = world.host.run(&["ip", "-o", "address", "show", "dev", NIC]).contains("10.5.0.98/32");
        if there { Ok(()) } else { Err("it is not".to_owned()) }
    });
    await_exits(&world, 5);
    let put_back = talk::peers(&servers, (SERVER, PORT).into(), CONNECTIONS);
    print("Another program takes 10.5.0.98 from the NIC, and egressd puts it back at once:", &put_back);
    println!("\negressd's own view:\n");
    println!("{}", world.egressctl(&["status"]).unwrap_or_else(|error| panic!("{error}")));

    let at = |last: u8| IpAddr::from([10, 5, 0, last]);
    let each = |all: &[u8]| all.iter().map(|last| (at(*last), CONNECTIONS / all.len())).collect::<BTreeMap<_, _>>();
    assert_eq!(before, each(&[2]));
    assert_eq!(by_turn, each(&[2, 98, 99, 100, 101, 102]));
    assert_eq!((without, put_back), (each(&[2, 98, 99, 100, 101]), each(&[2, 98, 99, 100, 101])));
    assert_eq!(kept, 6, "no open connection is cut");
    drop(router);
}

/// The NIC's own address, and so many that egressd manages.
fn manifest(managed: u8) -> Binding {
    let last = 97 + managed;
    Binding::new("business", "addresses: [10.5.0.11/32, 10.5.0.12/32]")
        .with(&format!("exits: [{{address: 10.5.0.2}}, {{addresses: 10.5.0.98-10.5.0.{last}, assignment: Managed}}]"))
        .with("spread: RoundRobin")
}

fn bind(world: &World, managed: u8) {
    world.bind(&manifest(managed));
}

/// Waits until new connections are spread over so many.
fn await_exits(world: &World, number: usize) {
    until("all exits are used", || {
        let status = world.status();
        let rows = status["workloads"].as_array().cloned().unwrap_or_default();
        let all = rows.len() == 2 && rows.iter().all(|row| row["exits"].as_array().map(Vec::len) == Some(number));
        if all { Ok(()) } else { Err(format!("{status:#}")) }
    });
}

fn print(what: &str, seen: &BTreeMap<IpAddr, usize>) {
    println!("{what}\n");
    println!("  {:<16} connections", "server saw");
    for (address, count) in seen {
        println!("  {:<16} {count:>11}", address.to_string());
    }
    println!();
}
