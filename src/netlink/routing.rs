//! Routes and policy rules as netlink messages, both ways: what is written here reads back the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::libc;

use super::{Message, Received, address, attributes, attributes_after, number};
use crate::model::facts::{Family, Route, RouteKind, Rule};

/// Length of `struct rtmsg` and of `struct fib_rule_hdr`, which are laid out alike.
const FIXED: usize = 12;
const RTAX_MTU: u16 = 2;
/// Lifetime of an IPv6 route in seconds, when it is added (Linux 4.5); read back, it is in `RTA_CACHEINFO`.
const RTA_EXPIRES: u16 = 23;
const RTA_VIA: u16 = 18;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
const RT_SCOPE_NOWHERE: u8 = 255;
/// `rta_cacheinfo.rta_expires` counts in these (`USER_HZ`).
const CLOCK_TICKS: u32 = 100;

const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
/// "No such suppressor".
const NONE: u32 = u32::MAX;

/// The message that asks for all routes of a family.
pub fn route_dump(family: Family) -> Message {
    Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &fixed(family, [0; 7]))
}

/// The message that asks for all policy rules of a family.
pub fn rule_dump(family: Family) -> Message {
    Message::new(libc::RTM_GETRULE, libc::NLM_F_DUMP, &fixed(family, [0; 7]))
}

/// Reads `RTM_NEWROUTE` and `RTM_DELROUTE`.
///
/// `None` for what never says where a workload's packet goes: the table of the host's own addresses (`local`), caches,
/// multicast, and link-local IPv6, of which the kernel keeps one route for each link.
pub fn route(message: &Received<'_>) -> Option<Route> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let [family, destination_length, _, _, table, protocol, scope, kind, flags @ ..] = *head;
    let flags = u32::from_ne_bytes(flags);
    let unspecified = unspecified(family_of(family)?);
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut destination = unspecified;
    let mut route = Route {
        table: u32::from(table),
        destination: IpNet::new(unspecified, 0).ok()?,
        kind: match kind {
            libc::RTN_UNICAST => RouteKind::Unicast,
            libc::RTN_UNREACHABLE => RouteKind::Unreachable,
            other => RouteKind::Other(other),
        },
        gateway: None,
        interface: None,
        metric: 0,
        source: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        mtu: None,
        scope,
        protocol,
        expires: None,
    };
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            libc::RTA_TABLE => route.table = number(value)?,
            libc::RTA_DST => destination = address(value)?,
            libc::RTA_GATEWAY => route.gateway = address(value),
            RTA_VIA => route.gateway = value.get(2..).and_then(address),
            libc::RTA_OIF => route.interface = number(value),
            libc::RTA_PRIORITY => route.metric = number(value)?,
            libc::RTA_PREFSRC => route.source = address(value),
            libc::RTA_METRICS => {
                route.mtu = attributes(value).find(|(kind, _)| *kind == RTAX_MTU).and_then(|(_, value)| number(value));
            }
            libc::RTA_CACHEINFO => {
                let ticks = value.get(8..).and_then(number).filter(|ticks| *ticks != 0);
                route.expires = ticks.map(|ticks| ticks / CLOCK_TICKS);
            }
            _ => {}
        }
    }
    // IPv6 hangs its unreachable routes on the loopback device.
    if route.kind == RouteKind::Unreachable {
        route.interface = None;
    }
    route.destination = IpNet::new(destination, destination_length).ok()?;
    (route.table != u32::from(libc::RT_TABLE_LOCAL) && !is_for_the_link_only(destination)).then_some(route)
}

/// Reads `RTM_NEWRULE` and `RTM_DELRULE`. A rule that does not look up a table has table 0.
pub fn rule(message: &Received<'_>) -> Option<Rule> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let [family, _, source_length, _, table, _, _, action, ..] = *head;
    let mut rule = Rule {
        family: family_of(family)?,
        preference: 0,
        mark: None,
        mask: None,
        from: None,
        table: u32::from(table),
        suppress_prefix_length: None,
        suppress_group: None,
        protocol: 0,
    };
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            FRA_PRIORITY => rule.preference = number(value)?,
            FRA_FWMARK => rule.mark = number(value),
            FRA_FWMASK => rule.mask = number(value),
            FRA_SRC => rule.from = IpNet::new(address(value)?, source_length).ok(),
            FRA_TABLE => rule.table = number(value)?,
            FRA_SUPPRESS_PREFIXLEN => rule.suppress_prefix_length = number(value).filter(|n| *n != NONE),
            FRA_SUPPRESS_IFGROUP => rule.suppress_group = number(value).filter(|n| *n != NONE),
            FRA_PROTOCOL => rule.protocol = value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    if action != FR_ACT_TO_TBL {
        rule.table = 0;
    }
    Some(rule)
}

