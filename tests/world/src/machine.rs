//! A machine of the cloud: where its programs run, its NICs, and what has left by them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    cloud::{Cloud, Routed, Seen},
    layout::{Layout, Nic},
    namespaces::Namespaces,
    netns::Netns,
    talk,
};

/// A machine with two uplinks.
#[derive(Clone)]
pub struct Machine {
    /// Who has which address.
    pub layout: Layout,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) namespaces: Namespaces,
    /// What the names of its programs' logs begin with.
    pub(crate) prefix: String,
}

impl Machine {
    /// Plugs a machine into the cloud, with the starting state that every scenario has. Neither NIC has a default route yet.
    pub(crate) fn plug(cloud: &Arc<Cloud>, layout: Layout, namespaces: Namespaces, prefix: &str, routed: &Routed) -> Self {
        for nic in Nic::ALL {
            cloud.plug(layout, nic, namespaces.netns(), routed);
        }
        Self { layout, cloud: Arc::clone(cloud), namespaces, prefix: prefix.to_owned() }
    }

    /// Calls `f` on a thread in the machine's namespaces. Processes that it starts stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.namespaces.enter(f)
    }

    /// The machine's own network namespace.
    pub fn netns(&self) -> &Netns {
        self.namespaces.netns()
    }

    /// Gives the NIC its addresses and takes it up.
    pub(crate) fn attach(&self, nic: Nic) {
        let (layout, name) = (self.layout, nic.name());
        self.netns().ip(&format!(
            "addr add {}/20 dev {name}
             link set {name} up",
            layout.address(nic)
        ));
        if layout.ipv6 {
            self.netns().ip(&format!("addr add {}/64 dev {name} nodad", layout.address6(nic)));
        }
    }

    /// A default route by the NIC's gateway. There is no metric 0 in IPv6: it becomes 100, which is ahead of an advertised route's 1024.
    pub(crate) fn default_route(&self, nic: Nic, metric: u32, ipv6: bool) {
        let name = nic.name();
        self.netns().ip(&format!("route add default via {} dev {name} metric {metric}", self.layout.gateway(nic)));
        if ipv6 {
            let metric = if metric == 0 { 100 } else { metric };
            self.netns().ip(&format!("route add default via {} dev {name} metric {metric}", self.layout.gateway6(nic)));
        }
    }

    /// The gateway of the NIC in the family of `like`.
    pub fn gateway(&self, nic: Nic, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.layout.gateway(nic).into(),
            IpAddr::V6(_) => self.layout.gateway6(nic).into(),
        }
    }

    /// Gives the NIC a further address in the cloud, or takes it away: without, what bears it is dropped as foreign. On the machine nothing changes.
    pub fn assign(&self, nic: Nic, address: Ipv4Addr, own: bool) {
        self.cloud.assign(self.layout, nic, address, own);
    }

    /// What has left the machine since the last [`Machine::forget`], counted beyond the NICs, ahead of the cloud's anti-spoofing.
    pub fn seen(&self) -> Seen {
        self.cloud.seen(self.layout)
    }

    /// The part of [`Machine::seen`] that should not be: sources that the NIC does not own.
    pub fn foreign(&self) -> Seen {
        self.seen().foreign(self.layout)
    }

    /// Begins counting anew.
    pub fn forget(&self) {
        self.cloud.forget(self.layout);
    }

    /// Calls `f` and returns what left the machine because of it, up to the last acknowledgement, with what `f` returns.
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

    /// Calls in from the internet, and returns the web page.
    pub fn get(&self, at: SocketAddr, path: &str) -> io::Result<String> {
        talk::get(&self.cloud.internet, at, path)
    }
}

/// A new namespace takes over some of the machine's settings; a scenario begins with the same ones everywhere.
pub(crate) fn start_sysctls(netns: &Netns, rp_filter: u8) {
    for place in ["all", "default"] {
        netns.sysctl(&format!("ipv4/conf/{place}/rp_filter"), &rp_filter.to_string());
        for name in ["arp_ignore", "arp_announce", "arp_filter", "src_valid_mark", "accept_local"] {
            netns.sysctl(&format!("ipv4/conf/{place}/{name}"), "0");
        }
    }
    netns.sysctl("ipv4/ip_forward", "0");
    netns.sysctl("ipv6/conf/all/forwarding", "0");
}
