//! Calls to ports of the exits go to the workloads that serve them: by turn, at random, by a hash; servers that come and go.

mod affinity;
mod calls;
mod front;
mod health;
mod ipvs;
mod last_resort;
mod limits;
mod ports;
mod probes;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use world::{
    Binding, Egressd, Nic, Scenario, Subnets, World,
    published::{self, CALLED, Server, TARGET, assert_by_turn, called, publish, stage},
    status::until,
    talk::{Flow, ask_tcp, ask_udp, ask_udp_from, serve},
};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: calls to both NICs' exits go by turn, each answered by its NIC"), move || {
            by_turn(subnets);
        }));
    }
    scenarios.push(Scenario::new("servers elsewhere are reached though FORWARD drops, by one rule that stays", front::through_a_firewall));
    scenarios.push(Scenario::new("a front without a router serves its neighbours", front::without_a_router));
    for (how, policy, last) in [("drops", "drop", ""), ("rejects by its last rule", "accept", "counter reject")] {
        scenarios.push(Scenario::new(format!("a chain of nftables that {how} is told, with the rule that opens it"), move || {
            front::another_firewall(policy, last);
        }));
    }
    scenarios.push(Scenario::new("calls at random reach all servers alike", at_random));
    scenarios.push(Scenario::new("a hash of the source keeps a client at one server, also after a restart", by_source));
    scenarios.push(Scenario::new("servers that come, drain or die touch nobody else's connections", scaled));
    scenarios.push(Scenario::new("datagrams of a server that leaves go to another one at once", datagrams_move));
    scenarios.push(Scenario::new("a server that calls its own port is answered, and so is the host", hairpin));
    scenarios.push(Scenario::new("with masquerade a server sees the host instead of the client", masqueraded));
    scenarios.push(Scenario::new("a range of ports is served as it is", a_range));
    scenarios.push(Scenario::new("killed and started again, egressd changes nothing, and calls go on meanwhile", killed));
    scenarios.push(Scenario::new("cleanup leaves all as it was found", cleaned_up));
    scenarios.push(Scenario::new("a port that is another binding's is refused, and both are named", ports::taken));
    scenarios.push(Scenario::new(
        "a port stays with the binding that serves it: another one comes, it is edited, it has an error, egressd is restarted",
        ports::stays,
    ));
    scenarios.push(Scenario::new("a port stays with its binding while the exit's address is away, for a moment or longer", ports::away));
    scenarios
        .push(Scenario::new("a port that a program of the host has is refused, with who it is, until it goes", ports::taken_by_programs));
    scenarios.push(Scenario::new("who had a port first keeps it, also after a restart", ports::first_come));
    scenarios
        .push(Scenario::new("a server that does not answer gets no new connection until it does, also after a restart", health::by_tcp));
    scenarios.push(Scenario::new("while no server is healthy calls are refused, or go to all, and open ones go on", health::all_down));
    scenarios.push(Scenario::new(
        "a server of last resort gets all calls while no server does, none while one is up, and open ones go on",
        last_resort::gets_calls,
    ));
    scenarios.push(Scenario::new("a server that answers a GET with an error gets no new connection", health::by_http));
    scenarios.push(Scenario::new("a server with weight 0 drains", health::drains));
    scenarios.push(Scenario::new("a client stays at its server for a time, also after a restart, until that server goes", affinity::stays));
    scenarios.push(Scenario::new("a server takes as many connections as it may, and the next one those beyond", limits::of_servers));
    scenarios.push(Scenario::new("a client that begins too many connections is refused, and counted", limits::of_clients));
    scenarios.push(Scenario::new("without IPVS in the kernel who asks for it is told, and all others are served", ipvs::without_it));
    scenarios
        .push(Scenario::new("a server that answers no request by TLS gets no new connection, whoever signed for it", probes::by_https));
    scenarios.push(Scenario::new("a server that answers no datagram gets no new ones", probes::by_datagrams));
    scenarios.push(Scenario::new("a client of a server that answers no datagram any more goes to another one", probes::dead));
    scenarios.push(Scenario::new(
        "no call is lost while egressd is killed and started again, and none goes to a server that is gone",
        calls::killed,
    ));
    scenarios.push(Scenario::new("no call is lost while all servers are replaced one by one", calls::replaced));
    world::harness::main_of_waiting(scenarios)
}