/// Writes a route, to be added or (with `RTM_DELROUTE`) to be taken away.
pub fn write_route(kind: u16, flags: i32, route: &Route) -> Message {
    let family = family_of_address(route.destination.addr());
    let deleted = kind == libc::RTM_DELROUTE;
    // IPv6 has no scopes; for a deletion "nowhere" is IPv4's word for "whatever it is".
    let scope = match family {
        Family::V6 => 0,
        Family::V4 if deleted => RT_SCOPE_NOWHERE,
        Family::V4 => route.scope,
    };
    let what = match route.kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Other(other) => other,
    };
    let length = route.destination.prefix_len();
    let mut head = fixed(family, [length, 0, 0, libc::RT_TABLE_UNSPEC, route.protocol, scope, what]);
    if route.onlink {
        head[8..].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &head);
    message.put_u32(libc::RTA_TABLE, route.table);
    if length > 0 {
        message.put_address(libc::RTA_DST, route.destination.network());
    }
    if let Some(gateway) = route.gateway {
        write_gateway(&mut message, family, gateway);
    }
    if let Some(interface) = route.interface {
        message.put_u32(libc::RTA_OIF, interface);
    }
    message.put_u32(libc::RTA_PRIORITY, route.metric);
    if let Some(source) = route.source {
        message.put_address(libc::RTA_PREFSRC, source);
    }
    if let Some(mtu) = route.mtu {
        message.nest(libc::RTA_METRICS, |metrics| metrics.put_u32(RTAX_MTU, mtu));
    }
    if let (Some(expires), Family::V6, false) = (route.expires, family, deleted) {
        message.put_u32(RTA_EXPIRES, expires);
    }
    message
}

/// Writes a policy rule, to be added or (with `RTM_DELRULE`) to be taken away.
pub fn write_rule(kind: u16, flags: i32, rule: &Rule) -> Message {
    let source_length = rule.from.map_or(0, |net| net.prefix_len());
    let head = fixed(rule.family, [0, source_length, 0, libc::RT_TABLE_UNSPEC, 0, 0, FR_ACT_TO_TBL]);
    let mut message = Message::new(kind, flags, &head);
    message.put_u32(FRA_PRIORITY, rule.preference);
    message.put_u32(FRA_TABLE, rule.table);
    message.put(FRA_PROTOCOL, &[rule.protocol]);
    if let Some(from) = rule.from {
        message.put_address(FRA_SRC, from.network());
    }
    let numbers = [
        (FRA_FWMARK, rule.mark),
        (FRA_FWMASK, rule.mask),
        (FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix_length),
        (FRA_SUPPRESS_IFGROUP, rule.suppress_group),
    ];
    for (kind, value) in numbers {
        if let Some(value) = value {
            message.put_u32(kind, value);
        }
    }
    message
}

/// An IPv4 route may have an IPv6 gateway (`RTA_VIA`, RFC 5549).
fn write_gateway(message: &mut Message, family: Family, gateway: IpAddr) {
    if family_of_address(gateway) == family {
        return message.put_address(libc::RTA_GATEWAY, gateway);
    }
    let mut via = u16::from(family_number(family_of_address(gateway))).to_ne_bytes().to_vec();
    match gateway {
        IpAddr::V4(a) => via.extend(a.octets()),
        IpAddr::V6(a) => via.extend(a.octets()),
    }
    message.put(RTA_VIA, &via);
}

fn fixed(family: Family, rest: [u8; 7]) -> [u8; FIXED] {
    let mut head = [0; FIXED];
    head[0] = family_number(family);
    head[1..8].copy_from_slice(&rest);
    head
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

fn family_of_address(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn is_for_the_link_only(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(a) => a.is_multicast(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}
