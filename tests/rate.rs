//! How fast a binding's workloads send outside.

use std::{
    io::{self, ErrorKind, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use world::{Binding, Netns, Nic, Scenario, World, layout::PORT};

/// Bytes a second of `8Mbit`.
const RATE: f64 = 1_000_000.0;
/// How long somebody sends.
const TIME: Duration = Duration::from_secs(3);
/// How long TCP sends until it has had what was asked for, within a tenth.
const LONG: Duration = Duration::from_secs(10);
/// How long one write may wait.
const PAUSE: Duration = Duration::from_millis(100);
/// How long somebody sends, where it is not limited.
const SHORT: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    world::harness::main_of_waiting(vec![
        Scenario::new("TCP over ten seconds gets the rate that was asked for, within a tenth", within_a_tenth),
        Scenario::new("a binding's rate holds over both families, and for what leaves by its NIC alone", holds),
        Scenario::new("a subnet's rate goes with the binding, and what is wrong with one is said", changes),
    ])
}

/// Sends by TCP to each server by two connections, for so long.
fn pour(from: &Netns, to: &[SocketAddr], time: Duration) -> Vec<JoinHandle<()>> {
    let end = Instant::now() + time;
    let open = |to: &SocketAddr| from.enter(|| TcpStream::connect(to)).expect("it has a way out");
    let pour = |mut stream: TcpStream| {
        thread::spawn(move || {
            // Whom the others leave nothing for a while ends in time all the same.
            stream.set_write_timeout(Some(PAUSE)).expect("no time is too short");
            let goes_on = |written: io::Result<usize>| written.is_ok() || written.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            while Instant::now() < end && goes_on(stream.write(&[0; 16_384])) {}
        })
    };
    to.iter().flat_map(|to| [open(to), open(to)]).map(pour).collect()
}

fn servers(world: &World) -> Vec<SocketAddr> {
    world.servers().into_iter().map(|server| (server, PORT).into()).collect()
}

/// Bytes that have left by a NIC.
fn sent(world: &World, nic: Nic) -> f64 {
    let shown = world.host.run(&["ip", "-json", "-stats", "link", "show", "dev", nic.name()]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip writes JSON");
    shown[0]["stats64"]["tx"]["bytes"].as_f64().expect("a NIC counts")
}

/// Packets over a limit.
fn over(world: &World) -> u64 {
    let status = world.status();
    let dropped = status["dropped"].as_array().into_iter().flatten();
    dropped
        .filter(|dropped| dropped["reason"] == "Rate" && dropped["family"] == "inet")
        .filter_map(|dropped| dropped["packets"].as_u64())
        .sum()
}

/// Bytes that leave by a NIC while somebody sends to all servers, and for how long.
fn sends(world: &World, from: &Netns, nic: Nic, time: Duration) -> (f64, f64) {
    let (before, began) = (sent(world, nic), Instant::now());
    pour(from, &servers(world), time).into_iter().for_each(|pouring| pouring.join().expect("it only writes"));
    let bytes = sent(world, nic) - before;
    (bytes, began.elapsed().as_secs_f64())
}

/// Never more than the rate, and the second's worth that the kernel's bucket holds at first; TCP on a busy machine may well send less.
fn fits((bytes, seconds): (f64, f64)) -> bool {
    (0.4 * RATE * seconds..RATE * (seconds + 1.0)).contains(&bytes)
}

fn within_a_tenth() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let binding = Binding::of(&blue.netns).to(&world, Nic::Eth1);
    world.bind(&binding);
    let _egressd = world.egressd_alone();
    let (bytes, _) = sends(&world, &blue.netns, Nic::Eth1, SHORT);
    assert!(bytes > 4.0 * RATE, "without a rate it is not limited: {bytes} bytes in {SHORT:?}");
    world.bind(&binding.with("rate: 8Mbit"));
    world.await_handled();
    let (bytes, seconds) = sends(&world, &blue.netns, Nic::Eth1, LONG);
    let part = bytes / seconds / RATE;
    assert!((0.9..=1.1).contains(&part), "{part} of what was asked for: {bytes} bytes in {seconds} s");
}

fn holds() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let (blue, green) = (world.container("blue", &bridge, 10), world.container("green", &bridge, 11));
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1).with("rate: 8Mbit"));
    world.bind(&Binding::of(&green.netns).to(&world, Nic::Eth0));
    let mut egressd = world.egressd_alone();
    // Its neighbour sends as fast as it can meanwhile.
    let before = sent(&world, Nic::Eth0);
    let neighbour = pour(&green.netns, &servers(&world), SHORT);
    let blue_sends = sends(&world, &blue.netns, Nic::Eth1, TIME);
    neighbour.into_iter().for_each(|pouring| pouring.join().expect("it only writes"));
    assert!(fits(blue_sends), "bytes and seconds for 8 Mbit: {blue_sends:?}");
    let neighbours = sent(&world, Nic::Eth0) - before;
    assert!(neighbours > 4.0 * RATE, "the neighbour is not limited: {neighbours} bytes in {SHORT:?}");
    let dropped = over(&world);
    assert!(dropped > 0, "drops are counted: {}", world.status());
    egressd.kill();
    let (bytes, _) = sends(&world, &blue.netns, Nic::Eth1, SHORT);
    assert!(bytes < 4.0 * RATE, "the limit stays when the daemon dies: {bytes} bytes in {SHORT:?}");
    egressd.start();
    world.await_ready();
    let dropped = over(&world);
    // What stays on the host is not counted.
    let listener = green.netns.enter(|| TcpListener::bind((IpAddr::from(green.address), PORT))).expect("nobody listens there");
    let inside = pour(&blue.netns, &[(green.address, PORT).into()], Duration::from_millis(300));
    inside.into_iter().for_each(|pouring| pouring.join().expect("it only writes"));
    drop(listener);
    assert_eq!(over(&world), dropped);
}

fn changes() {
    let world = World::builder().ipv6(false).build();
    let lan = world.lan();
    let binding = || Binding::new("lan", "addresses: [10.9.0.0/24]").to(&world, Nic::Eth1);
    world.bind(&binding().with("rate: 8Mbit").with("burst: 64kB"));
    let _egressd = world.egressd_alone();
    let limited = sends(&world, &lan.netns, Nic::Eth1, TIME);
    assert!(fits(limited), "bytes and seconds for 8 Mbit: {limited:?}");
    world.bind(&binding());
    world.await_handled();
    let tables = world.host.run(&["nft", "list", "tables"]);
    assert!(!tables.contains("inet egressd"), "{tables}");
    let (bytes, _) = sends(&world, &lan.netns, Nic::Eth1, SHORT);
    assert!(bytes > 4.0 * RATE, "without a rate it is not limited: {bytes} bytes in {SHORT:?}");
    for (field, said) in [("rate: fast", "is no rate in bit, kbit, Mbit or Gbit"), ("burst: 64kB", "is given without `rate`")] {
        world.bind(&binding().with(field));
        world.await_handled();
        let status = world.status().to_string();
        assert!(status.contains(said), "{status}");
    }
}
