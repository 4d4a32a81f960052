//! A world, and how it is ordered.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cloud::{Cloud, Seen},
    layout::{Layout, Nic, PORTS, SERVER, SERVER_B, SERVER6, SERVER6_B, Subnets},
    netns::Netns,
    talk::{self, Guests},
};

/// What a world is to be like. The default: one subnet, IPv4 and IPv6, no reverse path filter.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    layout: Layout,
    rp_filter: u8,
    eth1_metric: Option<u32>,
    advertised: Option<Nic>,
}

impl Builder {
    /// Where the NICs are.
    #[must_use]
    pub fn subnets(mut self, subnets: Subnets) -> Self {
        self.layout.subnets = subnets;
        self
    }

    /// Whether there is IPv6, too.
    #[must_use]
    pub fn ipv6(mut self, ipv6: bool) -> Self {
        self.layout.ipv6 = ipv6;
        self
    }

    /// The reverse path filter that the host starts with, everywhere.
    #[must_use]
    pub fn rp_filter(mut self, value: u8) -> Self {
        self.rp_filter = value;
        self
    }

    /// A second default route, by eth1, with this metric (above 100, which is eth0's in IPv6), as DHCP clients set it.
    #[must_use]
    pub fn default_by_eth1(mut self, metric: u32) -> Self {
        self.eth1_metric = Some(metric);
        self
    }

    /// This NIC's IPv6 default route comes from its router's advertisements alone; the other NIC does not listen to any.
    #[must_use]
    pub fn advertised(mut self, nic: Nic) -> Self {
        self.advertised = Some(nic);
        self
    }

    /// Makes it. To be called once in a scenario: the scenario's own network namespace becomes the host.
    pub fn build(self) -> World {
        let layout = self.layout;
        let (host, internet) = (Netns::host(), Netns::add("internet"));
        self.start_sysctls(&host);
        let cloud = Cloud::new(layout, &host, &internet);
        for nic in Nic::ALL {
            let deaf = self.advertised.is_some_and(|advertised| advertised != nic);
            let accept_ra = if deaf { "0" } else { "1" };
            host.sysctl(&format!("ipv6/conf/{}/accept_ra", nic.name()), accept_ra);
            attach(&host, layout, nic);
        }
        self.default_route(&host, Nic::Eth0, 0);
        if let Some(metric) = self.eth1_metric {
            self.default_route(&host, Nic::Eth1, metric);
        }
        if let Some(nic) = self.advertised {
            cloud.advertise(nic);
            await_advertised(&host, nic);
        }
        let mut world = World {
            guests: serve(&internet, layout.ipv6, [SERVER.into(), SERVER_B.into(), SERVER6.into(), SERVER6_B.into()]),
            host,
            internet,
            layout,
            cloud,
            neighbours: BTreeMap::new(),
        };
        for &nic in layout.first_of_each() {
            let netns = world.cloud.neighbour(nic);
            let guests = serve(&netns, layout.ipv6, [layout.neighbour(nic).into(), layout.neighbour6(nic).into()]);
            world.neighbours.insert(nic, (netns, guests));
        }
        world
    }

    /// A new namespace takes over some of the machine's settings; a scenario begins with the same ones everywhere.
    fn start_sysctls(self, host: &Netns) {
        for place in ["all", "default"] {
            host.sysctl(&format!("ipv4/conf/{place}/rp_filter"), &self.rp_filter.to_string());
            for name in ["arp_ignore", "arp_announce", "arp_filter", "src_valid_mark", "accept_local"] {
                host.sysctl(&format!("ipv4/conf/{place}/{name}"), "0");
            }
        }
        host.sysctl("ipv4/ip_forward", "0");
        host.sysctl("ipv6/conf/all/forwarding", "0");
    }

