//! Bounded source ports of exits, and exits that run out of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use nix::sys::resource::{Resource, setrlimit};
use world::{
    Binding, Container, Nic, Scenario, World,
    layout::{PORT, SERVER},
    status::until,
    talk::{Flow, ask_udp_from},
    traffic::nobody,
};

fn main() -> ExitCode {
    world::harness::main_of_waiting(vec![
        Scenario::new("flows leave with the source ports of their exit, in both families, by TCP and UDP", bounded),
        Scenario::new("a subnet's flows and those of exits by turn have each exit's source ports", subnet_and_turn),
        Scenario::new("two exits of 1,000 ports bear 1,950 flows to one destination", nearly_all),
        Scenario::new("an exit without ports for a destination takes no new flow to it, daemon alive or dead", spills),
    ])
}

/// Addresses of eth1 beside its own; they are added to it.
fn more(world: &World, number: u8) -> Ipv4Addr {
    let [a, b, c, d] = world.layout.address(Nic::Eth1).octets();
    let address = Ipv4Addr::new(a, b, c, d + 16 + number);
    world.host.ip(&format!("addr add {address}/20 dev eth1"));
    address
}

/// An exit of eth1.
fn exit(world: &World, address: IpAddr, ports: &str) -> String {
    format!("{{address: '{address}', gateway: '{}', sourcePorts: {ports}}}", world.gateway(Nic::Eth1, address))
}

/// The own addresses of both NICs, which answers come back to.
fn own(world: &World, ports: [&str; 2]) -> [String; 2] {
    [(Nic::Eth0, ports[0]), (Nic::Eth1, ports[1])].map(|(nic, ports)| {
        let address = IpAddr::from(world.layout.address(nic));
        format!("{{address: {address}, gateway: {}, sourcePorts: {ports}}}", world.gateway(nic, address))
    })
}

fn bind(world: &World, who: &Container, exits: &[String], spread: &str) {
    world.bind(&Binding::of(&who.netns).with(&format!("exits: [{}]", exits.join(", "))).with(&format!("spread: {spread}")));
}

fn stage(world: &World) -> Container {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    world.container("blue", &bridge, 10)
}

/// Begins flows from these ports, one datagram each.
fn begin(from: &Container, ports: Range<u16>, to: SocketAddr) {
    let address = IpAddr::from(from.address);
    from.netns.enter(|| {
        for port in ports {
            let socket = UdpSocket::bind((address, port)).expect("nobody has the port");
            socket.send_to(b"?", to).expect("it has a way out");
        }
    });
}

fn bounded() {
    let world = World::builder().build();
    let blue = stage(&world);
    // None that the kernel takes by itself (`ip_local_port_range`).
    let ports = 20_000..=20_099;
    let seen = |server: IpAddr| {
        let by_tcp = Flow::open(&blue.netns, (server, PORT).into()).expect("it has a way out").seen;
        [by_tcp, blue.ask_udp((server, PORT)).expect("it has a way out")]
    };
    for server in world.servers() {
        assert!(seen(server).iter().all(|seen| !ports.contains(&seen.port())), "nothing is bounded yet");
    }
    let exits = |ports: &str| -> Vec<String> {
        world.servers().into_iter().map(|server| exit(&world, world.layout.private(Nic::Eth1, server), ports)).collect()
    };
    bind(&world, &blue, &exits("20000-20099"), "FirstUsable");
    let mut egressd = world.egressd_alone();
    let all_bounded = || {
        for server in world.servers() {
            for seen in seen(server) {
                assert!(ports.contains(&seen.port()) && seen.ip() == world.layout.public(Nic::Eth1, server), "{seen}");
            }
        }
    };
    all_bounded();
    egressd.kill();
    all_bounded();
    egressd.start();
    bind(&world, &blue, &exits("50000-50099"), "FirstUsable");
    world.await_handled();
    for seen in world.servers().into_iter().flat_map(&seen) {
        assert!((50_000..=50_099).contains(&seen.port()), "another range: {seen}");
    }
}

