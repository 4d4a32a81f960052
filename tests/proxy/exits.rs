//! The proxy beside the agent: which NIC a dialled connection leaves by.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
};

use world::{Binding, Nic, World, layout::PORT, talk::parse};

use crate::support::{Proxy, at, await_listening, connect, manifest};

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
    let seen = |port: u16| -> Result<IpAddr, String> {
        let mut stream = connect(&blue, SocketAddr::new(at("127.0.0.1:0").ip(), port)).map_err(|error| error.to_string())?;
        let mut line = [0; 64];
        let length = stream.read(&mut line).map_err(|error| error.to_string())?;
        Ok(parse(&String::from_utf8_lossy(&line[..length])).map_err(|error| error.to_string())?.ip())
    };
    for (port, server) in (8000..).step_by(10).zip(&servers) {
        assert_eq!(seen(port), Ok(world.layout.public(Nic::Eth0, *server)), "the host's default route");
        assert_eq!(seen(port + 1), Ok(world.layout.public(Nic::Eth1, *server)), "the exit's NIC");
        seen(port + 2).expect_err("the host has no such address: never by another one");
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
