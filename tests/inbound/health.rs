//! Servers that are asked whether they serve, and those that drain.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use world::{
    Binding, Nic, World,
    container::Bridge,
    status::until,
    talk::{Flow, ask_tcp},
};

use crate::{CALLED, Server, TARGET, called, publish, stage};

/// Asks each tenth of a second.
const TCP: &str = "health: {tcp: {}, intervalMilliseconds: 100}";

/// New connections to a port of the server come to nothing, in both families; those that are open go on.
pub fn block(server: &Server, port: u16, how: &str) {
    for iptables in ["iptables", "ip6tables"] {
        let rule = format!("{iptables} -I INPUT -p tcp --dport {port} --syn -j {how}");
        server.at.netns.run(&rule.split(' ').collect::<Vec<_>>());
    }
}

/// What was blocked at the server passes again.
pub fn unblock(server: &Server) {
    for iptables in ["iptables", "ip6tables"] {
        server.at.netns.run(&[iptables, "-F", "INPUT"]);
    }
}

/// How often clients have called a server; probes come from the host's own addresses on the bridge.
fn calls(server: &Server, bridge: &Bridge) -> usize {
    let own = [IpAddr::from(bridge.address(1)), bridge.address6(1).into()];
    server.guests.list().iter().filter(|(_, peer)| !own.contains(&peer.ip())).count()
}

/// So many calls to each address of eth1; how often each server was called.
fn call<const N: usize>(world: &World, bridge: &Bridge, times: usize, servers: [&Server; N]) -> [usize; N] {
    let before = servers.map(|server| calls(server, bridge));
    for at in called(world, Nic::Eth1) {
        for _ in 0..times {
            ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
    }
    let after = servers.map(|server| calls(server, bridge));
    std::array::from_fn(|at| after[at] - before[at])
}

/// Waits until so many of eth1's entries of servers, two for each (by TCP of both families), are in this state.
pub fn await_health(world: &World, health: &str, expected: usize) {
    until(&format!("{expected} are {health}"), || {
        let status = world.status();
        let services = status["services"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["service"].as_str().is_some_and(|name| name.starts_with("tcp/")));
        let eth1 =
            [IpAddr::from(world.layout.address(Nic::Eth1)), world.layout.address6(Nic::Eth1).into()].map(|address| address.to_string());
        let of_eth1 = services.filter(|one| eth1.iter().any(|address| one["address"] == *address));
        let servers = of_eth1.flat_map(|one| one["servers"].as_array().into_iter().flatten());
        let found = servers.filter(|server| server["health"] == health).count();
        if found == expected { Ok(()) } else { Err(format!("{found}: {:#}", status["services"])) }
    });
}

pub fn by_tcp() {
    let world = World::builder().build();
    let (bridge, servers) = stage(&world);
    let all = servers.each_ref();
    publish(&world, &all, "");
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    let at = called(&world, Nic::Eth1)[0];
    block(all[0], TARGET, "REJECT --reject-with tcp-reset");
    let failed = (0..6).filter(|_| ask_tcp(&world.internet, at).is_err()).count();
    assert_eq!(failed, 2, "nobody asks for its health");
    unblock(all[0]);
    // Who serves goes on while it is asked for the first time: no call is lost.
    publish(&world, &all, &format!(", {TCP}"));
    for _ in 0..50 {
        ask_tcp(&world.internet, at).expect("it is served all the time");
    }
    await_health(&world, "Healthy", 6);
    assert_eq!(call(&world, &bridge, 3, all), [2, 2, 2]);
    let mut flows: Vec<Flow> = (0..3).map(|_| Flow::open(&world.internet, at).expect("it is served")).collect();
    for (how, why) in [("REJECT --reject-with tcp-reset", "Connection refused"), ("DROP", "no answer within 100 ms")] {
        block(all[1], TARGET, how);
        await_health(&world, "Unhealthy", 2);
        assert_eq!(call(&world, &bridge, 4, all), [4, 0, 4], "{how}");
        assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections go on");
        assert!(world.metric("egressd_unhealthy_servers") >= 2);
        let shown = world.egressctl(&["status"]).expect("it answers");
        assert!(shown.contains(&format!("{}:{TARGET}: unhealthy: {why}", all[1].at.address)), "{shown}");
        let inbound = format!("{}:{CALLED}", world.layout.address(Nic::Eth1));
        let explained = world.egressctl(&["explain", "--inbound", &inbound]).expect("it answers");
        let line = format!("at {}:{TARGET}, weight 1, unhealthy ({why}): gets no new connection", all[1].at.address);
        assert!(explained.contains(&line), "{explained}");
        // It stays out, and the others in, over a restart.
        egressd.kill();
        assert_eq!(call(&world, &bridge, 2, all), [2, 0, 2], "while egressd is dead");
        egressd.start();
        world.await_ready();
        assert_eq!(call(&world, &bridge, 2, all), [2, 0, 2], "after its restart");
        await_health(&world, "Unhealthy", 2);
        assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "nothing has changed");
        unblock(all[1]);
        await_health(&world, "Healthy", 6);
        assert_eq!(call(&world, &bridge, 3, all), [2, 2, 2], "it serves again");
    }
}

