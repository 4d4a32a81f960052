//! What TCP clients and servers see of each other.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use world::{Netns, status::until};

use crate::support::{PATIENCE, Proxy, SERVER, ask, at, await_listening, connect, echo, hello, is_refused, manifest, port, server};

pub fn three_namespaces() {
    let (host, ns1, ns2, other) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"), Netns::add("other"));
    server(&host, SERVER, hello);
    manifest("web", "networkNamespaces: ['', ns1, ns2], protocol: TCP, address: 0.0.0.0, port: 8000", "address: 127.0.0.1, port: 80", "");
    manifest("web6", "networkNamespaces: ['', ns1, /run/netns/ns2], address: '::', port: 8000", "address: 127.0.0.1, port: 80", "");
    let all = [&host, &ns1, &ns2];
    let calls = [at("127.0.0.1:8000"), at("[::1]:8000")];
    for netns in all {
        ask(netns, calls[0]).expect_err("nobody listens yet");
    }
    let mut proxy = Proxy::start();
    await_listening(6);
    for netns in all {
        for to in calls {
            assert_eq!(ask(netns, to).expect("it is served"), "hello", "{} {to}", netns.name());
        }
    }
    ask(&other, calls[0]).expect_err("no manifest names it");
    proxy.service.kill();
    for netns in all {
        ask(netns, calls[0]).expect_err("nobody listens any more");
    }
}

pub fn byte_exact() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    server(&host, SERVER, echo);
    manifest("echo", "networkNamespaces: [ns1], address: '127.0.0.1', port: 8000", "address: 127.0.0.1, port: 80", "");
    let _proxy = Proxy::start();
    await_listening(1);
    // From one byte to what fills every buffer on the way many times over.
    for length in [0, 1, 100, 16_384, 65_536, 65_537, 1_000_003, 64 << 20] {
        let sent: Vec<u8> = (0..length).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let mut stream = connect(&ns1, at("127.0.0.1:8000")).expect("it is served");
        let mut up = stream.try_clone().expect("a socket can be shared");
        let mut got = Vec::with_capacity(length);
        thread::scope(|scope| {
            scope.spawn(|| {
                up.write_all(&sent).expect("the server takes it");
                up.shutdown(Shutdown::Write).expect("it is connected");
            });
            if length > 1 << 20 {
                // All is full meanwhile.
                thread::sleep(Duration::from_millis(500));
            }
            stream.read_to_end(&mut got).expect("the server ends");
        });
        assert!(got == sent, "{length} bytes: {} came back", got.len());
    }
}

/// A client's connection and the server's end of it.
fn joined(netns: &Netns, accepted: &mpsc::Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let client = connect(netns, at("127.0.0.1:8000")).expect("it is served");
    (client, accepted.recv_timeout(PATIENCE).expect("it is dialled on"))
}

fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).expect("it is a socket");
}

fn is_reset(mut stream: &TcpStream) -> bool {
    stream.read(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

pub fn resets_and_limits() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    let (accept, accepted) = mpsc::channel();
    server(&host, SERVER, move |stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        accept.send(stream).map_err(io::Error::other)
    });
    let listen = "networkNamespaces: [ns1], address: '127.0.0.1', port: 8000";
    let dial = "address: 127.0.0.1, port: 80";
    manifest("slow", listen, dial, ", tcp: {idleSeconds: 600, halfClosedSeconds: 1}");
    let _proxy = Proxy::start();
    await_listening(1);
    let (client, server) = joined(&ns1, &accepted);
    reset(client);
    assert!(is_reset(&server), "a client's reset");
    let (client, server) = joined(&ns1, &accepted);
    reset(server);
    assert!(is_reset(&client), "a server's reset");
    let (client, mut server) = joined(&ns1, &accepted);
    client.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(server.read(&mut [0]).expect("the end comes through"), 0);
    server.write_all(b"late").expect("the other direction goes on");
    assert_eq!((&client).read(&mut [0; 16]).expect("the other direction goes on"), 4);
    assert!(is_reset(&client), "one direction alone for too long");
    until("the server is told, too", || if server.write_all(b"x").is_err() { Ok(()) } else { Err("it is open".to_owned()) });
    manifest("slow", listen, dial, ", tcp: {idleSeconds: 1}");
    until("new connections have the new limit", || {
        let (client, _server) = joined(&ns1, &accepted);
        client.set_read_timeout(Some(Duration::from_secs(3))).expect("it is a socket");
        if is_reset(&client) { Ok(()) } else { Err("it is still open".to_owned()) }
    });
    // Nobody listens there.
    manifest("slow", listen, "address: 127.0.0.1, port: 81", "");
    until("a call that reaches nobody is reset, and counted", || {
        let refused = is_refused(&ns1, at("127.0.0.1:8000"));
        let port = port("ns1", "127.0.0.1:8000");
        if refused && port["unreached"].as_u64() > Some(0) { Ok(()) } else { Err(port.to_string()) }
    });
    let told = port("ns1", "127.0.0.1:8000")["unreachable"].clone();
    let said = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
    assert!(said("since").ends_with('Z') && said("reason").contains("refused"), "{told}");
    is_refused(&ns1, at("127.0.0.1:8000"));
    assert_eq!(port("ns1", "127.0.0.1:8000")["unreachable"]["since"], told["since"], "since the first that did not reach it");
    manifest("slow", listen, dial, "");
    until("it is reached again, and nothing is told", || {
        drop(connect(&ns1, at("127.0.0.1:8000")));
        let port = port("ns1", "127.0.0.1:8000");
        if port["unreachable"].is_null() { Ok(()) } else { Err(port.to_string()) }
    });
}

