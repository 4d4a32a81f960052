//! What UDP clients and servers see of each other.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use world::{Netns, status::until};

use crate::support::{PATIENCE, Proxy, SERVER, at, await_listening, await_port, manifest, port};

/// A server that sends back what it gets, with the port that it came from.
fn echo(netns: &Netns, at: SocketAddr) {
    let socket = netns.enter(|| UdpSocket::bind(at)).unwrap_or_else(|error| panic!("failed to listen on {at}: {error}"));
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        loop {
            if let Ok((length, peer)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], peer);
            }
        }
    });
}

/// A client's socket.
fn client(netns: &Netns, like: SocketAddr) -> UdpSocket {
    let any = if like.is_ipv4() { at("0.0.0.0:0") } else { at("[::]:0") };
    let socket = netns.enter(|| UdpSocket::bind(any)).expect("a port is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    socket
}

/// Sends a datagram, and returns the answer and whom it is from.
fn exchange(socket: &UdpSocket, to: SocketAddr, datagram: &[u8]) -> io::Result<(Vec<u8>, SocketAddr)> {
    socket.send_to(datagram, to)?;
    let mut answer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut answer)?;
    answer.truncate(length);
    Ok((answer, from))
}

pub fn answers() {
    let (host, ns1, ns2) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"));
    echo(&host, SERVER);
    for netns in [&ns1, &ns2] {
        netns.ip("addr add 192.0.2.1/24 dev lo\naddr add 192.0.2.2/24 dev lo\naddr add 2001:db8::2/64 dev lo nodad");
    }
    let dial = "address: 127.0.0.1, port: 80";
    manifest("dns", "networkNamespaces: ['', ns1, ns2], protocol: UDP, address: 0.0.0.0, port: 5300", dial, "");
    manifest("dns6", "networkNamespaces: [ns1, ns2], protocol: UDP, address: '::', port: 5300", dial, "");
    manifest("one", "networkNamespaces: [ns2], protocol: UDP, address: 192.0.2.2, port: 5301", dial, "");
    let early = client(&ns1, SERVER);
    early.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
    exchange(&early, at("127.0.0.1:5300"), b"early").expect_err("nobody listens yet");
    let mut proxy = Proxy::start();
    await_listening(6);
    exchange(&client(&host, SERVER), at("127.0.0.1:5300"), b"x").expect("the host is served, too");
    for netns in [&ns1, &ns2] {
        for to in ["127.0.0.1:5300", "192.0.2.1:5300", "192.0.2.2:5300", "[::1]:5300", "[2001:db8::2]:5300"] {
            let socket = client(netns, at(to));
            for length in [0, 1, 1_400, 60_000] {
                let sent: Vec<u8> = (0..length).map(|i: usize| (i % 251) as u8).collect();
                let (answer, from) = exchange(&socket, at(to), &sent).unwrap_or_else(|error| panic!("{to}, {length} bytes: {error}"));
                assert!(answer == sent && from == at(to), "{to}, {length} bytes: {} from {from}", answer.len());
            }
        }
    }
    let (_, from) = exchange(&client(&ns2, SERVER), at("192.0.2.2:5301"), b"x").expect("it is served");
    assert_eq!(from, at("192.0.2.2:5301"));
    // Many clients at once: each gets its own answers.
    let clients: Vec<UdpSocket> = (0..200).map(|_| client(&ns1, SERVER)).collect();
    for (i, socket) in clients.iter().enumerate() {
        socket.send_to(format!("client {i}").as_bytes(), at("192.0.2.1:5300")).expect("the way is open");
    }
    for (i, socket) in clients.iter().enumerate() {
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("client {i}: {error}"));
        assert_eq!(answer[..length], *format!("client {i}").as_bytes());
    }
    assert_eq!(port("ns1", "0.0.0.0:5300")["open"], 203, "one for each client and address");
    proxy.service.kill();
    let late = client(&ns1, SERVER);
    late.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
    exchange(&late, at("127.0.0.1:5300"), b"late").expect_err("nobody listens any more");
}

pub fn sessions() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    echo(&host, SERVER);
    let listen = "networkNamespaces: [ns1], protocol: UDP, address: 127.0.0.1, port: 5300";
    manifest("dns", listen, "address: 127.0.0.1, port: 80", ", udp: {sessions: 3, idleSeconds: 2}");
    let proxy = Proxy::start();
    await_listening(1);
    let before = proxy.descriptors();
    let to = at("127.0.0.1:5300");
    let old: Vec<UdpSocket> = (0..3).map(|_| client(&ns1, to)).collect();
    for socket in &old {
        exchange(socket, to, b"x").expect("there is a place");
    }
    let new = client(&ns1, to);
    new.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a socket");
    exchange(&new, to, b"x").expect_err("there are three");
    for socket in &old {
        exchange(socket, to, b"x").expect("those that are there go on");
    }
    await_port("ns1", "127.0.0.1:5300", "full", |port| port["open"] == 3 && port["refused"].as_u64() > Some(0));
    await_port("ns1", "127.0.0.1:5300", "empty", |port| port["open"] == 0);
    until("its sockets are closed", || {
        let now = proxy.descriptors();
        if now <= before { Ok(()) } else { Err(format!("{now} of {before}")) }
    });
    exchange(&new, to, b"x").expect("there is a place again");
    assert!(proxy.service.log().contains("refusing new connections"), "{}", proxy.service.log());
    // A server that is not there costs no more than its answers.
    manifest("dns", listen, "address: 127.0.0.1, port: 81", "");
    until("nobody answers", || {
        let socket = client(&ns1, to);
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
        if exchange(&socket, to, b"x").is_err() { Ok(()) } else { Err("answered".to_owned()) }
    });
    echo(&host, at("127.0.0.1:81"));
    exchange(&client(&ns1, to), to, b"x").expect("somebody answers now");
}
