//! What is beyond the NICs: the subnets with their routers, which count, drop foreign sources, and map elastic addresses.
//!
//! Counting and dropping is done where the wires end, before anything else sees the packet (`netdev` ingress), by a ruleset in
//! a namespace that egressd has no hand in. A real cloud's anti-spoofing is by NIC in the same way.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde_json::Value;

use crate::{
    advertise,
    layout::{Layout, Nic, SERVER, SERVER_B, SERVER6, SERVER6_B},
    netns::Netns,
};

/// What left the host: packets by NIC and source address.
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

/// The cloud's namespace.
pub(crate) struct Cloud {
    pub(crate) netns: Netns,
    layout: Layout,
}

impl Cloud {
    /// Makes it, with the wires to the host's NICs, whose ends on the host are still bare, and the link `wan` to the internet.
    pub(crate) fn new(layout: Layout, host: &Netns, internet: &Netns) -> Self {
        let netns = Netns::add("cloud");
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
        let cloud = Self { netns, layout };
        for &nic in layout.first_of_each() {
            cloud.add_subnet(nic);
        }
        for nic in Nic::ALL {
            cloud.plug(nic, host);
        }
        cloud.connect(internet);
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

    fn plug(&self, nic: Nic, host: &Netns) {
        let (name, port, segment) = (nic.name(), nic.port(), self.layout.segment(nic));
        host.ip(&format!("link add {name} type veth peer name {port} netns {}", self.netns.name()));
        self.netns.ip(&format!("link set {port} master {segment} up"));
        self.netns.nft(&port_rules(self.layout, nic));
    }

    fn connect(&self, internet: &Netns) {
        internet.sysctl("ipv6/conf/default/dad_transmits", "0");
        self.netns.ip(&format!(
            "link add wan type veth peer name wan netns {}
             addr add 198.51.100.1/24 dev wan
             addr add 203.0.113.1/24 dev wan
             addr add 2001:db8:10::1/64 dev wan nodad
             addr add 2001:db8:20::1/64 dev wan nodad
             link set wan up",
            internet.name()
        ));
        internet.ip(&format!(
            "addr add {SERVER}/24 dev wan
             addr add {SERVER_B}/24 dev wan
             addr add {SERVER6}/64 dev wan nodad
             addr add {SERVER6_B}/64 dev wan nodad
             link set wan up
             route add default via 198.51.100.1
             route add default via 2001:db8:10::1"
        ));
        self.netns.nft(&elastic_addresses(self.layout));
    }

    /// A neighbour in the NIC's subnet.
    pub(crate) fn neighbour(&self, nic: Nic) -> Netns {
        let netns = Netns::add(match nic {
            Nic::Eth0 => "near0",
            Nic::Eth1 => "near1",
        });
        let (segment, address) = (self.layout.segment(nic), self.layout.neighbour(nic));
        netns.ip(&format!("link add eth0 type veth peer name {0} netns {1}", netns.name(), self.netns.name()));
        self.netns.ip(&format!("link set {} master {segment} up", netns.name()));
        netns.ip(&format!(
            "addr add {address}/20 dev eth0
             link set eth0 up
             route add default via {}",
            self.layout.gateway(nic)
        ));
        if self.layout.ipv6 {
            netns.ip(&format!(
                "addr add {}/64 dev eth0 nodad
                 route add default via {}",
                self.layout.neighbour6(nic),
                self.layout.gateway6(nic)
            ));
        }
        netns
    }

    /// Lets the NIC's gateway advertise itself.
    pub(crate) fn advertise(&self, nic: Nic) {
        advertise::start(&self.netns, self.layout.segment(nic), self.layout.prefix6(nic));
    }

    /// What has left the host since the last [`Cloud::forget`].
    pub(crate) fn seen(&self) -> Seen {
        let listing = self.netns.run(&["nft", "-j", "list", "table", "netdev", "cloud"]);
        let listing: Value = serde_json::from_str(&listing).expect("nft prints JSON");
        let mut seen = Seen::default();
        for object in listing["nftables"].as_array().expect("nft lists objects") {
            let set = &object["set"];
            let Some(nic) = Nic::ALL.into_iter().find(|nic| set["name"].as_str().is_some_and(|name| name.starts_with(nic.port()))) else {
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

    /// Begins counting anew.
    pub(crate) fn forget(&self) {
        let sets = Nic::ALL.map(Nic::port).map(|port| format!("flush set netdev cloud {port}_ip\nflush set netdev cloud {port}_ip6\n"));
        self.netns.nft(&sets.concat());
    }
}

/// Only what the NIC owns passes, after it was counted. IPv6's own business (neighbours, routers, duplicate addresses) is
/// never forwarded and not counted.
fn port_rules(layout: Layout, nic: Nic) -> String {
    let (port, own, own6) = (nic.port(), layout.address(nic), layout.address6(nic));
    format!(
        "table netdev cloud {{
            set {port}_ip {{ type ipv4_addr; size 65535; flags dynamic; }}
            set {port}_ip6 {{ type ipv6_addr; size 65535; flags dynamic; }}
            chain {port} {{
                type filter hook ingress device \"{port}\" priority -500; policy accept;
                update @{port}_ip {{ ip saddr counter }}
                ip6 saddr {{ fe80::/10, :: }} accept
                ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
                update @{port}_ip6 {{ ip6 saddr counter }}
                ip saddr != {own} drop
                ip6 saddr != {own6} drop
            }}
        }}"
    )
}

/// One to one, both ways; also from inside the cloud to an elastic address, which then sees the sender's.
fn elastic_addresses(layout: Layout) -> String {
    let to_public = Nic::ALL.map(|nic| format!("{} : {}", layout.address(nic), nic.eip())).join(", ");
    let to_private = Nic::ALL.map(|nic| format!("{} : {}", nic.eip(), layout.address(nic))).join(", ");
    format!(
        "table ip cloud {{
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                dnat to ip daddr map {{ {to_private} }}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname \"wan\" snat to ip saddr map {{ {to_public} }}
                ct status dnat snat to ip saddr map {{ {to_public} }}
            }}
        }}"
    )
}
