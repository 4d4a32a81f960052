//! Sockets of the host that are bound to an address of a binding: programs that listen on an address of a bridge of their own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use world::{Binding, Nic, World, layout::PORT, talk, talk::Flow};

use crate::lab::{await_state, servers};

/// The addresses of a program's bridge, with the NIC that it should leave by.
const BRIDGES: [(&str, [u8; 4], u16, Nic); 2] =
    [("br-eip1", [172, 19, 0, 100], 0x100, Nic::Eth1), ("br-eip2", [172, 19, 1, 101], 0x101, Nic::Eth0)];

fn addresses(world: &World, v4: [u8; 4], last: u16) -> Vec<IpAddr> {
    let v6 = IpAddr::from(Ipv6Addr::new(0xfd19, 0, 0, last, 0, 0, 0, last));
    servers(world).iter().map(|server| if server.is_ipv4() { v4.into() } else { v6 }).collect()
}

fn bridges(world: &World) {
    for (name, v4, last, _) in BRIDGES {
        world.host.ip(&format!("link add {name} type bridge\nlink set {name} up"));
        for address in addresses(world, v4, last) {
            let length = if address.is_ipv4() { "24" } else { "64 nodad" };
            world.host.ip(&format!("addr add {address}/{length} dev {name}"));
        }
    }
}

fn binding(world: &World, at: usize) -> Binding {
    let (name, v4, last, nic) = BRIDGES[at];
    let own: Vec<String> = addresses(world, v4, last).iter().map(|own| format!("'{}'", ipnet(own))).collect();
    Binding::new(name, &format!("addresses: [{}]", own.join(", "))).to(world, nic)
}

