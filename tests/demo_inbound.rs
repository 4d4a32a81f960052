//! `make demo-inbound`: a front server whose port is shared by three servers behind it, before and after egressd, and with one of them killed.
//!
//! It runs in namespaces of its own, ends by itself and leaves nothing behind; it is a test as well, and fails when the table does not show
//! what it should.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use world::{Binding, Scenario, World, netns::Netns, status::until};

/// What the client calls.
const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)), 27017);
/// Last bytes of the servers' addresses, 10.0.0.x.
const SERVERS: [u8; 3] = [2, 3, 4];
/// The port that they listen on.
const TARGET: u16 = 1234;
/// Calls for each row of the table.
const CALLS: usize = 9;
/// How long a call may take that nobody answers.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let demo = Scenario::new("demo-inbound", demo).within(Duration::from_secs(60)).shown();
    world::harness::main(vec![demo])
}

fn demo() {
    let world = World::builder().ipv6(false).build();
    let client = client_beside(&world);
    let servers = servers_behind(&world);
    world.host.sysctl("ipv4/ip_forward", "1");
    world.host.run(&["iptables", "-P", "FORWARD", "DROP"]);
    println!("\n\nA client, 192.168.1.2, calls a front server, 192.168.1.1, which forwards nothing (iptables -P FORWARD DROP).");
    println!(
        "Behind the front, on 10.0.0.0/24, three servers say \"Hi from 10.0.0.x\" on port {TARGET}; they know no way back to the client."
    );
    let front = Binding::new("front", "addresses: [10.0.0.2/32, 10.0.0.3/32, 10.0.0.4/32]")
        .with(&format!("exits: [{{address: {}, gateway: 192.168.1.254}}]", FRONT.ip()))
        .with(&format!(
            "inbound: [{{protocol: TCP, port: {}, targetPort: {TARGET}, balance: RoundRobin, clientSource: Masquerade, health: {{tcp: {{}}}}}}]",
            FRONT.port()
        ));
    println!("\nOne file tells egressd to share the front's port {} among them:\n\n{}", FRONT.port(), front.text());

    let before = calls(&client);
    world.bind(&front);
    let _egressd = world.egressd_alone();
    await_healthy(&world, 3);
    let after = calls(&client);
    servers[1].stop.store(true, Ordering::Relaxed);
    await_healthy(&world, 2);
    let killed = calls(&client);
    let status = world.egressctl(&["status"]).unwrap_or_else(|error| panic!("{error}"));

    println!("{CALLS} calls of the client, and who answered:\n");
    println!("  {:<28} 10.0.0.2  10.0.0.3  10.0.0.4  nobody", "");
    for (when, [two, three, four, nobody]) in [("before", before), ("after", after), ("after 10.0.0.3 was killed", killed)] {
        println!("  {when:<28} {two:<9} {three:<9} {four:<9} {nobody}");
    }
    println!("\n\"before\" is without egressd, \"after\" with it. egressd's own view:\n\n{status}");
    println!("The one rule that lets these calls through the firewall, and no others:\n");
    println!("{}", world.host.run(&["iptables", "-S", "FORWARD"]));

    assert_eq!(before, [0, 0, 0, CALLS], "nobody answers without egressd");
    assert_eq!(after, [3, 3, 3, 0], "each in its turn");
    assert_eq!((killed[1], killed[3]), (0, 0), "the others answer in its place");
    assert!(killed[0].abs_diff(killed[2]) <= 1, "by turn: {killed:?}");
}

/// The front's public side.
fn client_beside(world: &World) -> Netns {
    let client = Netns::add("client");
    world.host.ip("link add front0 type veth peer name eth0 netns client
         addr add 192.168.1.1/24 dev front0
         link set front0 up");
    client.ip("addr add 192.168.1.2/24 dev eth0
         link set eth0 up");
    client
}

/// The front's private side.
fn servers_behind(world: &World) -> Vec<Server> {
    world.host.ip("link add back0 type bridge
         addr add 10.0.0.1/24 dev back0
         link set back0 up");
    let server = |last: u8| {
        let name = format!("server{last}");
        let netns = Netns::add(&name);
        world.host.ip(&format!("link add back{last} master back0 type veth peer name eth0 netns {name}\nlink set back{last} up"));
        netns.ip(&format!("addr add 10.0.0.{last}/24 dev eth0\nlink set eth0 up"));
        let listener = netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET))).expect("nobody else listens there");
        Server::start(netns, listener, format!("Hi from 10.0.0.{last}\n"))
    };
    SERVERS.map(server).into()
}

/// A server that can be killed.
struct Server {
    stop: Arc<AtomicBool>,
    /// Goes with it.
    _netns: Netns,
}

impl Server {
    fn start(netns: Netns, listener: TcpListener, hi: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        listener.set_nonblocking(true).expect("it is a socket");
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Who hung up meanwhile was a probe.
                    Ok((mut stream, _)) => drop(stream.write_all(hi.as_bytes())),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { stop, _netns: netns }
    }
}

/// How often each server answered, and nobody.
fn calls(client: &Netns) -> [usize; 4] {
    let mut counts = [0; 4];
    for _ in 0..CALLS {
        let answer = call(client).unwrap_or_default();
        let by = SERVERS.iter().position(|last| answer == format!("Hi from 10.0.0.{last}\n"));
        counts[by.unwrap_or(3)] += 1;
    }
    counts
}

fn call(client: &Netns) -> std::io::Result<String> {
    let mut stream = client.enter(|| TcpStream::connect_timeout(&FRONT, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until so many servers are healthy, and calls pass the firewall.
fn await_healthy(world: &World, expected: usize) {
    until(&format!("{expected} servers are healthy"), || {
        let status = world.status();
        let servers = status["services"][0]["servers"].as_array().into_iter().flatten();
        let healthy = servers.filter(|server| server["health"] == "Healthy").count();
        let open = world.host.run(&["iptables", "-S", "FORWARD"]).contains("egressd");
        if healthy == expected && open { Ok(()) } else { Err(format!("{status:#}")) }
    });
}
