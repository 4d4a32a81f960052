//! Routes as netlink messages, both ways: what is written here reads back the same. `netlink-packet-route` writes; why it does not read is in
//! ARCHITECTURE.md.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteScope,
    RouteType,
};
use nix::libc;

use super::nexthop::{self, Objects, RTNH_F_ONLINK};
use crate::model::facts::{Family, NextHop, Route, RouteKind};
use crate::wire::{self, Message, Received, address, attributes, attributes_after, number};

/// Length of `struct rtmsg`.
const FIXED: usize = 12;
/// Length of `struct rtnexthop`: length, flags, weight less one, interface.
const HOP_FIXED: usize = 8;
const RTA_NH_ID: u16 = 30;
const RTA_PREF: u16 = 20;
/// A text, unlike all other metrics.
const RTAX_CC_ALGO: u16 = 16;
const RTM_F_CLONED: u32 = 0x200;
const RT_SCOPE_NOWHERE: u8 = 255;
/// `rta_cacheinfo.rta_expires` counts in these (`USER_HZ`).
const CLOCK_TICKS: u32 = 100;

/// A route as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRoute {
    route: Route,
    /// The nexthop object that it names.
    object: Option<u32>,
}

impl ReadRoute {
    /// Whether it names a nexthop object, and says nothing else of where it leads.
    pub fn leads_to_an_object(&self) -> bool {
        self.object.is_some() && self.route.kind == RouteKind::Unicast && self.route.interfaces().next().is_none()
    }

    /// The route, with the next hops of its nexthop object.
    pub fn resolve(self, objects: &Objects) -> Route {
        let led = self.leads_to_an_object();
        let mut route = self.route;
        if let Some(id) = self.object.filter(|_| led) {
            let (hops, encap) = nexthop::hops(objects, id);
            route.set_hops(hops);
            route.encap |= encap;
        }
        route
    }
}

/// The message that asks for all routes of a family.
pub fn dump(family: Family) -> Message {
    let mut head = [0; FIXED];
    head[0] = family_number(family);
    Message::new(libc::RTM_GETROUTE, wire::flags::DUMP, &head)
}

/// Reads `RTM_NEWROUTE` and `RTM_DELROUTE`.
///
/// `None` for what never says where a workload's packet goes: the table of the host's own addresses (`local`), caches,
/// multicast, and link-local IPv6, of which the kernel keeps one route for each link.
pub fn route(message: &Received<'_>) -> Option<ReadRoute> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let [family, destination_length, source_length, tos, table, protocol, scope, kind, flags @ ..] = *head;
    let flags = u32::from_ne_bytes(flags);
    let mut destination = family_of(family)?.unspecified();
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut route = Route {
        tos,
        kind: kind_of(kind),
        onlink: flags & RTNH_F_ONLINK != 0,
        scope,
        protocol,
        ..Route::new(u32::from(table), IpNet::new(destination, 0).ok()?)
    };
    let (mut hops, mut object) = (Vec::new(), None);
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            libc::RTA_TABLE => route.table = number(value)?,
            libc::RTA_DST => destination = address(value)?,
            libc::RTA_SRC => route.from = IpNet::new(address(value)?, source_length).ok(),
            libc::RTA_OIF => route.interface = number(value),
            libc::RTA_MULTIPATH => hops = read_hops(value, &mut route.encap),
            libc::RTA_PRIORITY => route.metric = number(value)?,
            libc::RTA_PREFSRC => route.source = address(value),
            libc::RTA_ENCAP => route.encap = true,
            RTA_PREF => route.router_preference = value.first().map_or(0, |bits| router_preference(*bits)),
            RTA_NH_ID => object = number(value),
            libc::RTA_METRICS => {
                let numbers = attributes(value).filter(|(kind, _)| *kind != RTAX_CC_ALGO);
                route.metrics = numbers.filter_map(|(kind, value)| Some((kind, number(value)?))).collect();
            }
            libc::RTA_CACHEINFO => {
                let ticks = value.get(8..).and_then(number).filter(|ticks| *ticks != 0);
                route.expires = ticks.map(|ticks| ticks / CLOCK_TICKS);
            }
            _ => route.gateway = gateway(kind, value).or(route.gateway),
        }
    }
    if !hops.is_empty() {
        route.set_hops(hops);
    }
    // IPv6 hangs such routes on the loopback device.
    if matches!(route.kind, RouteKind::Unreachable | RouteKind::Blackhole | RouteKind::Prohibit | RouteKind::Throw) {
        route.interface = None;
    }
    route.destination = IpNet::new(destination, destination_length).ok()?;
    let matters = route.table != u32::from(libc::RT_TABLE_LOCAL) && !is_for_the_link_only(destination);
    matters.then_some(ReadRoute { route, object })
}

