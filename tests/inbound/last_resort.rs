//! A server of last resort: it gets the calls while no server does.

use std::io::ErrorKind;
use std::net::IpAddr;

use world::{
    Binding, Nic, World,
    status::until,
    talk::{Flow, Guests, ask_tcp, ask_udp, ask_udp_from, serve},
};

use crate::{
    CALLED, Server, TARGET, called,
    health::{await_health, block, unblock},
    publish, stage,
};

/// Where it listens.
const PORT: u16 = 1240;
const TCP: &str = "health: {tcp: {}, intervalMilliseconds: 100}";

/// So many of eth1's addresses are served by it now.
fn await_in_use(world: &World, expected: usize) {
    until(&format!("it serves {expected} of eth1's addresses"), || {
        let status = world.status();
        let own = [IpAddr::from(world.layout.address(Nic::Eth1)), world.layout.address6(Nic::Eth1).into()].map(|own| own.to_string());
        let services = status["services"].as_array().into_iter().flatten();
        let used = services.filter(|one| one["lastResort"]["inUse"] == true && own.iter().any(|own| one["address"] == **own)).count();
        // Of both protocols.
        if used == 2 * expected { Ok(()) } else { Err(format!("{:#}", status["services"])) }
    });
}

/// Calls each address of both NICs by both protocols, and says how many of these calls it got.
fn call(world: &World, sorry: &Guests) -> (usize, usize) {
    let before = sorry.list().len();
    let mut calls = 0;
    for at in Nic::ALL.into_iter().flat_map(|nic| called(world, nic)) {
        for ask in [ask_tcp, ask_udp] {
            ask(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}; {:#}", world.status()["services"]));
            calls += 1;
        }
    }
    (sorry.list().len() - before, calls)
}

pub fn gets_calls() {
    let world = World::builder().build();
    let (_, [one, two, three]) = stage(&world);
    for iptables in ["iptables", "ip6tables"] {
        world.host.run(&[iptables, "-P", "FORWARD", "DROP"]);
    }
    // Nobody binds it: it is no workload.
    let sorry = serve(&three.at.netns, &[three.at.address.into(), three.at.address6.into()], &[PORT]);
    let last = format!("lastResort: [{{address: {}, port: {PORT}}}, {{address: '{}', port: {PORT}}}]", three.at.address, three.at.address6);
    let servers = [&one, &two];
    publish(&world, &servers, &format!(", {TCP}"));
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    await_health(&world, "Healthy", 4);
    let at = called(&world, Nic::Eth1)[0];
    until("the firewalls have the rule", || ask_tcp(&world.internet, at).map(drop).map_err(|error| error.to_string()));
    let down = |servers: &[&Server]| servers.iter().for_each(|server| block(server, TARGET, "REJECT --reject-with tcp-reset"));
    down(&servers);
    await_health(&world, "Unhealthy", 4);
    let refused = ask_tcp(&world.internet, at).expect_err("no last resort is written yet");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    servers.iter().for_each(|server| unblock(server));
    publish(&world, &servers, &format!(", {TCP}, {last}"));
    await_health(&world, "Healthy", 4);
    await_in_use(&world, 0);
    assert_eq!(call(&world, &sorry).0, 0, "it gets no call while a server is up");
    let mut kept = Flow::open(&world.internet, at).expect("it is served");
    let datagram = || ask_udp_from(&world.internet, ([0; 4], 5000).into(), at);
    datagram().expect("it is served");

    // Both of them are down.
    down(&servers);
    await_in_use(&world, 2);
    world.await_handled();
    let (got, calls) = call(&world, &sorry);
    assert_eq!(got, calls, "it gets all of them, and answers by the NIC that was called");
    kept.ask().expect("what is open at a server goes on");
    until("a flow of datagrams goes to it, too", || {
        let before = sorry.list().len();
        datagram().map_err(|error| error.to_string())?;
        if sorry.list().len() > before { Ok(()) } else { Err("it still goes to a server".to_owned()) }
    });
    let mut there = Flow::open(&world.internet, at).expect("it is served");
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains(&format!("{}:{PORT} (last resort, in use)", three.at.address)), "{shown}");
    let explain = || world.egressctl(&["explain", "--inbound", &format!("{}:{CALLED}", world.layout.address(Nic::Eth1))]);
    let explained = explain().expect("it answers");
    assert!(explained.contains(&format!("{}:{PORT}, the server of last resort: gets all calls", three.at.address)), "{explained}");
    egressd.kill();
    assert_eq!(call(&world, &sorry).0, calls, "while egressd is dead");
    egressd.start();
    world.await_ready();
    assert_eq!(call(&world, &sorry).0, calls, "after its restart");
    assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "nothing has changed");

    // One is back.
    unblock(&one);
    await_health(&world, "Healthy", 2);
    await_in_use(&world, 0);
    world.await_handled();
    let before = one.calls();
    assert_eq!(call(&world, &sorry).0, 0);
    assert!(one.calls() >= before + calls, "it gets all of them");
    there.ask().expect("what is open at the last resort goes on");
    kept.ask().expect("and what is open at a server");
    let explained = explain().expect("it answers");
    assert!(explained.contains("gets no call while a server does"), "{explained}");

    // None is there at all, with an affinity and a limit of servers, which it has not.
    publish(&world, &[&one], &format!(", {TCP}, {last}, affinity: 10m, maxConnections: 1"));
    await_health(&world, "Healthy", 2);
    world.await_handled();
    let before = sorry.list().len();
    ask_tcp(&world.internet, at).expect("its server serves");
    assert_eq!(sorry.list().len(), before);
    world.remove(one.at);
    await_in_use(&world, 2);
    world.await_handled();
    let open: Vec<Flow> = (0..2).map(|_| Flow::open(&world.internet, at).expect("it has no limit")).collect();
    assert_eq!(call(&world, &sorry).0, calls);
    drop(open);

    // An address of this host is none, and the other entries are served.
    let own = world.layout.address(Nic::Eth0);
    let inbound = format!("inbound: [{{protocol: TCP, port: 81, targetPort: {TARGET}, lastResort: [{{address: {own}}}]}}]");
    unblock(&two);
    world.bind(&Binding::of(&two.at.netns).to(&world, Nic::Eth1).with(&inbound));
    until("it is told", || {
        let text = world.status()["problems"].to_string();
        if text.contains("spec.inbound[0].lastResort") && text.contains("of this host itself") { Ok(()) } else { Err(text) }
    });
    ask_tcp(&world.internet, (at.ip(), 81).into()).expect("its server is served");
}