fn ipnet(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Whom a server sees when a socket with this address calls it, by TCP and by datagrams.
fn seen(world: &World, from: IpAddr, server: SocketAddr) -> Result<IpAddr, String> {
    let tcp = Flow::open_from(&world.host, from, server).and_then(|mut flow| Ok((flow.seen, flow.ask()?)));
    let (first, again) = tcp.map_err(|error| format!("TCP from {from}: {error}"))?;
    let datagram = talk::ask_udp_from(&world.host, SocketAddr::new(from, 0), server);
    let datagram = datagram.map_err(|error| format!("a datagram from {from}: {error}"))?;
    let all = [first.ip(), again.ip(), datagram.ip()];
    if all.iter().all(|ip| *ip == all[0]) { Ok(all[0]) } else { Err(format!("{all:?}")) }
}

pub fn of_bridges() {
    let world = World::builder().build();
    bridges(&world);
    let unbound = || (servers(&world)[0], IpAddr::from(BRIDGES[0].1));
    assert!(seen(&world, unbound().1, unbound().0).is_err(), "without egressd what it calls is seen as nobody");
    for (at, (_, v4, last, _)) in BRIDGES.into_iter().enumerate() {
        talk::serve(&world.host, &addresses(&world, v4, last), &[8090]);
        world.bind(&binding(&world, at).with("inbound: [{protocol: TCP, port: 8090}, {protocol: UDP, port: 8090}]"));
    }
    let here: Vec<IpAddr> = world.layout.own(Nic::Eth0).into_iter().chain(addresses(&world, BRIDGES[0].1, BRIDGES[0].2)).collect();
    talk::serve(&world.host, &here, &[8091]);
    let mut daemon = world.egressd_alone();
    let right = |world: &World| {
        for (_, v4, last, nic) in BRIDGES {
            for (from, server) in addresses(world, v4, last).into_iter().zip(servers(world)) {
                let public = world.layout.public(nic, server.ip());
                assert_eq!(seen(world, from, server), Ok(public), "{from} calls out by {nic:?}\n{:#}", world.status());
                let ((), packets) = world.watch(|| {
                    talk::ask_tcp(&world.internet, SocketAddr::new(public, 8090)).expect("it is called at its NIC's address");
                    talk::ask_udp(&world.internet, SocketAddr::new(public, 8090)).expect("by datagrams, too");
                });
                let other = if nic == Nic::Eth0 { Nic::Eth1 } else { Nic::Eth0 };
                assert!(packets.by(nic) > 0 && packets.by(other) == 0, "it answers by {nic:?}: {packets}");
            }
        }
        // On the host it is called, and calls, as ever: there the kernel takes the called address as the caller's, too.
        let here = servers(world).into_iter().map(|server| world.layout.private(Nic::Eth0, server.ip()));
        for (own, other) in addresses(world, BRIDGES[0].1, BRIDGES[0].2).into_iter().zip(here) {
            for (from, to) in [(own, own), (own, other), (other, own)] {
                let to = SocketAddr::new(to, 8091);
                assert_eq!(seen(world, from, to), Ok(from), "{from} calls {to}");
            }
        }
        // Nobody else is moved.
        let own = servers(world).into_iter().map(|server| talk::ask_tcp(&world.host, server).expect("the host has a way").ip());
        let by_default: Vec<IpAddr> = servers(world).iter().map(|server| world.layout.public(Nic::Eth0, server.ip())).collect();
        assert_eq!(own.collect::<Vec<_>>(), by_default);
    };
    right(&world);
    daemon.kill();
    right(&world);
    daemon.start();
    world.await_handled();
    right(&world);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    let own = BRIDGES[0].1.map(|part| part.to_string()).join(".");
    let explained = world.egressctl(&["explain", &own, &servers(&world)[0].ip().to_string()]).expect("it is known");
    assert!(explained.contains("sockets of this host") && explained.contains("NIC       eth1"), "{explained}");
}

/// An address that goes and comes: while it comes, what its sockets send waits for egressd.
pub fn that_come_anew() {
    let world = World::builder().build();
    bridges(&world);
    let (_, v4, last, nic) = BRIDGES[0];
    let pairs: Vec<(IpAddr, SocketAddr)> = addresses(&world, v4, last).into_iter().zip(servers(&world)).collect();
    let anew = |neighbour: bool| {
        for (address, server) in &pairs {
            let net = format!("{address}/{}", if address.is_ipv4() { "24" } else { "64" });
            let beside = if address.is_ipv4() { "172.19.0.7/24" } else { "fd19:0:0:100::7/64" };
            let nodad = if address.is_ipv4() { "" } else { " nodad" };
            // Where another address of its subnet stays, the subnet's route does, too.
            if neighbour {
                world.host.ip(&format!("addr replace {beside} dev br-eip1{nodad}"));
            }
            world.host.ip(&format!("addr del {net} dev br-eip1"));
            world.host.ip(&format!("addr add {net} dev br-eip1{nodad}"));
            // One that is refused has not left either.
            world.host.enter(|| (0..5).for_each(|_| _ = UdpSocket::bind((*address, 0)).and_then(|socket| socket.send_to(b"?", *server))));
        }
    };
    world.bind(&binding(&world, 0));
    let _egressd = world.egressd_alone();
    for (address, _) in &pairs {
        await_state(&world, &ipnet(address), "Bound");
    }
    for round in 0..12 {
        let ((), packets) = world.watch(|| anew(round % 2 == 1));
        assert_eq!(packets.by(Nic::Eth0), 0, "round {round}: {packets}");
        world.await_handled();
    }
    for (address, server) in &pairs {
        assert_eq!(seen(&world, *address, *server), Ok(world.layout.public(nic, server.ip())), "afterwards it is bound as before");
    }
    world.unbind("br-eip1");
    world.await_handled();
    let ((), packets) = world.watch(|| anew(false));
    assert!(packets.by(Nic::Eth0) > 0, "without the binding they leave by the default route: {packets}");
}

pub fn without_an_exit() {
    let world = World::builder().ipv6(false).build();
    bridges(&world);
    let (from, server) = (IpAddr::from(BRIDGES[0].1), servers(&world)[0]);
    world.bind(&binding(&world, 0));
    let _egressd = world.egressd_alone();
    let row = ipnet(&from);
    await_state(&world, &row, "Bound");
    let mut flow = Flow::open_from(&world.host, from, server).expect("it is bound");
    world.host.ip("link set eth1 down");
    await_state(&world, &row, "Dropped");
    let ((), packets) = world.watch(|| {
        Flow::open_from(&world.host, from, server).map(drop).expect_err("it is refused");
        talk::ask_udp_from(&world.host, SocketAddr::new(from, 0), server).expect_err("so are datagrams");
        flow.ask().expect_err("what is open waits");
    });
    assert!(packets.is_empty(), "{packets}");
    let dropped = world.status()["workloads"].to_string();
    assert!(dropped.contains("NoExit"), "what is dropped is counted for it: {dropped}");
    world.bind(&Binding::new("br-eip1", &format!("addresses: [{row}]")).to(&world, Nic::Eth0));
    await_state(&world, &row, "Bound");
    assert_eq!(seen(&world, from, server), Ok(Nic::Eth0.eip().into()));
    world.unbind("br-eip1");
    world.await_handled();
    seen(&world, from, server).expect_err("as without egressd");
    // A bridge that comes anew is taken up.
    world.bind(&binding(&world, 0).with("existingFlows: Reset"));
    world.host.ip("link set eth1 up\nlink delete br-eip1");
    await_state(&world, &row, "Waiting");
    world.host.ip(&format!("link add br-eip1 type bridge\nlink set br-eip1 up\naddr add {from}/24 dev br-eip1"));
    await_state(&world, &row, "Bound");
    assert_eq!(seen(&world, from, server), Ok(Nic::Eth1.eip().into()));
}

pub fn of_a_nic() {
    let world = World::builder().ipv6(false).build();
    let own = world.layout.address(Nic::Eth0);
    world.bind(&Binding::new("own", &format!("addresses: [{own}/32]")).to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    await_state(&world, &format!("{own}/32"), "Refused");
    assert!(world.status().to_string().contains("AddressOfNic"), "{:#}", world.status());
    let server = SocketAddr::new(servers(&world)[0].ip(), PORT);
    assert_eq!(seen(&world, own.into(), server), Ok(Nic::Eth0.eip().into()), "it goes as it would without egressd");
}
