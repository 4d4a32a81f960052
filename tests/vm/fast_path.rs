//! The fast path: open flows of bound workloads in a flowtable of nftables, and what must hold for them all the same.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use world::{
    Binding, Nic, Scenario, World, command,
    container::Container,
    egressd::Egressd,
    layout::{PORT, SERVER, SERVER6},
    segment::Plain,
    status::until,
    talk::Flow,
};

const ON: [&str; 2] = ["--fast-path", "auto"];
/// The port that datagrams are sent from.
const FROM: u16 = 4000;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("fast path: open flows pass no chain, whether the daemon lives or not", open),
        Scenario::new("fast path: a neighbour with a bound flow's addresses and ports gets nothing out by it", neighbours),
        Scenario::new("fast path: a neighbour does not take a hardware address away", hardware),
        Scenario::new("fast path: what ends a flow, or takes its exit away, holds at once", cuts),
        Scenario::new("fast path: a NIC that goes down takes flows out of it", || nic(false)),
        Scenario::new("fast path: a NIC that goes down takes flows out of it while the daemon is dead", || nic(true)),
        Scenario::new("fast path: what is limited, spread, bounded or published stays out", left_out),
        Scenario::new("fast path: another firewall's new rule is seen by open flows", firewall),
        Scenario::new("fast path: without the option, and after cleanup, nothing is left of it", gone),
    ]
}

fn servers() -> [SocketAddr; 2] {
    [IpAddr::from(SERVER), SERVER6.into()].map(|server| (server, PORT).into())
}

/// A world whose `blue` and `other` are bound to eth1.
struct Bound {
    plain: Plain,
    other: Container,
    egressd: Egressd,
}

impl Bound {
    fn new() -> Self {
        let plain = Plain::new(World::builder().build());
        let egressd = plain.world.egressd_alone_with(&ON);
        let other = plain.free.clone();
        for container in [&plain.blue, &other] {
            plain.world.bind_to(&container.netns, Binding::of(&container.netns), Nic::Eth1);
        }
        let bound = Self { plain, other, egressd };
        bound.await_open();
        bound
    }

    fn world(&self) -> &World {
        &self.plain.world
    }

    fn await_open(&self) {
        self.await_state("open for 2 ports");
    }

    fn await_state(&self, state: &str) {
        until(&format!("the fast path is {state}"), || {
            let status = self.world().status();
            if status["fastPath"] == state { Ok(()) } else { Err(format!("{status:#}; {}", self.egressd.log())) }
        });
    }

    /// Whether conntrack says that a flow of this container, to this server, is in it.
    fn has(&self, container: &Container, server: SocketAddr) -> bool {
        let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
        let source = if server.is_ipv4() { IpAddr::from(container.address) } else { container.address6.into() };
        let listing = self.world().host.run(&["conntrack", "-L", "-f", family]);
        listing.lines().any(|line| line.contains(&format!("src={source} ")) && line.contains("OFFLOAD"))
    }

    /// Asks until the flow is in it.
    fn enters(&self, container: &Container, flow: &mut Flow, server: SocketAddr) {
        until("the flow is in the fast path", || {
            flow.ask().map_err(|error| error.to_string())?;
            if self.has(container, server) { Ok(()) } else { Err(self.listing()) }
        });
    }

    fn listing(&self) -> String {
        self.world().host.run(&["sh", "-c", "conntrack -L; nft list table inet egressd-fast; bridge fdb; ip neigh"]) + &self.egressd.log()
    }

    /// Flows of a container to both servers, in the fast path.
    fn flows(&self, container: &Container) -> Vec<(Flow, SocketAddr)> {
        let flow = |server| {
            let mut flow = Flow::open(&container.netns, server).expect("it is bound");
            assert_eq!(flow.seen.ip(), self.world().layout.public(Nic::Eth1, server.ip()));
            self.enters(container, &mut flow, server);
            (flow, server)
        };
        servers().into_iter().map(flow).collect()
    }