/// Two bits with a sign; the value that is reserved counts as medium (RFC 4191, 2.1).
fn router_preference(bits: u8) -> i8 {
    match bits & 3 {
        1 => 1,
        3 => -1,
        _ => 0,
    }
}

/// The next hops in `RTA_MULTIPATH`.
fn read_hops(mut bytes: &[u8], encap: &mut bool) -> Vec<NextHop> {
    let mut hops = Vec::new();
    while let Some(&[a, b, flags, weight, ref interface @ ..]) = bytes.first_chunk::<HOP_FIXED>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(inside) = bytes.get(HOP_FIXED..length) else { break };
        let mut hop = NextHop {
            gateway: None,
            interface: Some(u32::from_ne_bytes(*interface)).filter(|index| *index != 0),
            weight: u16::from(weight) + 1,
            onlink: u32::from(flags) & RTNH_F_ONLINK != 0,
        };
        for (kind, value) in attributes(inside) {
            *encap |= kind == libc::RTA_ENCAP;
            hop.gateway = gateway(kind, value).or(hop.gateway);
        }
        hops.push(hop);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// The gateway in an attribute, if it is one. An IPv4 route may have an IPv6 gateway (`RTA_VIA`, RFC 5549).
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => address(value),
        libc::RTA_VIA => value.get(2..).and_then(address),
        _ => None,
    }
}

/// Writes a route, to be added or (with `RTM_DELROUTE`) to be taken away. The next hops of a nexthop object are written as the route's own.
pub fn write(kind: u16, flags: u16, route: &Route) -> Message {
    let family = Family::of(route.destination.addr());
    let deleted = kind == libc::RTM_DELROUTE;
    // IPv6 has no scopes; for a deletion "nowhere" is IPv4's word for "whatever it is".
    let scope = match family {
        Family::V6 => 0,
        Family::V4 if deleted => RT_SCOPE_NOWHERE,
        Family::V4 => route.scope,
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::from(family_number(family)),
        destination_prefix_length: route.destination.prefix_len(),
        source_prefix_length: route.from.map_or(0, |net| net.prefix_len()),
        tos: route.tos,
        table: RouteHeader::RT_TABLE_UNSPEC,
        protocol: RouteProtocol::from(route.protocol),
        scope: RouteScope::from(scope),
        kind: RouteType::from(number_of(route.kind)),
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    attributes.extend(route.from.map(|from| RouteAttribute::Source(from.network().into())));
    attributes.extend(route.gateway.map(|gateway| to_gateway(family, gateway)));
    attributes.extend(route.interface.map(RouteAttribute::Oif));
    if !route.next_hops.is_empty() {
        attributes.push(RouteAttribute::MultiPath(route.next_hops.iter().map(|hop| to_hop(family, hop)).collect()));
    }
    attributes.push(RouteAttribute::Priority(route.metric));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    if !route.metrics.is_empty() {
        let metric = |(kind, value): &(u16, u32)| RouteMetric::Other(DefaultNla::new(*kind, value.to_ne_bytes().to_vec()));
        attributes.push(RouteAttribute::Metrics(route.metrics.iter().map(metric).collect()));
    }
    attributes.extend(route.expires.filter(|_| family == Family::V6 && !deleted).map(RouteAttribute::Expires));
    super::message(kind, flags, &message)
}

fn to_hop(family: Family, hop: &NextHop) -> RouteNextHop {
    let mut to = RouteNextHop::default();
    to.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    to.interface_index = hop.interface.unwrap_or_default();
    if hop.onlink {
        to.flags = RouteNextHopFlags::Onlink;
    }
    to.attributes.extend(hop.gateway.map(|gateway| to_gateway(family, gateway)));
    to
}

fn to_gateway(family: Family, gateway: IpAddr) -> RouteAttribute {
    match Family::of(gateway) == family {
        true => RouteAttribute::Gateway(gateway.into()),
        false => RouteAttribute::Via(gateway.into()),
    }
}

fn kind_of(number: u8) -> RouteKind {
    match number {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

fn number_of(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Blackhole => libc::RTN_BLACKHOLE,
        RouteKind::Prohibit => libc::RTN_PROHIBIT,
        RouteKind::Throw => libc::RTN_THROW,
        RouteKind::Other(other) => other,
    }
}

/// `AF_INET`, `AF_INET6`.
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// The family of this number, if it is one of the two.
pub fn family_of(number: u8) -> Option<Family> {
    match i32::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

fn is_for_the_link_only(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(a) => a.is_multicast(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}
