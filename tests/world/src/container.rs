//! Plain containers: network namespaces on a bridge, with no engine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{build::World, netns::Netns, talk};

/// A bridge on the host for plain containers: its gateway's addresses are `.1`.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Name of the device.
    pub name: String,
    subnet: u8,
    ipv6: bool,
}

impl Bridge {
    /// Address number `host` of its subnet, 172.`subnet`.0.0/16.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, self.subnet, 0, host)
    }

    /// Address number `host` of its IPv6 subnet, `fd72:0:0:subnet::/64`.
    pub fn address6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd72, 0, 0, self.subnet.into(), 0, 0, 0, host.into())
    }
}

/// A network namespace that `ip netns` knows, with one interface `eth0` on a bridge of the host.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its namespace, named as the container.
    pub netns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    pub address6: Ipv6Addr,
    /// Name of its interface's other end, on the host.
    pub host_side: String,
    bridge: Bridge,
    number: u8,
}

impl World {
    /// Adds a bridge with subnet 172.`subnet`.0.0/16 to the host.
    pub fn bridge(&self, name: &str, subnet: u8) -> Bridge {
        let bridge = Bridge { name: name.to_owned(), subnet, ipv6: self.layout.ipv6 };
        self.host.ip(&format!(
            "link add {name} type bridge
             addr add {}/16 dev {name}
             link set {name} up",
            bridge.address(1)
        ));
        if bridge.ipv6 {
            self.host.ip(&format!("addr add {}/64 dev {name} nodad", bridge.address6(1)));
        }
        bridge
    }

    /// Does for a bridge what a container engine does: forwarding, and one masquerade rule a family.
    pub fn masquerade(&self, bridge: &Bridge) {
        self.host.sysctl("ipv4/ip_forward", "1");
        let subnet = format!("{}/16", bridge.address(0));
        self.host.run(&["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", &subnet, "!", "-o", &bridge.name, "-j", "MASQUERADE"]);
        if bridge.ipv6 {
            self.host.sysctl("ipv6/conf/all/forwarding", "1");
            let subnet = format!("{}/64", bridge.address6(0));
            self.host.run(&["ip6tables", "-t", "nat", "-A", "POSTROUTING", "-s", &subnet, "!", "-o", &bridge.name, "-j", "MASQUERADE"]);
        }
    }

    /// Adds a plain container with address number `number` of the bridge's subnet.
    pub fn container(&self, name: &str, bridge: &Bridge, number: u8) -> Container {
        let container = Container {
            netns: Netns::add(name),
            address: bridge.address(number),
            address6: bridge.address6(number),
            host_side: format!("v-{name}"),
            bridge: bridge.clone(),
            number,
        };
        // Routers ask nobody whether their containers' addresses are taken, and neither do engines.
        container.netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        let Bridge { name: device, .. } = bridge;
        self.host.ip(&format!(
            "link add {0} type veth peer name eth0 netns {name}
             link set {0} master {device} up",
            container.host_side
        ));
        container.netns.ip(&format!(
            "addr add {}/16 dev eth0
             link set eth0 up
             route add default via {}",
            container.address,
            bridge.address(1)
        ));
        if bridge.ipv6 {
            container.netns.ip(&format!(
                "addr add {}/64 dev eth0 nodad
                 route add default via {}",
                container.address6,
                bridge.address6(1)
            ));
        }
        container
    }

    /// Connects a running container to another network, by which its default route goes from then on, as an engine does where that one's name
    /// comes first.
    pub fn connect(&self, container: &Container, bridge: &Bridge, number: u8) {
        let (name, host_side) = (container.netns.name(), format!("w-{}", container.netns.name()));
        self.host.ip(&format!(
            "link add {host_side} type veth peer name eth1 netns {name}
             link set {host_side} master {} up",
            bridge.name
        ));
        container.netns.ip(&format!(
            "addr add {}/16 dev eth1
             link set eth1 up
             route replace default via {} dev eth1",
            bridge.address(number),
            bridge.address(1)
        ));
        if bridge.ipv6 {
            container.netns.ip(&format!(
                "addr add {}/64 dev eth1 nodad
                 route replace default via {} dev eth1",
                bridge.address6(number),
                bridge.address6(1)
            ));
        }
    }

    /// Takes it off that network again.
    pub fn disconnect(&self, container: &Container, bridge: &Bridge) {
        self.host.ip(&format!("link del w-{}", container.netns.name()));
        let own = &container.bridge;
        assert_ne!(own.name, bridge.name, "the network that it was made on stays");
        container.netns.ip(&format!("route replace default via {}", own.address(1)));
        if own.ipv6 {
            container.netns.ip(&format!("route add default via {}", own.address6(1)));
        }
    }

    /// Removes a container and makes it anew with the same name and addresses.
    pub fn renew(&self, container: Container) -> Container {
        let (name, bridge, number) = (container.netns.name().to_owned(), container.bridge.clone(), container.number);
        self.remove(container);
        self.container(&name, &bridge, number)
    }

    /// Removes a container.
    pub fn remove(&self, container: Container) {
        self.host.ip(&format!(
            "link del {}
             netns del {}",
            container.host_side,
            container.netns.name()
        ));
    }
}

impl Container {
    /// Asks a server by TCP which address it sees.
    pub fn ask_tcp(&self, to: impl Into<SocketAddr>) -> io::Result<SocketAddr> {
        talk::ask_tcp(&self.netns, to.into())
    }

    /// Asks a server by UDP which address it sees.
    pub fn ask_udp(&self, to: impl Into<SocketAddr>) -> io::Result<SocketAddr> {
        talk::ask_udp(&self.netns, to.into())
    }

    /// Takes an address in addition to its own, as a container with Docker's default privileges may.
    pub fn take(&self, address: IpAddr) {
        let (length, nodad) = if address.is_ipv4() { (32, "") } else { (128, "nodad") };
        self.netns.ip(&format!("addr add {address}/{length} dev eth0 {nodad}"));
    }

    /// Asks a server by UDP from one of its addresses, given or taken.
    pub fn ask_udp_as(&self, from: IpAddr, to: impl Into<SocketAddr>) -> io::Result<SocketAddr> {
        talk::ask_udp_from(&self.netns, SocketAddr::new(from, 0), to.into())
    }
}
