//! Who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A NIC of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nic {
    /// The one with the default route.
    Eth0,
    /// The other one.
    Eth1,
}

impl Nic {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Eth0, Self::Eth1];

    /// Its name on the host.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eth0 => "eth0",
            Self::Eth1 => "eth1",
        }
    }

    /// The elastic (public) address that the cloud maps to the first machine's private one.
    pub fn eip(self) -> Ipv4Addr {
        match self {
            Self::Eth0 => Ipv4Addr::new(109, 25, 48, 65),
            Self::Eth1 => Ipv4Addr::new(119, 26, 38, 75),
        }
    }
}

/// Where the NICs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnets {
    /// Both in one subnet, 172.31.0.0/20, with one gateway.
    One,
    /// Each in its own, with its own gateway.
    Two,
}

/// The addresses of a machine and of what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Where the NICs are.
    pub subnets: Subnets,
    /// Whether there is IPv6, too.
    pub ipv6: bool,
    /// Which machine of the cloud it is, from 0. A `World` has only one, a cluster one for each node.
    pub machine: u8,
}

/// A server on the internet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Another one, in another network.
pub const SERVER_B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// [`SERVER`]'s IPv6 address.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10);
/// [`SERVER_B`]'s IPv6 address.
pub const SERVER6_B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, 0x20);
/// Ports that servers and neighbours answer on, TCP and UDP.
pub const PORTS: [u16; 3] = [443, 8000, 8001];
/// The port to ask when it does not matter which.
pub const PORT: u16 = 8000;

impl Layout {
    /// The NIC's private address.
    pub fn address(self, nic: Nic) -> Ipv4Addr {
        self.in_subnet(
            nic,
            match nic {
                Nic::Eth0 => 8 + self.machine,
                Nic::Eth1 => 14 + self.machine,
            },
        )
    }

    /// The NIC's IPv6 address. There is no translation, the internet sees it.
    pub fn address6(self, nic: Nic) -> Ipv6Addr {
        self.in_subnet6(
            nic,
            match nic {
                Nic::Eth0 => 0x8 + u16::from(self.machine),
                Nic::Eth1 => 0x14 + u16::from(self.machine),
            },
        )
    }

    /// The elastic (public) address that the cloud maps to the NIC's private one.
    pub fn eip(self, nic: Nic) -> Ipv4Addr {
        let [a, b, c, d] = nic.eip().octets();
        Ipv4Addr::new(a, b, c, d + self.machine)
    }

    /// The other end of the NIC's wire, in the cloud.
    pub(crate) fn port(self, nic: Nic) -> String {
        match nic {
            Nic::Eth0 => format!("m{}nic0", self.machine),
            Nic::Eth1 => format!("m{}nic1", self.machine),
        }
    }

    /// The gateway of the NIC's subnet.
    pub fn gateway(self, nic: Nic) -> Ipv4Addr {
        self.in_subnet(nic, 1)
    }

    /// The IPv6 gateway of the NIC's subnet.
    pub fn gateway6(self, nic: Nic) -> Ipv6Addr {
        self.in_subnet6(nic, 1)
    }

    /// The IPv6 prefix of the NIC's subnet, of length 64.
    pub(crate) fn prefix6(self, nic: Nic) -> Ipv6Addr {
        self.in_subnet6(nic, 0)
    }

    /// A neighbour in the NIC's subnet.
    pub fn neighbour(self, nic: Nic) -> Ipv4Addr {
        self.in_subnet(nic, 50)
    }

    /// A neighbour in the NIC's subnet.
    pub fn neighbour6(self, nic: Nic) -> Ipv6Addr {
        self.in_subnet6(nic, 0x50)
    }

    /// A machine in the subnet of eth0 that is in nobody's way: a cluster's control plane.
    pub(crate) fn control(self) -> Ipv4Addr {
        self.in_subnet(Nic::Eth0, 40)
    }

    /// The IPv6 address of [`Layout::control`]'s machine.
    pub(crate) fn control6(self) -> Ipv6Addr {
        self.in_subnet6(Nic::Eth0, 0x40)
    }

    /// The addresses that the NIC may send from.
    pub fn own(self, nic: Nic) -> Vec<IpAddr> {
        vec![self.address(nic).into(), self.address6(nic).into()]
    }

    /// What the internet sees of a packet that left by the NIC with the NIC's own address, of the same family as `like`.
    pub fn public(self, nic: Nic, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.eip(nic).into(),
            IpAddr::V6(_) => self.address6(nic).into(),
        }
    }

    /// The NIC's own address of the same family as `like`.
    pub fn private(self, nic: Nic, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.address(nic).into(),
            IpAddr::V6(_) => self.address6(nic).into(),
        }
    }

    /// The bridge in the cloud that the NIC's wire ends on.
    pub(crate) fn segment(self, nic: Nic) -> &'static str {
        match (self.subnets, nic) {
            (Subnets::One, _) | (_, Nic::Eth0) => "subnet0",
            (Subnets::Two, Nic::Eth1) => "subnet1",
        }
    }

    /// One NIC of each subnet.
    pub(crate) fn first_of_each(self) -> &'static [Nic] {
        match self.subnets {
            Subnets::One => &[Nic::Eth0],
            Subnets::Two => &Nic::ALL,
        }
    }

    fn in_subnet(self, nic: Nic, host: u8) -> Ipv4Addr {
        match (self.subnets, nic) {
            (Subnets::One, _) | (_, Nic::Eth0) => Ipv4Addr::new(172, 31, 0, host),
            (Subnets::Two, Nic::Eth1) => Ipv4Addr::new(172, 31, 16, host),
        }
    }

    fn in_subnet6(self, nic: Nic, host: u16) -> Ipv6Addr {
        let subnet = match (self.subnets, nic) {
            (Subnets::One, _) => 0,
            (Subnets::Two, Nic::Eth0) => 1,
            (Subnets::Two, Nic::Eth1) => 2,
        };
        Ipv6Addr::new(0xfd31, 0, subnet, 0, 0, 0, 0, host)
    }
}
