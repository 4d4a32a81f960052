//! A bridge with containers that an engine tells of, and what all scenarios ask of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use world::{
    Container, Netns, Nic, Scripted, Seen, World,
    container::Bridge,
    egressd::Egressd,
    segment::{Counted, Router},
    status::until,
};

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

    /// Whether all that the bound one sends to many places leaves by eth1, and how much of it does.
    pub fn far_by_eth1(&self) -> (bool, u64) {
        let ((), seen) = self.world.watch(|| send_far(&self.bound.netns, self.bound.address.into()));
        let count = seen.count(Nic::Eth1, self.world.layout.address(Nic::Eth1).into());
        (count == PLACES.len() as u64, count)
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
