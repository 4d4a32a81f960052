//! The proxy beside the agent: which NIC a dialled connection leaves by.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use world::{Binding, Netns, Nic, World, layout::PORT, status::until, talk::parse};

use crate::support::{Proxy, alive, at, await_listening, await_port, connect, echo, is_refused, manifest, port, server};

pub fn by_source() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    world.bind(&Binding::of(&blue).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    world.await_nic("netns/blue", Nic::Eth1);
    let servers = world.servers();
    for (port, server) in (8000..).step_by(10).zip(&servers) {
        let proxied = |number: u16, source: &str| {
            let port = port + number;
            let dial = format!("address: '{server}', port: {PORT}{source}");
            manifest(&format!("p{port}"), &format!("networkNamespaces: [blue], address: 127.0.0.1, port: {port}"), &dial, "");
        };
        let nobody = if server.is_ipv4() { "172.31.9.9" } else { "fd31::9:9" };
        proxied(0, "");
        proxied(1, &format!(", source: '{}'", world.layout.private(Nic::Eth1, *server)));
        proxied(2, &format!(", source: '{nobody}'"));
    }
    let _proxy = Proxy::start();
    await_listening(3 * servers.len());
    let seen = |port: u16| seen(&blue, port);
    for (port, server) in (8000..).step_by(10).zip(&servers) {
        assert_eq!(seen(port), Ok(world.layout.public(Nic::Eth0, *server)), "the host's default route");
        assert_eq!(seen(port + 1), Ok(world.layout.public(Nic::Eth1, *server)), "the exit's NIC");
        seen(port + 2).expect_err("the host has no such address: never by another one");
        await_port("blue", &format!("127.0.0.1:{}", port + 1), "an exit", |port| port["warning"].is_null());
        await_port("blue", &format!("127.0.0.1:{}", port + 2), "told to be no exit", |port| {
            port["warning"].as_str().is_some_and(|warning| warning.contains("is no exit") && warning.contains("use the host's routes"))
        });
    }
    assert_eq!(world.status()["problems"], serde_json::json!([]), "the agent passes over what is the proxy's");
    egressd.kill();
    for (port, server) in (8000..).step_by(10).zip(&servers) {
        assert_eq!(seen(port + 1), Ok(world.layout.public(Nic::Eth1, *server)), "also while the agent is dead");
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    world.cleanup();
    for (port, _) in (8000..).step_by(10).zip(&servers) {
        let ((), left) = world.watch(|| drop(seen(port + 1)));
        assert_eq!(left.by(Nic::Eth1), 0, "without the agent's rules the source alone does not take it there");
    }
}

/// The address that the outside sees of a call to a port of a namespace's own.
fn seen(from: &Netns, port: u16) -> Result<IpAddr, String> {
    let mut stream = connect(from, local(port)).map_err(|error| error.to_string())?;
    let mut line = [0; 64];
    let length = stream.read(&mut line).map_err(|error| error.to_string())?;
    Ok(parse(&String::from_utf8_lossy(&line[..length])).map_err(|error| error.to_string())?.ip())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(at("127.0.0.1:0").ip(), port)
}

/// Where what is sent comes back, on each server.
const ECHO: u16 = 7777;

pub fn by_binding() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    // It fits nobody: the proxy alone leaves by it.
    let crawler = |nic| Binding::new("crawler", "networkNamespaces: [nobody]").to(&world, nic);
    world.bind(&crawler(Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let servers = world.servers();
    for (port, at) in (8000..).step_by(10).zip(&servers) {
        server(&world.internet, SocketAddr::new(*at, ECHO), echo);
        for (number, to, binding) in
            [(0, PORT, ""), (1, PORT, ", binding: crawler"), (2, ECHO, ", binding: crawler"), (3, PORT, ", binding: nobodys")]
        {
            let listen = format!("networkNamespaces: [blue], address: 127.0.0.1, port: {}", port + number);
            manifest(&format!("p{}", port + number), &listen, &format!("address: '{at}', port: {to}{binding}"), "");
        }
    }
    let _proxy = Proxy::start();
    await_listening(4 * servers.len());
    let ports = || (8000_u16..).step_by(10).zip(&servers);
    let await_exit = |nic| {
        for (port, server) in ports() {
            let exits = serde_json::json!([world.layout.private(nic, *server).to_string()]);
            await_port("blue", &local(port + 1).to_string(), "by its exit", |port| port["exits"] == exits && port["noExit"].is_null());
        }
    };
    let leaves_by = |nic| {
        for (port, server) in ports() {
            assert_eq!(seen(&blue, port + 1), Ok(world.layout.public(nic, *server)));
        }
    };
    let open = || ports().map(|(port, _)| connect(&blue, local(port + 2)).expect("it is taken")).collect::<Vec<_>>();
    await_exit(Nic::Eth1);
    leaves_by(Nic::Eth1);
    for (port, server) in ports() {
        assert_eq!(seen(&blue, port), Ok(world.layout.public(Nic::Eth0, *server)), "without a binding by the host's default route");
        assert!(is_refused(&blue, local(port + 3)), "nobody has that binding");
    }
    let told = port("blue", &local(8003).to_string());
    assert!(told["noExit"].as_str().is_some_and(|why| why.contains("no file has a binding default/nobodys")), "{told}");
    assert_eq!((&told["withoutExit"], &told["accepted"]), (&1.into(), &0.into()));
    let table = world.egressctl(&["proxies"]).expect("it answers");
    let exit = format!("{} (default/crawler)", world.layout.private(Nic::Eth1, servers[0]));
    assert!(table.contains(&exit) && table.contains("none (default/nobodys)"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&world.egressctl(&["proxies", "-o", "json"]).expect("it answers")).expect("JSON");
    assert_eq!(json["ports"].as_array().map(Vec::len), Some(4 * servers.len()));

    let mut kept = open();
    assert!(kept.iter_mut().all(alive));
    let all_end = |open: &mut Vec<TcpStream>| {
        until("open connections end", || match open.iter_mut().map(alive).filter(|alive| *alive).count() {
            0 => Ok(()),
            open => Err(format!("{open} are open")),
        });
    };
    world.bind(&Binding::new("other", "networkNamespaces: [nobody]").to(&world, Nic::Eth1));
    world.await_handled();
    world.bind(&crawler(Nic::Eth0));
    await_exit(Nic::Eth0);
    leaves_by(Nic::Eth0);
    std::thread::sleep(Duration::from_secs(1));
    assert!(kept.iter_mut().all(alive), "what is open goes on as it began");
    world.unbind("other");
    all_end(&mut kept);

    // Its former exit is another binding's again: it ends for all that.
    world.bind(&Binding::new("other", "networkNamespaces: [nobody]").to(&world, Nic::Eth0));
    world.bind(&crawler(Nic::Eth0).with("existingFlows: Reset"));
    world.await_handled();
    let mut reset = open();
    assert!(reset.iter_mut().all(alive));
    world.bind(&crawler(Nic::Eth1).with("existingFlows: Reset"));
    await_exit(Nic::Eth1);
    all_end(&mut reset);

    egressd.kill();
    leaves_by(Nic::Eth1);
    egressd.start();
    leaves_by(Nic::Eth1);
    world.host.ip("link set eth1 down");
    for (port, _) in ports() {
        await_port("blue", &local(port + 1).to_string(), "without an exit", |port| port["noExit"].is_string());
        let ((), left) = world.watch(|| assert!(is_refused(&blue, local(port + 1)), "never by another exit"));
        assert_eq!(left.by(Nic::Eth0) + left.by(Nic::Eth1), 0, "{left}");
    }
}