fn subnet_and_turn() {
    let world = World::builder().ipv6(false).build();
    let lan = world.lan();
    let exits = own(&world, ["40000-40099", "50000-50099"]);
    world.bind(&Binding::new("lan", "addresses: [10.9.0.0/24]").with(&format!("exits: [{}]", exits[0])));
    let _egressd = world.egressd_alone();
    let mut next = 30_000..;
    let mut ask = || {
        let from = (IpAddr::from(lan.address), next.next().expect("there are enough")).into();
        ask_udp_from(&lan.netns, from, (SERVER, PORT).into()).expect("it is bound").port()
    };
    assert!((0..5).all(|_| (40_000..=40_099).contains(&ask())));
    let both = format!("exits: [{}]", exits.join(", "));
    world.bind(&Binding::new("lan", "addresses: [10.9.0.0/24]").with(&both).with("spread: RoundRobin"));
    world.await_handled();
    let ports: Vec<u16> = (0..10).map(|_| ask()).collect();
    let of = |range: Range<u16>| ports.iter().filter(|port| range.contains(port)).count();
    assert_eq!((of(40_000..40_100), of(50_000..50_100)), (5, 5), "{ports:?}");
}

/// Opens flows from these ports to the server, and keeps them. Who gets no answer asks again, as TCP does; how many were never answered.
fn open(from: &Container, ports: Range<u16>, open: &mut Vec<UdpSocket>) -> usize {
    let socket = |port: u16| {
        let socket = UdpSocket::bind((from.address, port)).and_then(|socket| socket.connect((SERVER, PORT)).map(|()| socket));
        let socket = socket.expect("nobody has the port");
        socket.set_nonblocking(true).expect("a socket can be so");
        socket
    };
    let all: Vec<UdpSocket> = from.netns.enter(|| ports.map(socket).collect());
    let mut waiting: Vec<&UdpSocket> = all.iter().collect();
    for _ in 0..6 {
        waiting.iter().for_each(|socket| drop(socket.send(b"?")));
        sleep(Duration::from_millis(300));
        waiting.retain(|socket| socket.recv(&mut [0; 128]).is_err());
    }
    let lost = waiting.len();
    open.extend(all);
    lost
}

fn nearly_all() {
    setrlimit(Resource::RLIMIT_NOFILE, 8_192, 8_192).expect("root may open files");
    let world = World::builder().ipv6(false).build();
    let blue = stage(&world);
    // None of them ends meanwhile, however busy the machine is.
    world.host.sysctl("netfilter/nf_conntrack_udp_timeout", "300");
    bind(&world, &blue, &own(&world, ["40000-40999"; 2]), "RoundRobin");
    let _egressd = world.egressd_alone();
    let mut flows = Vec::new();
    assert_eq!(open(&blue, 10_000..11_600, &mut flows), 0, "all find a port");
    until("it warns from 80 percent on", || {
        let problems = world.status()["problems"].to_string();
        let both = problems.matches("has 800 of at most 1000").count() == 2 && problems.contains("(sourcePorts 40000-40999) flows to");
        if both { Ok(()) } else { Err(problems) }
    });
    assert_eq!(open(&blue, 11_600..11_950, &mut flows), 0, "all find a port");
    assert!(open(&blue, 12_000..12_100, &mut flows) >= 50, "more than 2,000 is not possible");
}

fn spills() {
    let world = World::builder().ipv6(false).build();
    let blue = stage(&world);
    let (small, large) = (more(&world, 1), more(&world, 2));
    let exits = [exit(&world, small.into(), "40000-40099"), exit(&world, large.into(), "40000-44999")];
    bind(&world, &blue, &exits, "RoundRobin");
    let mut egressd = world.egressd_alone();
    let (full, other) = (nobody(SERVER.into()), SocketAddr::from(([203, 0, 113, 7], 9)));
    let parts = |ports: Range<u16>, to: SocketAddr| {
        let ((), seen) = world.watch(|| begin(&blue, ports, to));
        [small, large].map(|exit| seen.count(Nic::Eth1, exit.into()))
    };
    assert_eq!(parts(10_000..10_190, full), [95, 95], "by turn, while both have ports");
    until(
        "the small exit is found full",
        || if egressd.log().contains("running out of source ports") { Ok(()) } else { Err(egressd.log()) },
    );
    world.await_handled();
    assert_eq!(parts(11_000..11_100, full), [0, 100]);
    assert_eq!(parts(12_000..12_040, other), [20, 20], "the turn of other destinations is as it was");
    egressd.kill();
    assert_eq!(parts(13_000..13_100, full), [0, 100], "what is known stays when the daemon dies");
    egressd.start();
    world.await_ready();
    assert_eq!(parts(14_000..14_100, full), [0, 100], "and when it is back");
    // Without another exit the flows for which no port is left are lost.
    bind(&world, &blue, &exits[..1], "RoundRobin");
    world.await_handled();
    let [left, _] = parts(15_000..15_100, full);
    assert!(left <= 5, "{left} flows found one of five ports");
}