pub fn all_down() {
    let world = World::builder().build();
    let (bridge, servers) = stage(&world);
    let all = servers.each_ref();
    for iptables in ["iptables", "ip6tables"] {
        world.host.run(&[iptables, "-P", "FORWARD", "DROP"]);
    }
    publish(&world, &all, &format!(", {TCP}"));
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    await_health(&world, "Healthy", 6);
    let at = called(&world, Nic::Eth1)[0];
    until("the firewalls have the rule", || ask_tcp(&world.internet, at).map(drop).map_err(|error| error.to_string()));
    let mut flow = Flow::open(&world.internet, at).expect("it is served");
    // A port of UDP has the same health.
    all.iter().for_each(|server| block(server, TARGET, "REJECT --reject-with tcp-reset"));
    await_health(&world, "Unhealthy", 6);
    for at in called(&world, Nic::Eth1) {
        let error = ask_tcp(&world.internet, at).expect_err("nobody is healthy");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{at}: it is refused at once");
    }
    flow.ask().expect("what is open goes on, through the firewall, too");
    let explained = world.egressctl(&["explain", "--inbound", &format!("{}:{CALLED}", world.layout.address(Nic::Eth1))]);
    assert!(explained.as_ref().is_ok_and(|text| text.contains("is refused by this host")), "{explained:?}");
    publish(&world, &all, &format!(", {TCP}, allDown: KeepAll"));
    world.await_handled();
    all.iter().for_each(|server| unblock(server));
    // They may be asked again before it is looked: all of them have to be tried in either case.
    assert_eq!(call(&world, &bridge, 3, all).iter().sum::<usize>(), 6);
    await_health(&world, "Healthy", 6);
    assert_eq!(call(&world, &bridge, 3, all), [2, 2, 2]);
}

/// Answers each connection with a status that may change.
fn answer(server: &Server, port: u16) -> Arc<AtomicU16> {
    let status = Arc::new(AtomicU16::new(200));
    for address in [IpAddr::from(server.at.address), server.at.address6.into()] {
        let listener = server.at.netns.enter(|| TcpListener::bind((address, port))).expect("the port is free");
        let status = Arc::clone(&status);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap_or(0);
                let good = request[..length].starts_with(b"GET /ready HTTP/1.1\r\n");
                let code = if good { status.load(Ordering::Relaxed) } else { 400 };
                // Who hung up meanwhile asks again.
                let _ = stream.write_all(format!("HTTP/1.1 {code} Some\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        });
    }
    status
}

pub fn by_http() {
    const PORT: u16 = 8081;
    let world = World::builder().build();
    let (bridge, servers) = stage(&world);
    let all = servers.each_ref();
    let statuses = all.map(|server| answer(server, PORT));
    publish(&world, &all, &format!(", health: {{http: {{path: /ready, port: {PORT}}}, intervalMilliseconds: 100, failures: 3}}"));
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    await_health(&world, "Healthy", 6);
    assert_eq!(call(&world, &bridge, 3, all), [2, 2, 2]);
    statuses[2].store(503, Ordering::Relaxed);
    await_health(&world, "Unhealthy", 2);
    assert_eq!(call(&world, &bridge, 2, all), [2, 2, 0], "it answers calls, and says that it should get none");
    assert!(world.status()["services"].to_string().contains("it answers 503"), "{:#}", world.status()["services"]);
    statuses[2].store(204, Ordering::Relaxed);
    await_health(&world, "Healthy", 6);
    assert_eq!(call(&world, &bridge, 3, all), [2, 2, 2]);
}

/// A server with weight 0 gets no new connection, and goes on with what it has.
pub fn drains() {
    let world = World::builder().build();
    let (bridge, [one, two, _]) = stage(&world);
    publish(&world, &[&one, &two], "");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    let at = called(&world, Nic::Eth1)[0];
    let mut flows: Vec<Flow> = (0..2).map(|_| Flow::open(&world.internet, at).expect("it is served")).collect();
    assert_eq!([one.calls(), two.calls()], [1, 1]);
    let weighted = |weight: u16| {
        let of = |address: IpAddr| format!("{{address: '{address}', weight: {weight}}}");
        [IpAddr::from(one.at.address), one.at.address6.into()].map(of)
    };
    let zero = weighted(0);
    let weights = |weight: u16| {
        publish(&world, &[&one, &two], &format!(", servers: [{}]", weighted(weight).join(", ")));
        world.await_handled();
    };
    weights(0);
    assert_eq!(call(&world, &bridge, 3, [&one, &two]), [0, 6]);
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections go on");
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains(&format!("{}:{TARGET} (drains)", one.at.address)), "{shown}");
    // With a deadline its connections end, and nobody else's.
    publish(&world, &[&one, &two], &format!(", servers: [{}], drainSeconds: 1", zero.join(", ")));
    until("its connection has ended", || {
        let ended = flows.iter_mut().map(|flow| flow.ask().is_err()).collect::<Vec<_>>();
        if ended.contains(&true) { Ok(()) } else { Err(format!("{ended:?}")) }
    });
    assert_eq!(flows.iter_mut().filter_map(|flow| flow.ask().ok()).count(), 1, "the other one goes on");
    weights(2);
    assert_eq!(call(&world, &bridge, 3, [&one, &two]), [4, 2], "two of three");
    // A mistake is named, and the binding's other fields count.
    world.bind(
        &Binding::of(&one.at.netns)
            .to(&world, Nic::Eth1)
            .with(&format!("inbound: [{{protocol: TCP, port: 80, servers: [{{address: {}, weight: 101}}]}}]", one.at.address)),
    );
    until("it is told", || {
        let status = world.status();
        let text = status.to_string();
        if text.contains("spec.inbound[0].servers[0].weight") { Ok(()) } else { Err(text) }
    });
}
