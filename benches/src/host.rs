//! A host with two uplinks, its router, and a container that holds all the addresses.

use std::{fmt::Write, net::Ipv4Addr};

use world::{Netns, command};

use crate::nth;

/// Address that the router holds and the container talks to.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A container that nobody bound, in a namespace of its own.
pub const UNBOUND: Ipv4Addr = Ipv4Addr::new(10, 8, 200, 1);
/// What the bound ones leave from.
pub const EXIT: &str = "172.31.16.14";

/// The namespaces of one host. The container's address `10.8.4.0 + n` is the workload n.
#[derive(Clone)]
pub struct Host {
    pub inside: Netns,
    pub container: Netns,
    pub unbound: Netns,
    pub router: Netns,
    /// How many of the container's addresses are workloads.
    pub workloads: u32,
}

/// The address of workload `n`.
pub fn source(n: u32) -> Ipv4Addr {
    nth(Ipv4Addr::new(10, 8, 4, 0), n)
}

impl Host {
    /// Makes it: with so many workloads, a masquerade as Docker's, and a far end that drops UDP as soon as it arrives and counts it.
    pub fn add(name: &str, workloads: u32) -> Self {
        let add = |part: &str| Netns::add(&format!("{name}-{part}"));
        let host = Self { inside: add("host"), container: add("bound"), unbound: add("free"), router: add("router"), workloads };
        for netns in [&host.inside, &host.container, &host.unbound, &host.router] {
            for interface in ["all", "default"] {
                netns.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
                netns.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0");
            }
        }
        host.inside.sysctl("ipv4/ip_forward", "1");
        let router = host.router.name();
        host.inside.ip(&format!(
            "link add eth0 type veth peer name nic0 netns {router}
             link add eth1 type veth peer name nic1 netns {router}
             addr add 172.31.0.8/20 dev eth0
             addr add {EXIT}/20 dev eth1
             link set eth0 up
             link set eth1 up
             link add br0 type bridge
             addr add 10.8.0.1/16 dev br0
             link set br0 up
             link add bound type veth peer name eth0 netns {}
             link add free type veth peer name eth0 netns {}
             link set bound master br0 up
             link set free master br0 up",
            host.container.name(),
            host.unbound.name(),
        ));
        host.router.ip(&format!(
            "addr add 172.31.0.1/20 dev nic0
             addr add 172.31.16.1/20 dev nic1
             addr add {FAR}/32 dev lo
             link set nic0 up
             link set nic1 up"
        ));
        host.inside.ip("route add default via 172.31.0.1");
        let mut addresses = String::from("link set eth0 up\n");
        for n in 0..workloads {
            writeln!(addresses, "addr add {}/16 dev eth0 noprefixroute", source(n)).expect("a String takes all");
        }
        host.container.ip(&format!("{addresses}\nroute add 10.8.0.1 dev eth0\nroute add default via 10.8.0.1"));
        host.unbound.ip(&format!("addr add {UNBOUND}/16 dev eth0\nlink set eth0 up\nroute add default via 10.8.0.1"));
        host.inside.nft(
            "table ip nat {
               chain POSTROUTING {
                 type nat hook postrouting priority srcnat
                 ip saddr 10.8.0.0/16 oifname != br0 masquerade
               }
             }",
        );
        let drop = |nic| format!("chain {nic} {{\ntype filter hook ingress device {nic} priority 0\nmeta l4proto udp counter drop\n}}\n");
        host.router.nft(&format!("table netdev far {{\n{}{}}}", drop("nic0"), drop("nic1")));
        host
    }

    /// The field's way: a source NAT rule and a policy rule for each workload.
    pub fn rule_for_each(&self) {
        let (mut nat, mut rules) = (String::from("*nat\n"), String::new());
        for n in 0..self.workloads {
            writeln!(nat, "-A POSTROUTING -s {}/32 -o eth1 -j SNAT --to-source {EXIT}", source(n)).expect("a String takes all");
            writeln!(rules, "rule add pref {} from {} lookup 101", 1000 + n, source(n)).expect("a String takes all");
        }
        self.inside.run(&["nft", "delete", "table", "ip", "nat"]);
        nat.push_str("-A POSTROUTING -s 10.8.0.0/16 ! -o br0 -j MASQUERADE\nCOMMIT\n");
        self.inside.enter(|| command::feed(&["iptables-restore"], &nat));
        self.inside.ip(&format!("route add default via 172.31.16.1 dev eth1 table 101\n{rules}"));
    }

    /// UDP packets that have arrived at the far end by each uplink.
    pub fn arrived(&self) -> [u64; 2] {
        let text = self.router.run(&["nft", "list", "table", "netdev", "far"]);
        let mut counts = text.split("packets ").skip(1).map(|rest| rest.split(' ').next().expect("nft prints a number after `packets`"));
        [0; 2].map(|_| counts.next().and_then(|count| count.parse().ok()).expect("two chains, each with a counter"))
    }

    /// Forgets all flows: a table that fills is no part of what is measured.
    pub fn flush(&self) {
        self.inside.run(&["conntrack", "-F"]);
    }
}
