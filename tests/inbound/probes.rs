//! Servers that are asked by TLS, and by datagrams.

use std::{
    net::IpAddr,
    process::{Child, Command, Stdio},
};

use world::{Nic, World, command, status::until, talk::ask_udp_from};

use crate::{CALLED, Server, TARGET, call, called, health::unblock, publish, served, stage};

/// Waits until eth1's entries of this server, of both families, are in this state.
fn await_health(world: &World, protocol: &str, server: &Server, health: &str) {
    let own = [IpAddr::from(server.at.address), server.at.address6.into()].map(|address| address.to_string());
    until(&format!("{} is {health}", server.at.netns.name()), || {
        let status = world.status();
        let of_protocol = |one: &&serde_json::Value| one["service"].as_str().is_some_and(|name| name.starts_with(protocol));
        let services = status["services"].as_array().into_iter().flatten().filter(of_protocol);
        let servers = services.flat_map(|one| one["servers"].as_array().into_iter().flatten());
        let mut found = servers.filter(|one| own.iter().any(|own| one["address"] == *own)).peekable();
        let so = found.peek().is_some() && found.all(|one| one["health"] == health);
        if so { Ok(()) } else { Err(format!("{:#}", status["services"])) }
    });
}

/// A web server by TLS alone, with a certificate for another name that nobody signed; it ends with this.
struct TlsServer(Child);

impl TlsServer {
    fn start(server: &Server, port: u16) -> Self {
        let accept = port.to_string();
        let arguments = ["s_server", "-quiet", "-www", "-accept", &accept, "-key", "/run/world/tls.key", "-cert", "/run/world/tls.crt"];
        let start = || Command::new("openssl").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(server.at.netns.enter(start).expect("openssl is installed"))
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn by_https() {
    const PORT: u16 = 8443;
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    let all = servers.each_ref();
    command::run(&[
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-days",
        "30",
        "-subj",
        "/CN=somebody-else.example",
        "-keyout",
        "/run/world/tls.key",
        "-out",
        "/run/world/tls.crt",
    ]);
    let health = |scheme: &str| format!(", health: {{http: {{path: /ready, scheme: {scheme}, port: {PORT}}}, intervalMilliseconds: 100}}");
    publish(&world, &all, "");
    let _egressd = served(&world);
    let [_one, two, _three] = all.map(|server| TlsServer::start(server, PORT));
    publish(&world, &all, &health("HTTPS"));
    all.iter().for_each(|server| await_health(&world, "tcp/", server, "Healthy"));
    assert_eq!(call(&world, 3, all), [2, 2, 2]);
    drop(two);
    await_health(&world, "tcp/", all[1], "Unhealthy");
    assert_eq!(call(&world, 2, all), [2, 0, 2]);
    // A web server without TLS is none.
    publish(&world, &all, &health("HTTP"));
    all.iter().for_each(|server| await_health(&world, "tcp/", server, "Unhealthy"));
    publish(&world, &all, &format!(", health: {{http: {{path: /, scheme: HTTPS, port: {TARGET}}}, intervalMilliseconds: 200}}"));
    all.iter().for_each(|server| await_health(&world, "tcp/", server, "Unhealthy"));
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(shown.contains("no answer by TLS: ") || shown.contains("no answer within 200 ms"), "{shown}");
}

/// Datagrams to the server come to nothing.
fn block(server: &Server, how: &str) {
    for iptables in ["iptables", "ip6tables"] {
        let rule = format!("{iptables} -I INPUT -p udp --dport {TARGET} -j {how}");
        server.at.netns.run(&rule.split(' ').collect::<Vec<_>>());
    }
}

pub fn by_datagrams() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    let all = servers.each_ref();
    publish(&world, &all, "");
    let _egressd = served(&world);
    let health = |probe: &str| format!(", health: {{udp: {{{probe}}}, intervalMilliseconds: 100}}");
    // Servers answer with the address that they see.
    for probe in ["send: who", "sendBase64: AAEC, expect: ' '"] {
        publish(&world, &all, &health(probe));
        all.iter().for_each(|server| await_health(&world, "udp/", server, "Healthy"));
        for (how, why) in [("REJECT", "Connection refused"), ("DROP", "no answer within 100 ms")] {
            block(all[1], how);
            await_health(&world, "udp/", all[1], "Unhealthy");
            let inbound = format!("{}:{CALLED}/udp", world.layout.address(Nic::Eth1));
            let explained = world.egressctl(&["explain", "--inbound", &inbound]).expect("it answers");
            assert!(explained.contains(&format!("unhealthy ({why})")), "{explained}");
            unblock(all[1]);
            await_health(&world, "udp/", all[1], "Healthy");
        }
    }
    publish(&world, &all, &health("send: who, expect: nothing of the kind"));
    all.iter().for_each(|server| await_health(&world, "udp/", server, "Unhealthy"));
    world::talk::ask_udp(&world.internet, called(&world, Nic::Eth1)[0]).expect_err("nobody is healthy");
    assert!(world.status()["services"].to_string().contains("its answer has no"), "{:#}", world.status()["services"]);
}

/// A client that goes on with one socket, as most do: each of its datagrams would keep its flow alive.
pub fn dead() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    publish(&world, &servers.each_ref(), "");
    let _egressd = served(&world);
    let at = called(&world, Nic::Eth1)[0];
    let ask = |port: u16| ask_udp_from(&world.internet, ([0; 4], port).into(), at).map(drop).map_err(|error| error.to_string());
    // By turn each server has one of them.
    let clients = [5000, 5001, 5002].map(|port| {
        let before = servers.each_ref().map(Server::calls);
        ask(port).expect("it is served");
        (port, (0..3).find(|at| servers[*at].calls() > before[*at]).expect("one of them answers"))
    });
    let (port, of) = clients[0];
    assert!(clients[1..].iter().all(|(_, other)| *other != of), "{clients:?}");
    block(&servers[of], "DROP");
    ask(port).expect_err("nobody asks for its health");
    unblock(&servers[of]);
    publish(&world, &servers.each_ref(), ", health: {udp: {send: who}, intervalMilliseconds: 100}");
    servers.iter().for_each(|server| await_health(&world, "udp/", server, "Healthy"));
    clients.iter().for_each(|(port, _)| ask(*port).expect("it is served"));
    block(&servers[of], "DROP");
    await_health(&world, "udp/", &servers[of], "Unhealthy");
    let before = servers[of].calls();
    until("another server has its client", || ask(port));
    clients.iter().for_each(|(port, _)| ask(*port).expect("the others stay"));
    assert_eq!(servers[of].calls(), before, "it has no client");
    // While nobody is healthy it is refused, and whoever is so first has it.
    servers.iter().for_each(|server| block(server, "DROP"));
    servers.iter().for_each(|server| await_health(&world, "udp/", server, "Unhealthy"));
    ask(port).expect_err("nobody is healthy");
    unblock(&servers[of]);
    await_health(&world, "udp/", &servers[of], "Healthy");
    until("one server has its client", || ask(port));
}
