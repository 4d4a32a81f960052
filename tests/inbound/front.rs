//! A front for servers elsewhere, and firewalls that drop what it forwards.

use std::net::IpAddr;

use world::{
    Binding, Nic, Subnets, World,
    status::until,
    talk::{Flow, Guests, ask_tcp, serve},
};

use crate::{CALLED, TARGET, called};

/// Three servers in a subnet of its own behind the host.
fn behind(world: &World) -> (world::alone::Lan, Vec<Guests>, String) {
    let lan = world.lan();
    world.host.sysctl("ipv4/ip_forward", "1");
    let servers: Vec<IpAddr> = [10, 11, 12].map(|last| [10, 9, 0, last].into()).to_vec();
    lan.netns.ip("addr add 10.9.0.11/24 dev eth0\naddr add 10.9.0.12/24 dev eth0");
    let guests = servers.iter().map(|server| serve(&lan.netns, &[*server], &[TARGET])).collect();
    let addresses: Vec<String> = servers.iter().map(|server| format!("{server}/32")).collect();
    (lan, guests, format!("addresses: [{}]", addresses.join(", ")))
}

/// The host as their front.
fn front(world: &World, more: &str) -> (world::alone::Lan, Vec<Guests>) {
    let (lan, guests, addresses) = behind(world);
    world.bind(&front_of(world, &addresses, more));
    (lan, guests)
}

fn front_of(world: &World, addresses: &str, more: &str) -> Binding {
    let inbound = format!("inbound: [{{protocol: TCP, port: {CALLED}, targetPort: {TARGET}{more}}}]");
    Binding::new("front", addresses).to(world, Nic::Eth1).with(&inbound)
}

/// The front's NIC has no router: clients are its neighbours.
pub fn without_a_router() {
    let world = World::builder().subnets(Subnets::Two).build();
    let (_lan, guests, addresses) = behind(&world);
    let front = world.layout.address(Nic::Eth1);
    let ask = || ask_tcp(world.neighbour(Nic::Eth1), (front, CALLED).into());
    ask().expect_err("nobody serves it without egressd");
    for (source, seen) in [("Masquerade", IpAddr::from([10, 9, 0, 1])), ("Preserve", world.layout.neighbour(Nic::Eth1).into())] {
        let inbound = format!("inbound: [{{protocol: TCP, port: {CALLED}, targetPort: {TARGET}, clientSource: {source}}}]");
        world.bind(&Binding::new("front", &addresses).with(&format!("exits: [{{address: {front}}}]")).with(&inbound));
        let mut egressd = world.egressd_alone();
        world.forget_neighbours();
        for _ in 0..3 {
            assert_eq!(ask().unwrap_or_else(|error| panic!("{error}: {:#}", world.status())).ip(), seen);
        }
        egressd.stop();
    }
    assert_eq!(counts(&guests), [2, 2, 2]);
}

pub fn counts(guests: &[Guests]) -> Vec<usize> {
    guests.iter().map(|guests| guests.list().len()).collect()
}

pub fn through_a_firewall() {
    let world = World::builder().build();
    let (lan, guests) = front(&world, ", clientSource: Masquerade");
    world.host.run(&["iptables", "-P", "FORWARD", "DROP"]);
    let at = called(&world, Nic::Eth1)[0];
    ask_tcp(&world.internet, at).expect_err("nobody serves it without egressd");
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    let rules = || world.host.run(&["iptables", "-S", "FORWARD"]);
    until("the firewall has the rule", || if rules().contains("egressd") { Ok(()) } else { Err(rules()) });
    for _ in 0..300 {
        let seen = ask_tcp(&world.internet, at).expect("its flows are let through");
        assert_eq!(seen.ip(), IpAddr::from([10, 9, 0, 1]), "the server sees the front");
    }
    assert_eq!(counts(&guests), [100, 100, 100]);
    // One that serves no more goes on with what it has.
    let mut open = Flow::open(&world.internet, at).expect("its flows are let through");
    assert_eq!(counts(&guests), [101, 100, 100]);
    world.bind(&front_of(&world, "addresses: [10.9.0.11/32]", ", clientSource: Masquerade"));
    world.await_handled();
    open.ask().expect("it drains");
    // Nothing else is let through, neither out nor in.
    world.leaves_by(&lan.netns, Nic::Eth1).expect_err("its own calls are no balanced flows");
    let rule = rules().lines().filter(|rule| rule.contains("egressd")).count();
    assert_eq!(rule, 1, "{}", rules());
    world.host.run(&["iptables", "-F", "FORWARD"]);
    until("it is put back", || if rules().contains("egressd") { Ok(()) } else { Err(rules()) });
    ask_tcp(&world.internet, at).expect("as before");
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert_eq!(rules().lines().filter(|rule| rule.contains("egressd")).count(), 1, "{}", rules());
    // Nobody serves it any more: the rule goes.
    world.unbind("front");
    until("the rule is gone", || if rules().contains("egressd") { Err(rules()) } else { Ok(()) });
}

/// A chain with this policy and last rule.
pub fn another_firewall(policy: &str, last: &str) {
    let world = World::builder().build();
    let (_lan, _guests) = front(&world, "");
    world
        .host
        .nft(&format!("table inet strict {{\n chain forward {{\n type filter hook forward priority 0; policy {policy};\n {last}\n }}\n}}"));
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    let at = called(&world, Nic::Eth1)[0];
    let mut cure = String::new();
    until("the chain is told", || {
        let status = world.status();
        let problems = status["problems"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        match problems.map(str::to_owned).find(|problem| problem.contains("inet strict forward")) {
            Some(problem) => {
                cure = problem.split('`').nth(1).expect("a command").to_owned();
                Ok(())
            }
            None => Err(status.to_string()),
        }
    });
    ask_tcp(&world.internet, at).expect_err("the chain drops it");
    world.host.run(&cure.split(' ').collect::<Vec<_>>());
    let seen = ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{cure}: {error}"));
    assert_eq!(seen.ip(), IpAddr::from(world::layout::SERVER), "the server sees its client");
    until("nothing is missing any more", || {
        let problems = world.status()["problems"].clone();
        if problems.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(problems.to_string()) }
    });
}