    /// Packets of a container that pass `forward` while `f` runs.
    fn forwarded(&self, container: &Container, f: impl FnOnce()) -> u64 {
        let count = || -> u64 {
            let listing = self.world().host.run(&["nft", "list", "table", "inet", "probe"]);
            let of = |line: &str| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
            let mine = [container.address.to_string(), container.address6.to_string()];
            listing.lines().filter(|line| mine.iter().any(|mine| line.contains(&format!("addr {mine} ")))).filter_map(of).sum()
        };
        let before = count();
        f();
        count() - before
    }

    /// Makes the counters for that. A new chain closes the fast path, and it is opened again.
    fn probe(&self) {
        let opened = || self.egressd.log().matches("the fast path is open").count();
        let before = opened();
        let containers = [&self.plain.blue, &self.other];
        let rules: String =
            containers.iter().map(|c| format!("ip saddr {} counter\nip6 saddr {} counter\n", c.address, c.address6)).collect();
        self.world().host.nft(&format!("table inet probe {{\nchain f {{\ntype filter hook forward priority 5\n{rules}}}\n}}"));
        until("the fast path is opened again", || if opened() > before { Ok(()) } else { Err(self.egressd.log()) });
        self.await_open();
    }
}

/// A conversation by datagrams from one port, that both ends have had for a while.
fn datagrams(container: &Container, server: SocketAddr) -> UdpSocket {
    let socket = container.netns.enter(|| UdpSocket::bind((container.address, FROM)).expect("the port is free"));
    socket.connect(server).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("it is a socket");
    socket
}

fn converse(socket: &UdpSocket) -> std::io::Result<()> {
    let mut answer = [0; 128];
    socket.send(b"?").and_then(|_| socket.recv(&mut answer)).map(drop)
}

fn open() {
    let mut bound = Bound::new();
    bound.probe();
    let blue = bound.plain.blue.clone();
    let mut flows = bound.flows(&blue);
    let mut ask = |what: &str| {
        let ((), seen) = bound.plain.world.watch(|| {
            for (flow, server) in &mut flows {
                for _ in 0..5 {
                    let seen = flow.ask().unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(seen.ip(), bound.plain.world.layout.public(Nic::Eth1, server.ip()), "{what}");
                }
            }
        });
        assert!(seen.by(Nic::Eth1) >= 10 && seen.by(Nic::Eth0) == 0, "{what}: {seen}");
        assert!(seen.foreign(bound.plain.world.layout).is_empty(), "{what}: {seen}");
    };
    assert_eq!(bound.forwarded(&blue, || ask("open")), 0, "{}", bound.listing());
    bound.egressd.kill();
    assert_eq!(bound.forwarded(&blue, || ask("with the daemon dead")), 0, "{}", bound.listing());
    bound.egressd.start();
    ask("started again");
    // The control: without it they pass.
    bound.world().host.run(&["nft", "delete", "table", "inet", "egressd-fast"]);
    assert!(bound.forwarded(&blue, || ask("without its table")) >= 10);
    for (flow, _) in flows {
        flow.close().expect("it ends as any");
    }
}