/// Sends so many bytes, each piece of them as soon as there is room, and tells how many a second arrived.
fn rate(netns: &Netns, to: SocketAddr, bytes: usize) -> f64 {
    let mut stream = connect(netns, to).expect("it is served");
    let piece = vec![7; 256 * 1024];
    let began = Instant::now();
    for _ in 0..bytes / piece.len() {
        stream.write_all(&piece).expect("the server takes it");
    }
    stream.shutdown(Shutdown::Write).expect("it is connected");
    // The server ends when it has all.
    assert_eq!(stream.read(&mut [0]).expect("the server ends"), 0);
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// Copies through a buffer of its own, as the simplest proxy does.
fn copy(mut from: TcpStream) -> io::Result<()> {
    let mut to = TcpStream::connect(SERVER)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            length => to.write_all(&buffer[..length])?,
        }
    }
    to.shutdown(Shutdown::Write)?;
    to.read(&mut buffer).map(drop)
}

pub fn throughput() {
    const BYTES: usize = 512 << 20;
    let host = Netns::host();
    server(&host, SERVER, |mut stream| {
        let mut buffer = vec![0; 256 * 1024];
        while stream.read(&mut buffer)? > 0 {}
        Ok(())
    });
    server(&host, at("127.0.0.1:8001"), copy);
    manifest("web", "networkNamespaces: [''], address: 127.0.0.1, port: 8000", "address: 127.0.0.1, port: 80", "");
    let _proxy = Proxy::start();
    await_listening(1);
    let mut rates = [0.0; 3];
    for _ in 0..5 {
        for (best, to) in rates.iter_mut().zip([SERVER, at("127.0.0.1:8001"), at("127.0.0.1:8000")]) {
            *best = f64::max(*best, rate(&host, to, BYTES));
        }
    }
    let [direct, copied, proxied] = rates.map(|rate| rate * 8.0 / 1e9);
    println!("best of five, Gbit/s: direct {direct:.1}, by a proxy that copies {copied:.1}, by egressd proxy {proxied:.1}");
}

/// What a server reads up to the end of `expected`, which it has to begin with.
fn assert_begins(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap_or_else(|error| panic!("{error}: {}", got.escape_ascii()));
    assert_eq!(got, expected, "{}", got.escape_ascii());
}

pub fn proxy_protocol() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    let (accept, accepted) = mpsc::channel();
    server(&host, SERVER, move |stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        accept.send(stream).map_err(io::Error::other)
    });
    let proxied = |port: u16, version: &str, more: &str| {
        let listen = format!("networkNamespaces: [ns1], address: '127.0.0.1', port: {port}");
        manifest(&format!("p{port}"), &listen, &format!("address: 127.0.0.1, port: 80, proxyProtocol: {version}"), more);
    };
    proxied(8000, "None", "");
    proxied(8001, "V1", "");
    proxied(8002, "V2", "");
    proxied(8003, "V1", ", trustedSources: [127.0.0.0/8]");
    proxied(8004, "None", ", trustedSources: [10.0.0.0/8]");
    let _proxy = Proxy::start();
    await_listening(5);
    let call = |port: u16, first: &[u8]| {
        let mut client = connect(&ns1, SocketAddr::new(SERVER.ip(), port)).expect("it is served");
        client.write_all(first).expect("it is open");
        (client.local_addr().expect("it is connected").port(), accepted.recv_timeout(PATIENCE), client)
    };
    let (_, server, _client) = call(8000, b"payload");
    assert_begins(&mut server.expect("it is dialled on"), b"payload");
    let (from, server, _client) = call(8001, b"payload");
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} 8001\r\npayload");
    assert_begins(&mut server.expect("it is dialled on"), line.as_bytes());
    let (from, server, _client) = call(8002, b"payload");
    let [high, low] = from.to_be_bytes();
    let binary = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01", &[high, low, 0x1f, 0x42][..], b"payload"].concat();
    assert_begins(&mut server.expect("it is dialled on"), &binary);
    // What a trusted balancer tells is told on, whatever version it speaks.
    for header in [
        &b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\x01\xbb",
    ] {
        let (_, server, _client) = call(8003, &[header, b"payload"].concat());
        assert_begins(&mut server.expect("it is dialled on"), b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\npayload");
    }
    let (_, server, _client) = call(8004, b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n");
    assert_begins(&mut server.expect("it is dialled on"), b"PROXY TCP4 192.0.2.1");
    let mut lying = connect(&ns1, at("127.0.0.1:8003")).expect("it is served");
    lying.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it is open");
    assert!(is_reset(&lying), "a balancer has to tell");
    assert!(accepted.recv_timeout(Duration::from_millis(200)).is_err(), "nothing is dialled for it");
}
