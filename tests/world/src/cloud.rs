//! What is beyond the NICs: the subnets with their routers, which count, drop foreign sources, and map elastic addresses.
//!
//! Counting and dropping is done where the wires end, before anything else sees the packet (`netdev` ingress), by a ruleset in
//! a namespace that egressd has no hand in. A real cloud's anti-spoofing is by NIC in the same way.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::Value;

use crate::{
    advertise,
    layout::{Layout, Nic, PORTS, SERVER, SERVER_B, SERVER6, SERVER6_B},
    netns::Netns,
    talk::{self, Guests},
    traffic::nobody,
};

/// What left a machine: packets by NIC and source address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub BTreeMap<(Nic, IpAddr), u64>);

impl Seen {
    /// Packets by this NIC with this source.
    pub fn count(&self, nic: Nic, source: IpAddr) -> u64 {
        self.0.get(&(nic, source)).copied().unwrap_or(0)
    }

    /// Packets by this NIC, whatever the source.
    pub fn by(&self, nic: Nic) -> u64 {
        self.0.iter().filter(|((by, _), _)| *by == nic).map(|(_, count)| count).sum()
    }

    /// Those whose source is not an address of the NIC that they left by.
    #[must_use]
    pub fn foreign(&self, layout: Layout) -> Self {
        let foreign = self.0.iter().filter(|((nic, source), _)| !layout.own(*nic).contains(source));
        Self(foreign.map(|(key, count)| (*key, *count)).collect())
    }

    /// Whether it was nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, ((nic, source), count)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} by {} from {source}", nic.name())?;
        }
        Ok(())
    }
}

/// What machines say to each other by eth0 that the cloud carries and does not count: a cluster's own traffic, and what its pods say to
/// each other, for whose networks a cloud has routes. Each is an address or a prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routed {
    /// The machine's own sources.
    pub(crate) from: Vec<String>,
    /// Everybody's destinations.
    pub(crate) to: Vec<String>,
}

/// The cloud's namespace, the internet behind it, and the neighbours in its subnets.
pub(crate) struct Cloud {
    pub(crate) netns: Netns,
    pub(crate) internet: Netns,
    /// Whom the servers on the internet have seen.
    pub(crate) guests: Guests,
    neighbours: BTreeMap<Nic, (Netns, Guests)>,
    layout: Layout,
}