/// A neighbour on the same bridge that is bound, too, so its port is a device of the flowtable.
fn neighbours() {
    let mut bound = Bound::new();
    let (blue, other) = (&bound.plain.blue.clone(), &bound.other.clone());
    let server = servers()[0];
    let talk = datagrams(blue, server);
    until("the conversation is in the fast path", || {
        converse(&talk).map_err(|error| error.to_string())?;
        if bound.has(blue, server) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    other.take(blue.address.into());
    let shouts = || {
        let socket = other.netns.enter(|| UdpSocket::bind((blue.address, FROM)).expect("it took the address"));
        for _ in 0..50 {
            let _ = socket.send_to(b"not me", server);
        }
    };
    let ((), seen) = bound.world().watch(shouts);
    assert!(seen.is_empty(), "{seen}");
    converse(&talk).expect("the owner goes on");
    assert!(bound.has(blue, server));
    // The control: with the bridge as the device it would leave as the owner does, as long as nothing looks at ports ahead of that.
    bound.egressd.kill();
    bound.world().host.nft(
        "delete table inet egressd-fast
         table inet by_hand {
             flowtable f { hook ingress priority 0; devices = { plain0, eth1 }; }
             chain f { type filter hook forward priority 320; ct status assured flow add @f; }
         }
         flush chain bridge egressd prerouting",
    );
    until("the conversation is in the flowtable that was made by hand", || {
        converse(&talk).map_err(|error| error.to_string())?;
        if bound.has(blue, server) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    // It asks for its router anew: what it asked before was dropped, too.
    until("the neighbour leaves as the owner", || {
        let ((), seen) = bound.world().watch(shouts);
        if seen.by(Nic::Eth1) > 0 { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// A flow comes in by the port at which the bridge knows its hardware address, when it is added.
fn hardware() {
    let mut bound = Bound::new();
    let (blue, other) = (&bound.plain.blue.clone(), &bound.other.clone());
    let host = bound.world().host.clone();
    let mac = |container: &Container| {
        let link = container.netns.run(&["ip", "-o", "link", "show", "eth0"]);
        let (_, rest) = link.split_once("link/ether ").expect("it is Ethernet");
        rest.split(' ').next().expect("it is not empty").to_owned()
    };
    let (theirs, own) = (mac(blue), mac(other));
    let at = || {
        let listing = host.run(&["bridge", "fdb", "show", "br", "plain0"]);
        let line = listing.lines().find(|line| line.starts_with(&theirs)).unwrap_or_default().to_owned();
        line.split(' ').nth(2).unwrap_or_default().to_owned()
    };
    let steal = || {
        other.netns.ip(&format!("link set eth0 address {theirs}"));
        // Of what it sends the bridge learns where that address is. The answer goes to whom it was.
        let _ = other.ask_udp(servers()[0]);
        let at = at();
        other.netns.ip(&format!("link set eth0 address {own}"));
        at
    };
    let mut flows = bound.flows(blue);
    assert_eq!(at(), blue.host_side);
    assert_eq!(steal(), blue.host_side, "{}", bound.listing());
    for (flow, _) in &mut flows {
        flow.ask().expect("it goes on");
    }
    // The control: where it is not pinned it moves.
    bound.egressd.kill();
    host.run(&["bridge", "fdb", "delete", &theirs, "dev", &blue.host_side, "master"]);
    blue.ask_udp(servers()[0]).expect("the bridge learns it again");
    assert_eq!(steal(), other.host_side);
}

fn cuts() {
    let bound = Bound::new();
    let (world, blue, other) = (bound.world(), &bound.plain.blue, &bound.other);
    let (mut flows, mut others) = (bound.flows(blue), bound.flows(other));
    // Moved, with its flows.
    world.bind_to(&blue.netns, Binding::of(&blue.netns).with("existingFlows: Reset"), Nic::Eth0);
    until("the flows have ended", || ended(&bound, blue, Nic::Eth1));
    let ((), seen) = world.watch(|| flows.iter_mut().for_each(|(flow, _)| drop(flow.send())));
    assert!(seen.by(Nic::Eth1) == 0 && seen.foreign(world.layout).is_empty(), "{seen}");
    for (flow, _) in &mut others {
        flow.ask().expect("what is not to end goes on");
    }
    // Unbound.
    bound.await_open();
    others.iter_mut().for_each(|(flow, server)| bound.enters(other, flow, *server));
    world.unbind(other.netns.name());
    until("the flows have ended", || ended(&bound, other, Nic::Eth1));
    let ((), seen) = world.watch(|| others.iter_mut().for_each(|(flow, _)| drop(flow.send())));
    assert!(seen.by(Nic::Eth1) == 0 && seen.foreign(world.layout).is_empty(), "{seen}");
    world.leaves_by(&other.netns, Nic::Eth0).expect("it goes the host's way");
    // Gone, and another one has its address.
    world.bind_to(&other.netns, Binding::of(&other.netns), Nic::Eth1);
    bound.await_open();
    let successors = bound.flows(other);
    let renewed = world.renew(other.clone());
    until("the successor is bound", || world.leaves_by(&renewed.netns, Nic::Eth1));
    drop(successors);
    bound.await_open();
    bound.flows(&renewed);
}

/// Whether no flow of a container bears the NIC's address any more.
fn ended(bound: &Bound, container: &Container, nic: Nic) -> Result<(), String> {
    let listing = bound.world().host.run(&["sh", "-c", "conntrack -L -f ipv4; conntrack -L -f ipv6"]);
    let layout = bound.world().layout;
    let of = |source: IpAddr| (format!("src={source} "), format!("dst={} ", layout.private(nic, source)));
    let of = [of(container.address.into()), of(container.address6.into())];
    let is = |line: &&str| line.contains("tcp") && of.iter().any(|(source, exit)| line.contains(source) && line.contains(exit));
    let left: Vec<&str> = listing.lines().filter(is).collect();
    if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
}

fn nic(dead: bool) {
    let mut bound = Bound::new();
    let blue = bound.plain.blue.clone();
    let mut flows = bound.flows(&blue);
    if dead {
        bound.egressd.kill();
    }
    bound.world().host.ip("link set eth1 down");
    let ((), seen) = bound.world().watch(|| flows.iter_mut().for_each(|(flow, _)| drop(flow.send())));
    assert!(seen.is_empty(), "{seen}");
    assert!(servers().iter().all(|server| !bound.has(&blue, *server)), "{}", bound.listing());
}

fn left_out() {
    let bound = Bound::new();
    let (world, blue, other) = (bound.world(), &bound.plain.blue, &bound.other);
    let eth1 = world.layout.address(Nic::Eth1);
    let server = servers()[0];
    for field in ["rate: 100Mbit", "spread: RoundRobin", "to: [{cidr: 198.51.100.0/24}]", "sourcePorts"] {
        let binding = match field {
            "sourcePorts" => Binding::of(&blue.netns).with(&format!("exits: [{{address: {eth1}, sourcePorts: 20000-20999}}]")),
            "spread: RoundRobin" => {
                let eth0 = world.layout.address(Nic::Eth0);
                Binding::of(&blue.netns).with(field).with(&format!("exits: [{{address: {eth1}}}, {{address: {eth0}}}]"))
            }
            field => Binding::of(&blue.netns).with(field).to(world, Nic::Eth1),
        };
        world.bind(&binding);
        bound.await_state("open for 1 ports");
        let mut flow = Flow::open(&blue.netns, server).expect("it is bound");
        for _ in 0..5 {
            flow.ask().expect("it is open");
        }
        assert!(!bound.has(blue, server), "{field}: {}", bound.listing());
        // The control.
        let mut flow = Flow::open(&other.netns, server).expect("it is bound");
        bound.enters(other, &mut flow, server);
        world.host.run(&["conntrack", "-D", "-s", &blue.address.to_string()]);
    }
}

fn firewall() {
    let bound = Bound::new();
    let (world, blue) = (bound.world(), &bound.plain.blue);
    let mut flows = bound.flows(blue);
    world.host.nft("table inet wall { chain f { type filter hook forward priority 0; meta l4proto tcp drop; }; }");
    until("the wall is seen", || {
        let (answer, seen) = world.watch(|| flows.iter_mut().map(|(flow, _)| flow.send()).collect::<Vec<_>>());
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen} {answer:?}")) }
    });
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let ((), seen) = world.watch(|| flows.iter_mut().for_each(|(flow, _)| drop(flow.send())));
        assert!(seen.is_empty(), "{seen}");
    }
}

fn gone() {
    let plain = Plain::new(World::builder().build());
    let before = plain.world.state();
    let forwarding = || plain.world.host.run(&["sh", "-c", "bridge fdb show br plain0 | grep -c sticky || true"]);
    let await_table = || {
        until("the fast path is open", || {
            let tables = command::run(&["nft", "list", "tables"]);
            if tables.contains("egressd-fast") { Ok(()) } else { Err(tables) }
        });
    };
    let mut egressd = plain.world.egressd_alone_with(&ON);
    plain.world.bind_to(&plain.blue.netns, Binding::of(&plain.blue.netns), Nic::Eth1);
    await_table();
    assert_ne!(forwarding().trim(), "0");
    egressd.stop();
    let without = plain.world.egressd_alone();
    until("it is closed", || {
        let tables = command::run(&["nft", "list", "tables"]);
        if tables.contains("egressd-fast") || forwarding().trim() != "0" { Err(tables) } else { Ok(()) }
    });
    drop(without);
    let mut egressd = plain.world.egressd_alone_with(&ON);
    await_table();
    egressd.stop();
    plain.world.cleanup();
    assert_eq!(forwarding().trim(), "0");
    before.assert_same(&plain.world.state(), "after cleanup");
}
