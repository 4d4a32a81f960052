//! Many ports, connections and datagrams: all are served, and what that costs is printed.

use std::{
    net::{TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use world::{Netns, command, count};

use crate::support::{PATIENCE, Proxy, SERVER, alive, ask, at, await_listening, connect, echo, hello, inside, manifest, server};

const DIAL: &str = "address: 127.0.0.1, port: 80";
/// Of each ten ports one is UDP.
const PORTS: usize = 10;

pub fn thousands_of_ports() {
    let namespaces = count(200, 1_000);
    server(&Netns::host(), SERVER, hello);
    let names: Vec<String> = (0..namespaces).map(|number| format!("n{number}")).collect();
    for name in &names {
        command::run(&["ip", "netns", "add", name]);
    }
    let listed = names.join(", ");
    for port in 0..PORTS {
        let protocol = if port == 0 { "UDP" } else { "TCP" };
        let listen = format!("networkNamespaces: [{listed}], protocol: {protocol}, address: 0.0.0.0, port: {}", 8000 + port);
        manifest(&format!("p{port}"), &listen, DIAL, "");
    }
    let began = Instant::now();
    let proxy = Proxy::start();
    await_listening(namespaces * PORTS);
    let took = began.elapsed();
    let (threads, memory) = (proxy.number("Threads"), proxy.number("VmRSS"));
    println!("{} ports in {namespaces} namespaces: open after {took:?}, {threads} threads, {memory} kB", namespaces * PORTS);
    assert!(threads <= 16, "{threads} threads");
    for name in &names {
        let netns = inside(name);
        for port in 1..PORTS {
            let answer = ask(&netns, at(&format!("127.0.0.1:{}", 8000 + port)));
            assert_eq!(answer.unwrap_or_else(|error| panic!("{name}, port {}: {error}", 8000 + port)), "hello");
        }
    }
    let idle = proxy.processor_time();
    thread::sleep(Duration::from_secs(2));
    println!("at rest for 2 s: {} ticks of processor time", proxy.processor_time() - idle);
}

pub fn idle_connections() {
    let many = count(1_000, 4_000);
    let host = Netns::host();
    server(&host, SERVER, echo);
    manifest("web", "networkNamespaces: [''], address: 127.0.0.1, port: 8000", DIAL, "");
    let proxy = Proxy::start();
    await_listening(1);
    let open = || connect(&host, at("127.0.0.1:8000")).expect("there is a place");
    assert!(alive(&mut open()));
    let before = proxy.number("VmRSS");
    let mut idle: Vec<TcpStream> = (0..many).map(|_| open()).collect();
    assert!(idle.iter_mut().all(alive));
    let after = proxy.number("VmRSS");
    println!("{many} idle connections: {:.1} kB each", (after - before) as f64 / many as f64);
    assert!(alive(&mut open()), "a new one has no need to wait");
    assert!(idle.iter_mut().all(alive), "and none of them was lost");
}

/// Datagrams that a client lets be on their way at once: fewer than a socket's buffer takes.
const WINDOW: usize = 64;

pub fn datagrams() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static COUNTED: AtomicUsize = AtomicUsize::new(0);
    let host = Netns::host();
    let socket = UdpSocket::bind(SERVER).expect("nobody has the port");
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], peer);
        }
    });
    manifest("dns", "networkNamespaces: [''], protocol: UDP, address: 127.0.0.1, port: 5300", DIAL, "");
    let proxy = Proxy::start();
    await_listening(1);
    let clients: Vec<_> = (0..2_u8)
        .map(|number| {
            let client = host.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("a port is free");
            client.connect("127.0.0.1:5300").expect("it is an address");
            client.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
            thread::spawn(move || {
                while !STOP.load(Ordering::Relaxed) {
                    for _ in 0..WINDOW {
                        client.send(&[number; 64]).expect("the way is open");
                    }
                    for _ in 0..WINDOW {
                        let mut answer = [0; 64];
                        client.recv(&mut answer).expect("none is lost");
                        assert_eq!(answer, [number; 64], "each has its own");
                    }
                    COUNTED.fetch_add(2 * WINDOW, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (began, before) = (Instant::now(), proxy.processor_time());
    thread::sleep(Duration::from_secs(2));
    STOP.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("each datagram was answered");
    }
    let (took, busy) = (began.elapsed().as_secs_f64(), (proxy.processor_time() - before) as f64 / 100.0);
    let counted = COUNTED.load(Ordering::Relaxed) as f64;
    println!("UDP, both ways: {:.0} datagrams a second, {:.0} for each second of a processor", counted / took, counted / busy);
}
