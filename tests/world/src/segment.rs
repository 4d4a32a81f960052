//! Uplinks of any kind beside the cloud's: the wire beyond a NIC, and a router that is the whole internet to who comes by it. And plain
//! containers to send by them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde_json::Value;

use crate::{
    build::World,
    container::Container,
    layout::{Nic, PORT, SERVER, SERVER6},
    netns::Netns,
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
        self.address(world, subnet, 2);
        router
    }

    /// Gives the host the addresses in a router's subnet that end in this number.
    pub fn address(&self, world: &World, subnet: u8, number: u8) -> [IpAddr; 2] {
        let [v4, v6] = Router::numbered(subnet, number);
        world.host.ip(&format!(
            "addr add {v4}/24 dev {0}
             addr add {v6}/64 dev {0} nodad",
            self.nic
        ));
        [v4, v6]
    }

    /// Makes it a tunnel to the router: the host asks for no neighbours, and what it sends is the router's.
    pub fn tunnel(&self, world: &World, router: &Router) {
        // A frame to whom nobody asked for bears its sender's own address as its destination.
        self.switch.ip(&format!("link set up-{} type bridge_slave learning off fdb_flush", self.nic));
        router.netns.nft("table netdev tunnel { chain in { type filter hook ingress device eth0 priority 0; meta pkttype set host; }; }");
        world.host.ip(&format!("link set {} arp off", self.nic));
        let links = world.host.run(&["ip", "-j", "link", "show", "dev", &self.nic]);
        let links: Value = serde_json::from_str(&links).expect("ip prints JSON");
        let own = links[0]["address"].as_str().expect("it has one");
        router.host().iter().for_each(|at| router.netns.ip(&format!("neigh replace {at} lladdr {own} dev eth0 nud permanent")));
    }

    /// A machine whose address ends in this number, and which routes through the host.
    pub fn client(&self, name: &str, subnet: u8, number: u8) -> Netns {
        let netns = Netns::add(name);
        netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        netns.ip(&format!("link add eth0 type veth peer name {name} netns {}", self.switch.name()));
        self.switch.ip(&format!("link set {name} master switch up"));
        let ([own, own6], [host, host6]) = (Router::numbered(subnet, number), Router::numbered(subnet, 2));
        netns.ip(&format!(
            "addr add {own}/24 dev eth0
             addr add {own6}/64 dev eth0 nodad
             link set eth0 up
             route add default via {host}
             route add default via {host6}"
        ));
        netns
    }

    /// A router whose address ends in this number. The host gets nothing.
    pub fn silent_router(&self, name: &str, subnet: u8, number: u8) -> Router {
        let netns = Router::place(name);
        netns.ip(&format!("link add eth0 type veth peer name {name} netns {}", self.switch.name()));
        self.switch.ip(&format!("link set {name} master switch up"));
        Router::start(netns, "eth0", subnet, number)
    }
}

/// A router, and the whole internet to who comes by it: it has the servers' addresses, and counts by source.
pub struct Router {
    pub netns: Netns,
    subnet: u8,
    number: u8,
}

impl Router {
    /// A namespace for one, whose links are still to be made.
    pub fn place(name: &str) -> Netns {
        let netns = Netns::add(name);
        netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        netns.sysctl("ipv4/conf/default/rp_filter", "0");
        netns.sysctl("ipv4/conf/all/rp_filter", "0");
        // Where it has two links, each answers for its own addresses.
        netns.sysctl("ipv4/conf/all/arp_ignore", "1");
        netns
    }

    /// Makes a namespace with that device the router of a subnet, whose address ends in this number. The host's ends in 2.
    pub fn start(netns: Netns, device: &str, subnet: u8, number: u8) -> Self {
        let ([own, own6], [host, host6]) = (Self::numbered(subnet, number), Self::numbered(subnet, 2));
        netns.ip(&format!(
            "addr add {own}/24 dev {device}
             addr add {own6}/64 dev {device} nodad
             addr add {SERVER}/32 dev lo
             addr add {SERVER6}/128 dev lo nodad
             link set {device} up
             route add default via {host}
             route add default via {host6}"
        ));
        netns.nft(&format!(
            "table inet router {{
                 set ip_seen {{ type ipv4_addr; size 65535; flags dynamic; }}
                 set ip6_seen {{ type ipv6_addr; size 65535; flags dynamic; }}
                 chain arrivals {{
                     type filter hook prerouting priority -500;
                     iifname != \"{device}\" accept
                     ip protocol igmp accept
                     update @ip_seen {{ ip saddr counter }}
                     ip6 saddr {{ fe80::/10, :: }} accept
                     ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
                     update @ip6_seen {{ ip6 saddr counter }}
                 }}
             }}"
        ));
        talk::serve(&netns, &[SERVER.into(), SERVER6.into()], &[PORT]);
        Self { netns, subnet, number }
    }

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

    /// An address as an exit of a binding, with this router as its gateway, and with these further fields.
    pub fn exit(&self, address: &IpAddr, fields: &str) -> String {
        let gateway = self.own().into_iter().find(|own| own.is_ipv4() == address.is_ipv4()).expect("it has both");
        format!("{{address: '{address}', gateway: '{gateway}', {fields}}}")
    }

    /// What has come by it, by source.
    pub fn seen(&self) -> Counted {
        let listing = self.netns.run(&["nft", "-j", "list", "table", "inet", "router"]);
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
        self.netns.nft("flush set inet router ip_seen\nflush set inet router ip6_seen\n");
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