    fn default_route(self, host: &Netns, nic: Nic, metric: u32) {
        let name = nic.name();
        host.ip(&format!("route add default via {} dev {name} metric {metric}", self.layout.gateway(nic)));
        if self.layout.ipv6 && self.advertised != Some(nic) {
            // There is no metric 0 in IPv6; this is ahead of an advertised route's 1024.
            let metric = if metric == 0 { 100 } else { metric };
            host.ip(&format!("route add default via {} dev {name} metric {metric}", self.layout.gateway6(nic)));
        }
    }
}

fn attach(host: &Netns, layout: Layout, nic: Nic) {
    let (name, address) = (nic.name(), layout.address(nic));
    host.ip(&format!(
        "addr add {address}/20 dev {name}
         link set {name} up"
    ));
    if layout.ipv6 {
        host.ip(&format!("addr add {}/64 dev {name} nodad", layout.address6(nic)));
    }
}

/// Waits for the route that the kernel makes of an advertisement.
fn await_advertised(host: &Netns, nic: Nic) {
    let start = Instant::now();
    while host.run(&["ip", "-6", "route", "show", "default", "proto", "ra", "dev", nic.name()]).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "no advertised route by {}", nic.name());
        thread::sleep(Duration::from_millis(50));
    }
}

fn serve<const N: usize>(netns: &Netns, ipv6: bool, addresses: [IpAddr; N]) -> Guests {
    let served: Vec<IpAddr> = addresses.into_iter().filter(|address| ipv6 || address.is_ipv4()).collect();
    talk::serve(netns, &served, &PORTS)
}

/// The host with its NICs, and what is around it.
pub struct World {
    /// The host: where egressd, engines and plain containers are.
    pub host: Netns,
    /// Where the servers are, and clients that call in.
    pub internet: Netns,
    /// Who has which address.
    pub layout: Layout,
    /// Whom the servers on the internet have seen.
    pub guests: Guests,
    cloud: Cloud,
    neighbours: BTreeMap<Nic, (Netns, Guests)>,
}

impl World {
    /// Orders a world.
    pub fn builder() -> Builder {
        Builder { layout: Layout { subnets: Subnets::One, ipv6: true }, rp_filter: 0, eth1_metric: None, advertised: None }
    }

    /// What has left the host since the last [`World::forget`], counted beyond the NICs, ahead of the cloud's anti-spoofing.
    pub fn seen(&self) -> Seen {
        self.cloud.seen()
    }

    /// The part of [`World::seen`] that should not be: sources that the NIC does not own.
    pub fn foreign(&self) -> Seen {
        self.seen().foreign(self.layout)
    }

    /// Begins counting anew.
    pub fn forget(&self) {
        self.cloud.forget();
    }

    /// Calls `f` and returns what left the host because of it, up to the last acknowledgement, with what `f` returns.
    pub fn watch<T>(&self, f: impl FnOnce() -> T) -> (T, Seen) {
        self.forget();
        let result = f();
        let mut seen = self.seen();
        loop {
            // Two equal readings in a row: reading takes longer than a packet's way.
            let again = self.seen();
            if again == seen {
                return (result, seen);
            }
            seen = again;
        }
    }

    /// A neighbour in the NIC's subnet. NICs in one subnet have the same one.
    pub fn neighbour(&self, nic: Nic) -> &Netns {
        &self.at(nic).0
    }

    /// Whom the neighbour has seen.
    pub fn neighbour_guests(&self, nic: Nic) -> &Guests {
        &self.at(nic).1
    }

    /// Calls in from the internet, and returns the web page.
    pub fn get(&self, at: SocketAddr, path: &str) -> io::Result<String> {
        talk::get(&self.internet, at, path)
    }

    /// Makes the routers forget the host's neighbour entries, as time does.
    pub fn forget_neighbours(&self) {
        self.cloud.netns.ip("neigh flush all");
    }

    fn at(&self, nic: Nic) -> &(Netns, Guests) {
        self.neighbours.get(&nic).or_else(|| self.neighbours.get(&Nic::Eth0)).expect("there is a neighbour in the first subnet")
    }
}
