//! A world, and how it is ordered.

use std::{
    ops::Deref,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cloud::{Cloud, Routed},
    layout::{Layout, Nic, Subnets},
    machine::{self, Machine},
    namespaces::Namespaces,
    netns::Netns,
    talk::Guests,
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
        let host = Netns::host();
        machine::start_sysctls(&host, self.rp_filter);
        let cloud = Arc::new(Cloud::new(layout));
        let machine = Machine::plug(&cloud, layout, Namespaces::of_scenario(host.clone()), "", &Routed::default());
        for nic in Nic::ALL {
            let deaf = self.advertised.is_some_and(|advertised| advertised != nic);
            let accept_ra = if deaf { "0" } else { "1" };
            host.sysctl(&format!("ipv6/conf/{}/accept_ra", nic.name()), accept_ra);
            machine.attach(nic);
        }
        machine.default_route(Nic::Eth0, 0, self.routed6(Nic::Eth0));
        if let Some(metric) = self.eth1_metric {
            machine.default_route(Nic::Eth1, metric, self.routed6(Nic::Eth1));
        }
        if let Some(nic) = self.advertised {
            cloud.advertise(nic);
            await_advertised(&host, nic);
        }
        World { host, internet: cloud.internet.clone(), guests: cloud.guests.clone(), machine }
    }

    /// Whether the NIC's IPv6 default route is set by hand.
    fn routed6(self, nic: Nic) -> bool {
        self.layout.ipv6 && self.advertised != Some(nic)
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

/// The host with its NICs, and what is around it.
pub struct World {
    /// The host: where egressd, engines and plain containers are.
    pub host: Netns,
    /// Where the servers are, and clients that call in.
    pub internet: Netns,
    /// Whom the servers on the internet have seen.
    pub guests: Guests,
    machine: Machine,
}

/// What can be asked of any machine of the cloud is asked of a world's only one.
impl Deref for World {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl World {
    /// Orders a world.
    pub fn builder() -> Builder {
        Builder { layout: Layout { subnets: Subnets::One, ipv6: true, machine: 0 }, rp_filter: 0, eth1_metric: None, advertised: None }
    }

    /// A neighbour in the NIC's subnet. NICs in one subnet have the same one.
    pub fn neighbour(&self, nic: Nic) -> &Netns {
        &self.cloud.neighbour(nic).0
    }

    /// Whom the neighbour has seen.
    pub fn neighbour_guests(&self, nic: Nic) -> &Guests {
        &self.cloud.neighbour(nic).1
    }

    /// Makes the routers forget the host's neighbour entries, as time does.
    pub fn forget_neighbours(&self) {
        self.cloud.netns.ip("neigh flush all");
    }
}
