//! Links and addresses.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::isolated::Isolated;

/// An interface index of this network namespace. The kernel gives no index twice while it runs.
pub type IfIndex = u32;

/// What a link is, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Bridge,
    Veth,
    Loopback,
    Dummy,
    Vrf,
    Bond,
    Vlan,
    Macvlan,
    Ipvlan,
    Wireguard,
    /// A tun or tap device of some program.
    Tun,
    /// A NIC, or anything else (the `IFLA_INFO_KIND`, empty for hardware).
    Other(String),
}

/// One link of this network namespace (`RTM_NEWLINK`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: IfIndex,
    pub name: String,
    pub kind: LinkKind,
    /// The bridge (or VRF, bond) that it is a port of.
    pub master: Option<IfIndex>,
    /// As a port of a bridge: frames may leave by the port that they came in by (`IFLA_BRPORT_MODE`).
    pub hairpin: bool,
    /// For a veth: the peer's namespace (`IFLA_LINK_NETNSID`), when it is another one, and the peer's index there (`IFLA_LINK`).
    pub peer_nsid: Option<i32>,
    pub peer_index: Option<u32>,
    /// The link of this namespace that it is built upon (the NIC of a VLAN or macvlan, the device of most tunnels; `IFLA_LINK`), or a veth's
    /// peer that is in this namespace, too.
    pub lower: Option<IfIndex>,
    /// The table of a VRF device.
    pub vrf: Option<u32>,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`: there is a carrier.
    pub carrier: bool,
    /// `IFF_POINTOPOINT`: the other end is the only neighbour, so that a route needs no gateway.
    pub point_to_point: bool,
    /// `IFF_NOARP`: no neighbour is asked for its address.
    pub no_arp: bool,
    pub group: u32,
    /// Of a veth that leads to a program of `egressd exec --namespace`: what its alias says (`IFLA_IFALIAS`).
    pub isolated: Option<Arc<Isolated>>,
}

impl Link {
    /// A link that is down, with nothing else said of it.
    pub fn new(index: IfIndex, name: impl Into<String>, kind: LinkKind) -> Self {
        Self {
            index,
            name: name.into(),
            kind,
            master: None,
            hairpin: false,
            peer_nsid: None,
            peer_index: None,
            lower: None,
            vrf: None,
            up: false,
            carrier: false,
            point_to_point: false,
            no_arp: false,
            group: 0,
            isolated: None,
        }
    }

    /// Where the other end of a veth is, when that is another namespace.
    pub fn far_end(&self) -> Option<Place> {
        Some(Place { nsid: Some(self.peer_nsid?), index: self.peer_index? })
    }
}

/// An address in some network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Address with the prefix length of its interface.
    pub net: IpNet,
    /// False while it is tentative or a duplicate (`IFA_F_TENTATIVE`, `IFA_F_DADFAILED`) without `IFA_F_OPTIMISTIC`.
    pub usable: bool,
    /// Not `IFA_F_SECONDARY`: no further one of its subnet (IPv4), and none that is `temporary` (IPv6).
    pub primary: bool,
    /// One of IPv6's addresses for privacy, which is replaced within days (`IFA_F_TEMPORARY`).
    pub temporary: bool,
    /// Not for new connections any more (`IFA_F_DEPRECATED`).
    pub deprecated: bool,
    /// The other end's, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// `RT_SCOPE_*`; 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// egressd put it there.
    pub ours: bool,
    /// When it was added, in hundredths of a second since boot (`cstamp` of `IFA_CACHEINFO`); 0 where that is not told.
    pub added: u32,
}

impl Address {
    /// A usable address as `ip address add` makes one.
    pub fn new(net: IpNet) -> Self {
        Self { net, usable: true, primary: true, temporary: false, deprecated: false, peer: None, scope: 0, ours: false, added: 0 }
    }
}

/// Where an address is: `nsid` is `None` for this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub nsid: Option<i32>,
    pub index: u32,
}