impl Cloud {
    /// Makes it, with the link `wan` to the internet, servers there and neighbours; no machine is plugged in yet.
    pub(crate) fn new(layout: Layout) -> Self {
        let (netns, internet) = (Netns::add("cloud"), Netns::add("internet"));
        for (path, value) in [
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("bridge/bridge-nf-call-arptables", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/dad_transmits", "0"),
        ] {
            netns.sysctl(path, value);
        }
        let mut cloud = Self { netns, internet, guests: Guests::default(), neighbours: BTreeMap::new(), layout };
        for &nic in layout.first_of_each() {
            cloud.add_subnet(nic);
        }
        cloud.connect();
        cloud.guests = serve(&cloud.internet, layout.ipv6, [SERVER.into(), SERVER_B.into(), SERVER6.into(), SERVER6_B.into()]);
        for &nic in layout.first_of_each() {
            let netns = cloud.add_neighbour(nic);
            let guests = serve(&netns, layout.ipv6, [layout.neighbour(nic).into(), layout.neighbour6(nic).into()]);
            cloud.neighbours.insert(nic, (netns, guests));
        }
        cloud
    }

    fn add_subnet(&self, nic: Nic) {
        let (segment, gateway) = (self.layout.segment(nic), self.layout.gateway(nic));
        self.netns.ip(&format!(
            "link add {segment} type bridge
             addr add {gateway}/20 dev {segment}
             link set {segment} up"
        ));
        if self.layout.ipv6 {
            self.netns.ip(&format!("addr add {}/64 dev {segment} nodad", self.layout.gateway6(nic)));
        }
    }

    /// Makes the wire to a machine's NIC, whose end there is still bare, with its rules and its elastic address.
    pub(crate) fn plug(&self, layout: Layout, nic: Nic, machine: &Netns, routed: &Routed) {
        let (name, port, segment) = (nic.name(), layout.port(nic), layout.segment(nic));
        machine.ip(&format!("link add {name} type veth peer name {port} netns {}", self.netns.name()));
        self.netns.ip(&format!("link set {port} master {segment} up"));
        self.netns.nft(&port_rules(layout, nic, routed));
        self.netns.nft(&elastic_address(layout, nic));
    }

    /// Forgets a machine whose wires are gone.
    pub(crate) fn unplug(&self, layout: Layout) {
        let tables = Nic::ALL.map(|nic| format!("delete table ip {}\n", layout.port(nic)));
        self.netns.nft(&format!("delete table netdev {}\n{}", table(layout), tables.concat()));
    }

    fn connect(&self) {
        self.internet.sysctl("ipv6/conf/default/dad_transmits", "0");
        self.netns.ip(&format!(
            "link add wan type veth peer name wan netns {}
             addr add 198.51.100.1/24 dev wan
             addr add 203.0.113.1/24 dev wan
             addr add 2001:db8:10::1/64 dev wan nodad
             addr add 2001:db8:20::1/64 dev wan nodad
             link set wan up",
            self.internet.name()
        ));
        self.internet.ip(&format!(
            "addr add {SERVER}/24 dev wan
             addr add {SERVER_B}/24 dev wan
             addr add {SERVER6}/64 dev wan nodad
             addr add {SERVER6_B}/64 dev wan nodad
             link set wan up
             route add default via 198.51.100.1
             route add default via 2001:db8:10::1"
        ));
        // The router would say that nobody is there, three seconds later.
        for like in [IpAddr::from(SERVER), SERVER6.into()] {
            self.netns.ip(&format!("neigh add {} lladdr 02:00:00:00:00:63 dev wan nud permanent", nobody(like).ip()));
        }
    }

    /// A neighbour in the NIC's subnet, and whom it has seen. NICs in one subnet have the same one.
    pub(crate) fn neighbour(&self, nic: Nic) -> &(Netns, Guests) {
        self.neighbours.get(&nic).or_else(|| self.neighbours.get(&Nic::Eth0)).expect("there is a neighbour in the first subnet")
    }

    fn add_neighbour(&self, nic: Nic) -> Netns {
        let name = match nic {
            Nic::Eth0 => "near0",
            Nic::Eth1 => "near1",
        };
        self.add_beside(name, nic, self.layout.neighbour(nic).into(), self.layout.neighbour6(nic).into())
    }

    /// Adds a machine with one NIC in the subnet of `nic`, which nothing counts.
    pub(crate) fn add_beside(&self, name: &str, nic: Nic, address: IpAddr, address6: IpAddr) -> Netns {
        let netns = Netns::add(name);
        netns.ip(&format!("link add eth0 type veth peer name {name} netns {}", self.netns.name()));
        self.netns.ip(&format!("link set {name} master {} up", self.layout.segment(nic)));
        netns.ip(&format!(
            "addr add {address}/20 dev eth0
             link set eth0 up
             route add default via {}",
            self.layout.gateway(nic)
        ));
        if self.layout.ipv6 {
            netns.ip(&format!(
                "addr add {address6}/64 dev eth0 nodad
                 route add default via {}",
                self.layout.gateway6(nic)
            ));
        }
        netns
    }

    /// Lets the NIC's gateway advertise itself.
    pub(crate) fn advertise(&self, nic: Nic) {
        advertise::start(&self.netns, self.layout.segment(nic), self.layout.prefix6(nic));
    }

    /// What has left the machine since the last [`Cloud::forget`].
    pub(crate) fn seen(&self, layout: Layout) -> Seen {
        let table = table(layout);
        let listing = self.netns.run(&["nft", "-j", "list", "table", "netdev", &table]);
        let listing: Value = serde_json::from_str(&listing).expect("nft prints JSON");
        let mut seen = Seen::default();
        for object in listing["nftables"].as_array().expect("nft lists objects") {
            let set = &object["set"];
            let Some(nic) = Nic::ALL.into_iter().find(|nic| set["name"].as_str().is_some_and(|name| name.starts_with(nic.name()))) else {
                continue;
            };
            for element in set["elem"].as_array().into_iter().flatten() {
                let source = element["elem"]["val"].as_str().and_then(|source| source.parse().ok());
                let count = element["elem"]["counter"]["packets"].as_u64();
                let (Some(source), Some(count)) = (source, count) else {
                    panic!("not a counted address: {element}");
                };
                seen.0.insert((nic, source), count);
            }
        }
        seen
    }

    /// Gives the NIC a further address, which the internet sees as it is; or takes it away.
    pub(crate) fn assign(&self, layout: Layout, nic: Nic, address: Ipv4Addr, own: bool) {
        let verb = if own { "add" } else { "delete" };
        self.netns.nft(&format!("{verb} element netdev {} own_{} {{ {address} }}", table(layout), nic.name()));
    }

    /// Begins counting anew.
    pub(crate) fn forget(&self, layout: Layout) {
        let table = table(layout);
        let sets = Nic::ALL.map(Nic::name).map(|nic| format!("flush set netdev {table} {nic}_ip\nflush set netdev {table} {nic}_ip6\n"));
        self.netns.nft(&sets.concat());
    }
}

fn serve<const N: usize>(netns: &Netns, ipv6: bool, addresses: [IpAddr; N]) -> Guests {
    let served: Vec<IpAddr> = addresses.into_iter().filter(|address| ipv6 || address.is_ipv4()).collect();
    talk::serve(netns, &served, &PORTS)
}

/// Name of the tables that are about a machine.
fn table(layout: Layout) -> String {
    format!("machine{}", layout.machine)
}

/// Only what the NIC owns passes, after it was counted. IPv6's own business (neighbours, routers, duplicate addresses) is
/// never forwarded and not counted.
fn port_rules(layout: Layout, nic: Nic, routed: &Routed) -> String {
    let (table, port, name) = (table(layout), layout.port(nic), nic.name());
    let (own, own6) = (layout.address(nic), layout.address6(nic));
    let carried = match nic {
        Nic::Eth0 => ["ip", "ip6"].map(|family| routed.accepted(family)).concat(),
        Nic::Eth1 => String::new(),
    };
    // Where two NICs of one subnet answer for each other, what is carried would come in by either.
    let claimed = if routed.to.is_empty() { String::new() } else { format!("arp operation reply arp saddr ip != @own_{name} drop") };
    format!(
        "table netdev {table} {{
            set {name}_ip {{ type ipv4_addr; size 65535; flags dynamic; }}
            set {name}_ip6 {{ type ipv6_addr; size 65535; flags dynamic; }}
            set own_{name} {{ type ipv4_addr; elements = {{ {own} }} }}
            chain {name} {{
                type filter hook ingress device \"{port}\" priority -500; policy accept;
                {claimed}
                {carried}
                update @{name}_ip {{ ip saddr counter }}
                ip6 saddr {{ fe80::/10, :: }} accept
                ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
                update @{name}_ip6 {{ ip6 saddr counter }}
                ip saddr != @own_{name} drop
                ip6 saddr != {own6} drop
            }}
        }}"
    )
}

impl Routed {
    /// The rule that lets it pass uncounted, if there is something of this family.
    fn accepted(&self, family: &str) -> String {
        let of = |all: &[String]| {
            let of: Vec<&str> = all.iter().map(String::as_str).filter(|one| one.contains(':') == (family == "ip6")).collect();
            of.join(", ")
        };
        let (from, to) = (of(&self.from), of(&self.to));
        if from.is_empty() || to.is_empty() {
            String::new()
        } else {
            format!("{family} saddr {{ {from} }} {family} daddr {{ {to} }} accept\n")
        }
    }
}

/// One to one, both ways; also from inside the cloud to an elastic address, which then sees the sender's.
fn elastic_address(layout: Layout, nic: Nic) -> String {
    let (port, private, public) = (layout.port(nic), layout.address(nic), layout.eip(nic));
    format!(
        "table ip {port} {{
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr {public} dnat to {private}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {private} oifname \"wan\" snat to {public}
                ip saddr {private} ct status dnat snat to {public}
            }}
        }}"
    )
}
