//! Links, addresses and namespace numbers as the kernel's messages say them.

use std::sync::Arc;

use ipnet::IpNet;
use nix::libc;

use crate::api::isolated;
use crate::model::facts::{Address, IfIndex, Link, LinkKind, Place};
use crate::netlink::address as own;
use crate::netlink::link::{ALIAS, by_index};
use crate::wire::{Message, Received, address, attributes_after, find, flags, lossy, number, text};

/// Length of `struct ifinfomsg`.
const LINK_FIXED: usize = 16;
/// Length of `struct ifaddrmsg`.
const ADDRESS_FIXED: usize = 8;
/// Length of `struct netconfmsg`, with its padding.
const NETCONF_FIXED: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
/// Length of `struct rtgenmsg`, with its padding.
const NSID_FIXED: usize = 4;
const ARPHRD_LOOPBACK: u16 = 772;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFA_TARGET_NETNSID: u16 = 10;
const NETNSA_NSID: u16 = 1;
const NETNSA_PID: u16 = 2;
const NETNSA_FD: u16 = 3;
/// `NETNSA_NSID_NOT_ASSIGNED`; in a request for a number: "any".
const NSID_NONE: i32 = -1;

/// A link that left: its index, and when it was moved to another namespace the index of its other end (of a veth).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub index: IfIndex,
    pub moved_from_peer: Option<IfIndex>,
}

/// The message that asks for all links, without their counters.
pub fn link_dump() -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, flags::DUMP, &[0; LINK_FIXED]);
    message.put_u32(libc::IFLA_EXT_MASK, libc::RTEXT_FILTER_SKIP_STATS as u32);
    message
}

/// The message that asks for one link.
pub fn link_get(index: IfIndex) -> Message {
    let mut message = by_index(index);
    message.put_u32(libc::IFLA_EXT_MASK, libc::RTEXT_FILTER_SKIP_STATS as u32);
    message
}

/// The message that asks for the addresses of this namespace, or of one interface in another.
pub fn address_dump(place: Option<Place>) -> Message {
    let mut head = [0; ADDRESS_FIXED];
    if let Some(place) = place {
        head[4..8].copy_from_slice(&place.index.to_ne_bytes());
    }
    let mut message = Message::new(libc::RTM_GETADDR, flags::DUMP, &head);
    if let Some(nsid) = place.and_then(|place| place.nsid) {
        message.put(IFA_TARGET_NETNSID, &nsid.to_ne_bytes());
    }
    message
}

/// A network namespace, as a question about its number names it.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// The one of an open file.
    File(u32),
    /// The one that a process is in. Unlike opening its file below `/proc`, this asks for no right to trace the process.
    Process(u32),
}

impl Whose {
    fn put(self, message: &mut Message) {
        match self {
            Self::File(fd) => message.put_u32(NETNSA_FD, fd),
            Self::Process(pid) => message.put_u32(NETNSA_PID, pid),
        }
    }
}

/// The message that asks which number this namespace has here.
pub fn nsid_get(whose: Whose) -> Message {
    let mut message = Message::new(libc::RTM_GETNSID, 0, &[0; NSID_FIXED]);
    whose.put(&mut message);
    message
}

/// The message that gives a number to this namespace.
pub fn nsid_new(whose: Whose) -> Message {
    let mut message = Message::new(libc::RTM_NEWNSID, 0, &[0; NSID_FIXED]);
    whose.put(&mut message);
    message.put(NETNSA_NSID, &NSID_NONE.to_ne_bytes());
    message
}

/// Reads `RTM_NEWLINK`. `None` for what a bridge says of its ports (`AF_BRIDGE`).
pub fn link(message: &Received<'_>) -> Option<Link> {
    let head: &[u8; LINK_FIXED] = message.payload.get(..LINK_FIXED)?.try_into().ok()?;
    if i32::from(head[0]) != libc::AF_UNSPEC {
        return None;
    }
    let state = i32::from_ne_bytes(head[8..12].try_into().ok()?);
    let device_type = u16::from_ne_bytes([head[2], head[3]]);
    let (mut kind, mut vrf_table) = (String::new(), None);
    let (mut other_end, mut nsid) = (None, None);
    let mut link = Link {
        up: state & libc::IFF_UP != 0,
        carrier: state & libc::IFF_LOWER_UP != 0,
        point_to_point: state & libc::IFF_POINTOPOINT != 0,
        no_arp: state & libc::IFF_NOARP != 0,
        ..Link::new(u32::from_ne_bytes(head[4..8].try_into().ok()?), "", LinkKind::Loopback)
    };
    for (attribute, value) in attributes_after(message.payload, LINK_FIXED) {
        match attribute {
            libc::IFLA_IFNAME => link.name = lossy(value),
            libc::IFLA_MASTER => link.master = number(value),
            ALIAS => link.isolated = text(value).and_then(isolated::read).map(Arc::new),
            libc::IFLA_GROUP => link.group = number(value).unwrap_or_default(),
            libc::IFLA_LINK => other_end = number(value).filter(|other| *other != 0),
            libc::IFLA_LINK_NETNSID => nsid = signed(value),
            libc::IFLA_LINKINFO => {
                kind = find(value, libc::IFLA_INFO_KIND).map(lossy).unwrap_or_default();
                let port = find(value, libc::IFLA_INFO_SLAVE_KIND).and_then(text).filter(|kind| *kind == "bridge");
                let mode = port.and_then(|_| find(find(value, libc::IFLA_INFO_SLAVE_DATA)?, IFLA_BRPORT_MODE));
                link.hairpin = mode.is_some_and(|mode| mode != [0]);
                vrf_table = find(value, libc::IFLA_INFO_DATA).and_then(|data| find(data, IFLA_VRF_TABLE)).and_then(number);
            }
            _ => {}
        }
    }
    link.kind = if device_type == ARPHRD_LOOPBACK { LinkKind::Loopback } else { link_kind(kind) };
    match link.kind {
        LinkKind::Veth => {
            link.peer_index = other_end;
            link.peer_nsid = nsid.filter(|nsid| *nsid >= 0);
        }
        LinkKind::Vrf => link.vrf = vrf_table,
        _ => {}
    }
    link.lower = other_end.filter(|other| nsid.is_none() && *other != link.index);
    Some(link)
}