/// So many calls to each address of a NIC; how often each server was called.
fn call<const N: usize>(world: &World, times: usize, servers: [&Server; N]) -> [usize; N] {
    published::call(world, &called(world, Nic::Eth1), times, servers)
}

/// The negative control of what follows: a call reaches the host and nobody else.
fn assert_unserved(world: &World) {
    let error = ask_tcp(&world.internet, called(world, Nic::Eth0)[0]).expect_err("nobody serves it without egressd");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "the host answers: {error}");
}

/// Starts egressd for what is published, which nobody serves until then. The cloud asks for its NICs anew.
fn served(world: &World) -> Egressd {
    assert_unserved(world);
    let egressd = world.egressd_alone();
    world.forget_neighbours();
    egressd
}

fn by_turn(subnets: Subnets) {
    let world = World::builder().subnets(subnets).rp_filter(1).build();
    let (_, servers) = stage(&world);
    ask_tcp(&world.internet, called(&world, Nic::Eth0)[0]).expect_err("nobody serves it without egressd");
    publish(&world, &servers.each_ref(), "");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    assert_by_turn(&world, &servers, 3);
}

fn at_random() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    publish(&world, &servers.each_ref(), ", balance: Random");
    let _egressd = served(&world);
    let calls = call(&world, 75, servers.each_ref());
    assert_eq!(calls.iter().sum::<usize>(), 150);
    // Chi-square with two degrees of freedom: one run in 10^6 is beyond 27.6.
    let chi: f64 = calls.iter().map(|calls| (*calls as f64 - 50.0).powi(2) / 50.0).sum();
    assert!(chi < 27.6 && calls != [50; 3], "{calls:?}");
}

fn by_source() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    publish(&world, &servers.each_ref(), ", balance: BySource");
    let mut egressd = served(&world);
    let before = call(&world, 6, servers.each_ref());
    assert!(before.iter().all(|calls| [0, 6, 12].contains(calls)), "one server for each client: {before:?}");
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert_eq!(call(&world, 6, servers.each_ref()), before);
    // Many clients reach all of them.
    for last in 100..130 {
        world.internet.ip(&format!("addr add 198.51.100.{last}/24 dev wan"));
        let from = SocketAddr::from(([198, 51, 100, last], 0));
        let inbound = format!("{}:{CALLED}/udp", world.layout.address(Nic::Eth1));
        let explained = world.egressctl(&["explain", "--inbound", &inbound, &from.ip().to_string()]).expect("it answers");
        let before = servers.each_ref().map(Server::calls);
        ask_udp_from(&world.internet, from, called(&world, Nic::Eth1)[0]).expect("it is served");
        let answered = (0..3).find(|at| servers[*at].calls() > before[*at]).expect("one of them");
        let line = explained.lines().find(|line| line.contains("has slot")).unwrap_or_default();
        assert!(line.contains(&format!("netns/s{} at", answered + 10)), "s{} answered: {explained}", answered + 10);
    }
    assert!(servers.iter().all(|server| server.calls() > 0), "{:?}", servers.each_ref().map(Server::calls));
}

