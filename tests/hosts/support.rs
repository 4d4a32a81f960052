//! Hosts that people really have: providers beyond NICs of any name, a bridge with containers, and what all scenarios ask of them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use world::{
    Container, Netns, Nic, Scripted, Seen, World,
    container::Bridge,
    egressd::Egressd,
    layout::{PORT, SERVER, SERVER6},
    status::until,
    talk,
};

/// A NIC of the host that is not one of the cloud's, and the wire beyond it.
pub struct Segment {
    pub nic: String,
    switch: Netns,
}

impl Segment {
    /// Plugs it in: the NIC is up, and has no address yet.
    pub fn plug(world: &World, nic: &str) -> Self {
        let switch = Netns::add(&format!("at-{nic}"));
        for bridge in ["iptables", "ip6tables", "arptables"] {
            switch.sysctl(&format!("bridge/bridge-nf-call-{bridge}"), "0");
        }
        switch.ip("link add switch type bridge
             link set switch up");
        let segment = Self { nic: nic.to_owned(), switch };
        segment.plug_again(world);
        segment
    }

    /// Plugs in a NIC of the same name, once the old one is gone.
    pub fn plug_again(&self, world: &World) {
        let Self { nic, switch } = self;
        world.host.ip(&format!("link add {nic} type veth peer name up-{nic} netns {}", switch.name()));
        switch.ip(&format!("link set up-{nic} master switch up"));
        world.host.ip(&format!("link set {nic} up"));
    }

    /// A router at 10.`subnet`.0.1 and `fd10:subnet::1`, and the host's own addresses, which end in 2.
    pub fn router(&self, world: &World, subnet: u8) -> Router {
        let router = self.silent_router(&format!("r{subnet}"), subnet, 1);
        self.address(world, subnet);
        router
    }

    /// The host's own addresses in a router's subnet.
    pub fn address(&self, world: &World, subnet: u8) {
        let host = Router::numbered(subnet, 2);
        world.host.ip(&format!(
            "addr add {}/24 dev {2}
             addr add {}/64 dev {2} nodad",
            host[0], host[1], self.nic
        ));
    }

    /// A router whose address ends in this number. The host gets nothing.
    pub fn silent_router(&self, name: &str, subnet: u8, number: u8) -> Router {
        let netns = Netns::add(name);
        netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        netns.sysctl("ipv4/conf/default/rp_filter", "0");
        netns.sysctl("ipv4/conf/all/rp_filter", "0");
        netns.ip(&format!("link add eth0 type veth peer name {name} netns {}", self.switch.name()));
        self.switch.ip(&format!("link set {name} master switch up"));
        let ([own, own6], [host, host6]) = (Router::numbered(subnet, number), Router::numbered(subnet, 2));
        netns.ip(&format!(
            "addr add {own}/24 dev eth0
             addr add {own6}/64 dev eth0 nodad
             addr add {SERVER}/32 dev lo
             addr add {SERVER6}/128 dev lo nodad
             link set eth0 up
             route add default via {host}
             route add default via {host6}"
        ));
        netns.nft(
            "table netdev router {
                 set ip_seen { type ipv4_addr; size 65535; flags dynamic; }
                 set ip6_seen { type ipv6_addr; size 65535; flags dynamic; }
                 chain ingress {
                     type filter hook ingress device \"eth0\" priority -500;
                     ip protocol igmp accept
                     update @ip_seen { ip saddr counter }
                     ip6 saddr { fe80::/10, :: } accept
                     ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept
                     update @ip6_seen { ip6 saddr counter }
                 }
             }",
        );
        talk::serve(&netns, &[SERVER.into(), SERVER6.into()], &[PORT]);
        Router { netns, subnet, number }
    }
}

/// A router, and the whole internet to who comes by it: it has the servers' addresses, and counts by source.
pub struct Router {
    pub netns: Netns,
    subnet: u8,
    number: u8,
}

impl Router {
    fn numbered(subnet: u8, number: u8) -> [IpAddr; 2] {
        [Ipv4Addr::new(10, subnet, 0, number).into(), Ipv6Addr::new(0xfd10, subnet.into(), 0, 0, 0, 0, 0, number.into()).into()]
    }