/// Reads `RTM_NEWLINK` of a bridge: which port it is of, and whether that is in hairpin mode. Where only that changes, nothing else tells of it.
pub fn hairpin(message: &Received<'_>) -> Option<(IfIndex, bool)> {
    let head: &[u8; LINK_FIXED] = message.payload.get(..LINK_FIXED)?.try_into().ok()?;
    if i32::from(head[0]) != libc::AF_BRIDGE {
        return None;
    }
    let port = find(message.payload.get(LINK_FIXED..)?, libc::IFLA_PROTINFO)?;
    Some((u32::from_ne_bytes(head[4..8].try_into().ok()?), *find(port, IFLA_BRPORT_MODE)?.first()? != 0))
}

fn link_kind(name: String) -> LinkKind {
    match name.as_str() {
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth,
        "dummy" => LinkKind::Dummy,
        "vrf" => LinkKind::Vrf,
        "bond" => LinkKind::Bond,
        "vlan" => LinkKind::Vlan,
        "macvlan" => LinkKind::Macvlan,
        "ipvlan" => LinkKind::Ipvlan,
        "wireguard" => LinkKind::Wireguard,
        "tun" => LinkKind::Tun,
        _ => LinkKind::Other(name),
    }
}

/// Reads `RTM_DELLINK`. `None` when a port only left its bridge (`AF_BRIDGE`).
pub fn link_left(message: &Received<'_>) -> Option<Left> {
    let link = link(message)?;
    let moved =
        attributes_after(message.payload, LINK_FIXED).any(|(kind, _)| kind == libc::IFLA_NEW_NETNSID || kind == libc::IFLA_NEW_IFINDEX);
    Some(Left { index: link.index, moved_from_peer: link.peer_index.filter(|_| moved) })
}

/// Reads `RTM_NEWADDR` and `RTM_DELADDR`: the interface and the address. `None` for link-local IPv6 addresses: they
/// never leave a link, and every veth has some.
pub fn interface_address(message: &Received<'_>) -> Option<(IfIndex, Address)> {
    let head: &[u8; ADDRESS_FIXED] = message.payload.get(..ADDRESS_FIXED)?.try_into().ok()?;
    let [_, length, short_flags, scope, index @ ..] = *head;
    let (mut flags, mut local, mut any, mut ours, mut added) = (u32::from(short_flags), None, None, false, 0);
    for (kind, value) in attributes_after(message.payload, ADDRESS_FIXED) {
        match kind {
            // On a point-to-point link IFA_ADDRESS is the other end's.
            libc::IFA_LOCAL => local = address(value),
            libc::IFA_ADDRESS => any = address(value),
            // Two lifetimes, then when it was added, and when it was changed.
            libc::IFA_CACHEINFO => added = value.get(8..12).and_then(number).unwrap_or(added),
            own::FLAGS => flags = number(value).unwrap_or(flags),
            _ => ours |= own::says_ours(kind, value),
        }
    }
    let net = IpNet::new(local.or(any)?, length).ok()?;
    let unproven = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0;
    // One bit with two names: IPv6 has no secondary addresses.
    let second = flags & libc::IFA_F_SECONDARY != 0;
    let address = Address {
        net,
        usable: !unproven || flags & libc::IFA_F_OPTIMISTIC != 0,
        primary: !second,
        temporary: second && net.addr().is_ipv6(),
        deprecated: flags & libc::IFA_F_DEPRECATED != 0,
        peer: any.filter(|any| *any != net.addr()),
        scope,
        ours,
        added,
    };
    let link_local = matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    (!link_local).then_some((u32::from_ne_bytes(index), address))
}

/// Whether `RTM_NEWNETCONF` tells of a change of forwarding or of `rp_filter`. A new link has a message that tells all of its settings: it is
/// no change.
pub fn setting_changed(message: &Received<'_>) -> bool {
    let mut settings = attributes_after(message.payload, NETCONF_FIXED).map(|(kind, _)| kind).filter(|kind| *kind != NETCONFA_IFINDEX);
    matches!((settings.next(), settings.next()), (Some(NETCONFA_FORWARDING | NETCONFA_RP_FILTER), None))
}

/// Reads the number in `RTM_NEWNSID` and `RTM_DELNSID`; `None` when the namespace has none.
pub fn nsid(message: &Received<'_>) -> Option<i32> {
    attributes_after(message.payload, NSID_FIXED)
        .find(|(kind, _)| *kind == NETNSA_NSID)
        .and_then(|(_, value)| signed(value))
        .filter(|nsid| *nsid != NSID_NONE)
}

fn signed(value: &[u8]) -> Option<i32> {
    number(value).map(u32::cast_signed)
}