fn scaled() {
    let world = World::builder().build();
    let (bridge, [one, two, three]) = stage(&world);
    publish(&world, &[&one, &two], "");
    let _egressd = served(&world);
    let at = called(&world, Nic::Eth1)[0];
    let open = || Flow::open(&world.internet, at).expect("it is served");
    let mut flows: Vec<Flow> = (0..2).map(|_| open()).collect();
    assert_eq!([one.calls(), two.calls()], [1, 1]);
    publish(&world, &[&one, &two, &three], "");
    world.await_handled();
    assert_eq!(call(&world, 3, [&one, &two, &three]), [2, 2, 2], "the new one has its part");
    flows.extend((0..3).map(|_| open()));
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections go on");
    // It drains: it is asked for nothing new, and goes on with what it has.
    publish(&world, &[&two, &three], "");
    world.await_handled();
    assert_eq!(call(&world, 2, [&one, &two, &three]), [0, 2, 2]);
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections drain");
    // It dies, and takes only its own along.
    world.remove(two.at);
    world.await_handled();
    let ended = flows.iter_mut().map(Flow::ask).filter(Result::is_err).count();
    assert_eq!(ended, 2, "those of the dead one alone");
    assert_eq!(call(&world, 3, [&one, &three]), [0, 6]);
    // One with the same name and address serves again.
    let again = Server::new(&world, &bridge, 11);
    world.await_nic("netns/s11", Nic::Eth0);
    // The host learns its hardware address from what it sends, as an engine sees to.
    world.leaves_by(&again.at.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(call(&world, 2, [&again, &three]), [2, 2], "it serves again");
}

fn datagrams_move() {
    let world = World::builder().build();
    let (_, [one, two, _]) = stage(&world);
    let early = || ask_udp_from(&world.internet, ([0; 4], 6000).into(), called(&world, Nic::Eth1)[0]);
    early().expect_err("nobody serves it without egressd");
    publish(&world, &[&one, &two], "");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    until("a flow from before has ended", || early().map(drop).map_err(|error| error.to_string()));
    for (at, any) in called(&world, Nic::Eth1).into_iter().zip(["0.0.0.0:5000", "[::]:5000"]) {
        publish(&world, &[&one, &two], "");
        world.await_handled();
        let ask = || ask_udp_from(&world.internet, any.parse().expect("an address"), at);
        let before = [one.calls(), two.calls()];
        for _ in 0..3 {
            ask().expect("it is served");
        }
        let calls = [one.calls() - before[0], two.calls() - before[1]];
        assert!(calls == [3, 0] || calls == [0, 3], "one flow, one server: {calls:?}");
        let (left, stays) = if calls[0] == 3 { (&one, &two) } else { (&two, &one) };
        publish(&world, &[stays], "");
        world.await_handled();
        let before = [left.calls(), stays.calls()];
        until("its flow has ended", || {
            ask().map_err(|error| error.to_string())?;
            if stays.calls() > before[1] { Ok(()) } else { Err("it still goes to the one that left".to_owned()) }
        });
    }
}

fn hairpin() {
    let world = World::builder().build();
    let (bridge, [one, two, _]) = stage(&world);
    publish(&world, &[&one, &two], "");
    let neighbour = world.container("neighbour", &bridge, 20);
    let at =
        |nic| [IpAddr::from(world.layout.address(nic)), world.layout.address6(nic).into()].map(|address| SocketAddr::new(address, CALLED));
    ask_tcp(&one.at.netns, at(Nic::Eth1)[0]).expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_alone();
    // Datagrams from before it was bound have ended.
    world.await_handled();
    for at in Nic::ALL.into_iter().flat_map(at) {
        for netns in [&one.at.netns, &two.at.netns, &neighbour.netns, &world.host] {
            // Each of the servers has its turn, the caller itself, too.
            for ask in [ask_tcp, ask_udp, ask_tcp, ask_udp] {
                ask(netns, at).unwrap_or_else(|error| panic!("{} to {at}: {error}", netns.name()));
            }
        }
    }
    // A bridge tells of this by messages of its own.
    let port = &one.at.host_side;
    let is_on = || world.host.run(&["bridge", "-d", "link", "show", "dev", port]).contains("hairpin on");
    assert!(is_on(), "its port is in hairpin mode");
    world.host.run(&["bridge", "link", "set", "dev", port, "hairpin", "off"]);
    until("hairpin mode that another program took is put back", || if is_on() { Ok(()) } else { Err("it is off".to_owned()) });
    // Its own calls leave as ever.
    world.leaves_by(&one.at.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
}

fn masqueraded() {
    let world = World::builder().build();
    let (bridge, servers) = stage(&world);
    publish(&world, &servers.each_ref(), "");
    let _egressd = served(&world);
    let peers = || called(&world, Nic::Eth1).map(|at| ask_tcp(&world.internet, at).expect("it is served").ip());
    let hosts = [IpAddr::from(bridge.address(1)), bridge.address6(1).into()];
    assert!(peers().iter().all(|peer| !hosts.contains(peer)), "it sees its client: {:?}", peers());
    publish(&world, &servers.each_ref(), ", clientSource: Masquerade");
    world.await_handled();
    assert_eq!(peers(), hosts, "it sees the host");
}

fn a_range() {
    let world = World::builder().build();
    let (_, [one, two, _]) = stage(&world);
    let names = [one.at.netns.name(), two.at.netns.name()].join(", ");
    let ports: Vec<u16> = (5000..5003).collect();
    let guests = [&one, &two].map(|server| serve(&server.at.netns, &[server.at.address.into(), server.at.address6.into()], &ports));
    let ask_all = || {
        for at in called(&world, Nic::Eth1) {
            for port in &ports {
                for ask in [ask_tcp, ask_udp] {
                    ask(&world.internet, (at.ip(), *port).into()).map_err(|error| format!("{at}, {port}: {error}"))?;
                }
            }
        }
        Ok::<(), String>(())
    };
    ask_all().expect_err("nobody serves it without egressd");
    let entry = |protocol: &str| format!("{{protocol: {protocol}, port: 5000, endPort: 5002}}");
    let inbound = format!("inbound: [{}, {}]", entry("TCP"), entry("UDP"));
    world.bind(&Binding::new("range", &format!("networkNamespaces: [{names}]")).to(&world, Nic::Eth1).with(&inbound));
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    ask_all().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(front::counts(&guests), [8, 4], "three calls by turn for each protocol of each family");
    let beyond = (called(&world, Nic::Eth1)[0].ip(), 5003).into();
    ask_tcp(&world.internet, beyond).expect_err("the range ends there");
}

fn killed() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    publish(&world, &servers.each_ref(), ", clientSource: Masquerade");
    let mut egressd = served(&world);
    let at = called(&world, Nic::Eth1)[0];
    let mut flow = Flow::open(&world.internet, at).expect("it is served");
    let before = world.state();
    egressd.kill();
    assert_eq!(call(&world, 3, servers.each_ref()), [2, 2, 2], "new calls are served while it is dead");
    egressd.start();
    world.await_ready();
    assert_eq!(world.metric("egressd_kernel_changes_total"), 0);
    before.assert_same(&world.state(), "the next start changes nothing");
    flow.ask().expect("it goes on");
    assert_eq!(call(&world, 3, servers.each_ref()), [2, 2, 2]);
}

fn cleaned_up() {
    let world = World::builder().rp_filter(1).build();
    let (_, servers) = stage(&world);
    for iptables in ["iptables", "ip6tables"] {
        world.host.run(&[iptables, "-P", "FORWARD", "DROP"]);
    }
    let before = world.state();
    publish(&world, &servers.each_ref(), "");
    let mut egressd = served(&world);
    let status = world.status();
    assert_eq!(status["services"].as_array().map(Vec::len), Some(8), "two protocols, NICs and families: {status:#}");
    let mut engines = status["services"].as_array().into_iter().flatten().map(|service| &service["engine"]);
    assert!(engines.all(|engine| engine == "Nftables"), "{status:#}");
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains(&format!("tcp/{}:{CALLED}", world.layout.address(Nic::Eth1))), "{shown}");
    assert_eq!((world.metric("egressd_services"), world.metric("egressd_servers")), (8, 24));
    until("the firewalls have the rule", || {
        let asked: Result<Vec<_>, _> = called(&world, Nic::Eth1).into_iter().map(|at| ask_tcp(&world.internet, at)).collect();
        asked.map(drop).map_err(|error| error.to_string())
    });
    let mut flow = Flow::open(&world.internet, called(&world, Nic::Eth1)[0]).expect("it is served");
    egressd.stop();
    world.cleanup();
    before.assert_same(&world.state(), "cleanup takes all away");
    flow.ask().expect_err("it would go on by the host's NIC with another one's address");
    ask_tcp(&world.internet, called(&world, Nic::Eth0)[0]).expect_err("nobody serves it any more");
}