    /// Its own addresses.
    pub fn own(&self) -> [IpAddr; 2] {
        Self::numbered(self.subnet, self.number)
    }

    /// The host's addresses at it.
    pub fn host(&self) -> [IpAddr; 2] {
        Self::numbered(self.subnet, 2)
    }

    /// An exit of a binding for each family, with this router named or not.
    pub fn exits(&self, named: bool) -> String {
        let gateway = |own: IpAddr| if named { format!(", gateway: '{own}'") } else { String::new() };
        let exits: Vec<String> =
            self.host().into_iter().zip(self.own()).map(|(at, own)| format!("{{address: '{at}'{}}}", gateway(own))).collect();
        format!("exits: [{}]", exits.join(", "))
    }

    /// What has come by it, by source.
    pub fn seen(&self) -> Counted {
        let listing = self.netns.run(&["nft", "-j", "list", "table", "netdev", "router"]);
        let listing: Value = serde_json::from_str(&listing).expect("nft prints JSON");
        let sets = listing["nftables"].as_array().expect("nft lists objects").iter();
        let elements = sets.flat_map(|object| object["set"]["elem"].as_array().cloned().unwrap_or_default());
        let counted = elements.map(|element| {
            let source = element["elem"]["val"].as_str().and_then(|source| source.parse().ok()).expect("a source address");
            (source, element["elem"]["counter"]["packets"].as_u64().expect("it is counted"))
        });
        Counted(counted.collect())
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        self.netns.nft("flush set netdev router ip_seen\nflush set netdev router ip6_seen\n");
    }

    /// What is sent from the namespace is answered by this router, and leaves as the host's addresses at it, and not by the cloud's NICs.
    pub fn serves(&self, world: &World, from: &Netns) -> Result<(), String> {
        self.serves_as(world, from, &self.host())
    }

    /// The same as these addresses.
    pub fn serves_as(&self, world: &World, from: &Netns, addresses: &[IpAddr]) -> Result<(), String> {
        for &source in addresses {
            let to = SocketAddr::new(if source.is_ipv4() { SERVER.into() } else { SERVER6.into() }, PORT);
            for (what, ask) in [("TCP", talk::ask_tcp as fn(&Netns, SocketAddr) -> _), ("UDP", talk::ask_udp)] {
                self.forget();
                let (answer, elsewhere) = world.watch(|| ask(from, to));
                let (what, seen) = (format!("{} to {to} by {what}", from.name()), self.seen());
                let state = format!("{} saw {seen}; elsewhere {elsewhere}; answer {answer:?}", self.netns.name());
                let right = seen.0.len() == 1 && seen.0.contains_key(&source) && elsewhere.is_empty();
                if !right || answer.is_err() || answer.is_ok_and(|peer| peer.ip() != source) {
                    return Err(format!("{what}: not as {source} alone: {state}"));
                }
            }
        }
        Ok(())
    }
}

/// Packets by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted(pub BTreeMap<IpAddr, u64>);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Plain containers on one masqueraded bridge, with no engine.
pub struct Plain {
    pub world: World,
    pub blue: Container,
    pub free: Container,
}

impl Plain {
    pub fn new(world: World) -> Self {
        let bridge = world.bridge("plain0", 28);
        world.masquerade(&bridge);
        let blue = world.container("blue", &bridge, 10);
        let free = world.container("free", &bridge, 11);
        Self { world, blue, free }
    }

