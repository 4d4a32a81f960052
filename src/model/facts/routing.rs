//! Routes and policy rules of this network namespace.

use std::iter::once;
use std::net::IpAddr;

use ipnet::IpNet;

use super::link::IfIndex;
use crate::contract::{FLAG, FLAG_MASK};
use crate::model::address::Family;

/// `RTAX_MTU`.
const MTU: u16 = 2;

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    Unicast,
    Unreachable,
    Blackhole,
    Prohibit,
    /// The table has no route: the next policy rule is asked.
    Throw,
    /// Local, broadcast, multicast, ... (`RTN_*`).
    Other(u8),
}

/// One of several next hops of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub gateway: Option<IpAddr>,
    pub interface: Option<IfIndex>,
    /// Its share among all; at least 1.
    pub weight: u16,
    /// The gateway counts as reachable by the interface though no address there says so.
    pub onlink: bool,
}

/// One route; two routes are the same when all fields but `expires` are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub destination: IpNet,
    /// The sources that it holds for, if not for all (IPv6 only: `RTA_SRC`).
    pub from: Option<IpNet>,
    /// The type of service that it holds for; 0: all (IPv4 only).
    pub tos: u8,
    pub kind: RouteKind,
    /// Gateway and interface of a route with one next hop; `None` when there are several.
    pub gateway: Option<IpAddr>,
    pub interface: Option<IfIndex>,
    /// Priority; the kernel's default for IPv6 is 1024.
    pub metric: u32,
    /// Of routers with one metric the one that is preferred: 1 high, 0 medium, -1 low (`RTA_PREF`, RFC 4191).
    pub router_preference: i8,
    pub source: Option<IpAddr>,
    pub onlink: bool,
    /// All next hops of a route that has several, from the route itself (`RTA_MULTIPATH`) or from the nexthop object that it names (`RTA_NH_ID`).
    pub next_hops: Vec<NextHop>,
    /// Its packets are encapsulated (`RTA_ENCAP`), which is not read further: it cannot be copied.
    pub encap: bool,
    /// The numbers that TCP and path MTU go by (`RTAX_*`), in the order of their kinds. The congestion control's name (`RTAX_CC_ALGO`) is left
    /// out: it is about the host's own sockets.
    pub metrics: Vec<(u16, u32)>,
    /// `RT_SCOPE_*`; 253 is link, 0 universe.
    pub scope: u8,
    pub protocol: u8,
    /// Seconds it has to live when it was read (routes by router advertisement).
    pub expires: Option<u32>,
}

impl Route {
    /// A unicast route with nothing said of where it leads.
    pub fn new(table: u32, destination: IpNet) -> Self {
        Self {
            table,
            destination,
            from: None,
            tos: 0,
            kind: RouteKind::Unicast,
            gateway: None,
            interface: None,
            router_preference: 0,
            metric: 0,
            source: None,
            onlink: false,
            next_hops: Vec::new(),
            encap: false,
            metrics: Vec::new(),
            scope: 0,
            protocol: 0,
            expires: None,
        }
    }

    /// Gateway, interface and whether the gateway counts as on the link, of the one next hop or of each.
    pub fn hops(&self) -> impl Iterator<Item = (Option<IpAddr>, Option<IfIndex>, bool)> {
        let single = self.next_hops.is_empty().then_some((self.gateway, self.interface, self.onlink));
        single.into_iter().chain(self.next_hops.iter().map(|hop| (hop.gateway, hop.interface, hop.onlink)))
    }

    /// `RTAX_MTU`.
    pub fn mtu(&self) -> Option<u32> {
        self.metrics.iter().find(|(kind, _)| *kind == MTU).map(|(_, value)| *value)
    }

    /// Metrics of a route that has an MTU and nothing else.
    pub fn mtu_only(mtu: Option<u32>) -> Vec<(u16, u32)> {
        mtu.map(|mtu| (MTU, mtu)).into_iter().collect()
    }

    /// Takes the next hops in; a single one stands in the route's own fields.
    pub fn set_hops(&mut self, mut hops: Vec<NextHop>) {
        (self.gateway, self.interface, self.onlink) = match hops.as_slice() {
            [one] => (one.gateway, one.interface, one.onlink),
            _ => (None, None, false),
        };
        if hops.len() == 1 {
            hops.clear();
        }
        self.next_hops = hops;
    }

    /// All interfaces that it leads to.
    pub fn interfaces(&self) -> impl Iterator<Item = IfIndex> {
        self.next_hops.iter().map(|hop| hop.interface).chain(once(self.interface)).flatten()
    }
}

/// What a policy rule does with what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Looks its table up.
    Table,
    /// Goes on at the rule with this preference.
    Goto(u32),
    Nop,
    Blackhole,
    Unreachable,
    Prohibit,
    /// `FR_ACT_*` that this program does not know.
    Other(u8),
}

/// One policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub family: Family,
    pub preference: u32,
    pub mark: Option<u32>,
    pub mask: Option<u32>,
    pub from: Option<IpNet>,
    pub to: Option<IpNet>,
    /// Name of the interface that the packet came in by; `lo` is said of the host's own packets.
    pub iif: Option<String>,
    /// Name of the interface that the socket is bound to.
    pub oif: Option<String>,
    /// It holds for what does *not* match (`FIB_RULE_INVERT`).
    pub not: bool,
    /// It looks up the table of the packet's VRF, and holds for such packets only.
    pub l3mdev: bool,
    /// It selects by more than is said above: type of service, ports, IP protocol, users, a tunnel's id.
    pub other: bool,
    /// The IP protocol among that, by its IANA number.
    pub ip_protocol: Option<u8>,
    /// The source ports, first and last.
    pub source_ports: Option<(u16, u16)>,
    pub action: RuleAction,
    /// Table to look up; 0 when it looks up none, or that of a VRF.
    pub table: u32,
    pub suppress_prefix_length: Option<u32>,
    pub suppress_group: Option<u32>,
    pub protocol: u8,
}

impl Rule {
    /// Mark and mask that a packet's mark has to have; a mask of 0 matches every packet.
    pub fn selected_mark(&self) -> (u32, u32) {
        let mark = self.mark.unwrap_or(0);
        (mark, self.mask.unwrap_or(if mark == 0 { 0 } else { u32::MAX }))
    }

    /// Whether some packet with a mark of ours, and perhaps a known neighbour's, has the mark that it asks for.
    pub fn fits_ours(&self) -> bool {
        let (mark, mask) = self.selected_mark();
        mark & mask & FLAG_MASK == FLAG & mask
    }

    /// A rule that looks up a table for every packet.
    pub fn new(family: Family, preference: u32, table: u32) -> Self {
        Self {
            family,
            preference,
            mark: None,
            mask: None,
            from: None,
            to: None,
            iif: None,
            oif: None,
            not: false,
            l3mdev: false,
            other: false,
            ip_protocol: None,
            source_ports: None,
            action: RuleAction::Table,
            table,
            suppress_prefix_length: None,
            suppress_group: None,
            protocol: 0,
        }
    }
}