    pub fn blue_by_eth1(&self, when: &str) {
        self.world.leaves_by(&self.blue.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    pub fn free_by_eth0(&self, when: &str) {
        self.world.leaves_by(&self.free.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{when}: {error}"));
    }
}

/// A guarded bridge: an engine tells of a container that is bound to eth1, and of one that asks for nothing. IPv4 alone.
pub struct Guarded {
    pub world: World,
    pub engine: Scripted,
    pub bridge: Bridge,
    pub bound: Container,
    pub free: Container,
}

/// The network's name.
pub const NETWORK: &str = "net";
/// A source on the guarded bridge that nobody vouches for.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 28, 0, 77));

impl Guarded {
    pub fn new() -> Self {
        let world = World::builder().ipv6(false).subnets(world::Subnets::Two).build();
        let engine = world.scripted_engine();
        let bridge = world.bridge("plain0", 28);
        world.masquerade(&bridge);
        engine.create_network(NETWORK, &bridge.name, json!({}));
        let bound = world.container("bound", &bridge, 10);
        let free = world.container("free", &bridge, 11);
        free.take(STRANGER);
        let labels = json!({
            "egress.ip": world.layout.address(Nic::Eth1).to_string(),
            "egress.gateway": world.layout.gateway(Nic::Eth1).to_string(),
        });
        engine.run("bound", NETWORK, bound.address, &labels, json!({}));
        engine.run("free", NETWORK, free.address, &json!({}), json!({}));
        Self { world, engine, bridge, bound, free }
    }

    /// Starts egressd, and waits until the bound one has its exit.
    pub fn start(&self) -> Egressd {
        let egressd = self.world.egressd_for_script();
        self.world.await_nic("bound", Nic::Eth1);
        self.world.await_state("free", "Unbound");
        egressd
    }

    pub fn bound_by_eth1(&self, when: &str) {
        self.world.leaves_by(&self.bound.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    /// All that a container sends to many places from a source leaves the host, by the cloud's NICs or by these routers.
    pub fn lets_out(&self, from: &Container, source: IpAddr, routers: &[&Router], when: &str) {
        let left = self.sent(from, source, routers);
        assert!(left.all(), "{when}: of {} packets from {source} left: {left}", PLACES.len());
    }

    /// Nothing of it does.
    pub fn holds(&self, from: &Container, source: IpAddr, routers: &[&Router], when: &str) {
        let left = self.sent(from, source, routers);
        assert!(left.nothing(), "{when}: from {source} left: {left}");
    }

    /// What leaves the host, by the cloud's NICs or by these routers, when a container sends packets to many places from a source.
    fn sent(&self, from: &Container, source: IpAddr, routers: &[&Router]) -> Left {
        routers.iter().for_each(|router| router.forget());
        let ((), cloud) = self.world.watch(|| send_far(&from.netns, source));
        Left { cloud, routers: routers.iter().map(|router| router.seen()).collect() }
    }
}

/// What left the host.
struct Left {
    cloud: Seen,
    routers: Vec<Counted>,
}

impl Left {
    /// All the packets to many places.
    fn all(&self) -> bool {
        let by_routers = self.routers.iter().flat_map(|counted| counted.0.values()).sum::<u64>();
        self.cloud.0.values().sum::<u64>() + by_routers >= PLACES.len() as u64
    }

    fn nothing(&self) -> bool {
        self.cloud.is_empty() && self.routers.iter().all(|counted| counted.0.is_empty())
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; by routers: {:?}", self.cloud, self.routers)
    }
}

/// The last numbers of addresses where nobody answers.
const PLACES: std::ops::Range<u8> = 100..120;

/// Sends datagrams from a source to places that nobody answers at, which a multipath route sends different ways.
pub fn send_far(from: &Netns, source: IpAddr) {
    from.enter(|| {
        for host in PLACES {
            let to = SocketAddr::from(([198, 51, 100, host], 4500));
            let sent = UdpSocket::bind(SocketAddr::new(source, 0)).and_then(|socket| socket.send_to(b"?", to));
            sent.unwrap_or_else(|error| panic!("{} cannot send as {source}: {error}", from.name()));
        }
    });
    // Those that leave by no NIC of the cloud are on their way for some microseconds, too.
    thread::sleep(Duration::from_millis(20));
}

/// Waits until each row of a workload has this reason.
pub fn await_reason(world: &World, workload: &str, reason: &str) -> String {
    let mut message = String::new();
    until(&format!("{workload} is refused: {reason}"), || {
        let status = world.status();
        let rows: Vec<&Value> = status["workloads"].as_array().into_iter().flatten().filter(|row| row["workload"] == workload).collect();
        let all = !rows.is_empty() && rows.iter().all(|row| row["reason"] == reason);
        message = rows.first().and_then(|row| row["message"].as_str()).unwrap_or_default().to_owned();
        if all { Ok(()) } else { Err(format!("{status:#}")) }
    });
    message
}
