//! Addresses of NICs that are ours, as netlink messages.

use ipnet::IpNet;
use nix::libc;

use super::routing::family_number;
use crate::contract::{ADDRESS_METRIC, PROTOCOL};
use crate::model::facts::{Family, IfIndex};
use crate::wire::{Message, number};

/// `IFA_FLAGS`.
pub const FLAGS: u16 = 8;
/// `IFA_RT_PRIORITY`, since Linux 4.18: metric of the route to the address's subnet.
const METRIC: u16 = 9;
/// `IFA_PROTO`, since Linux 5.18: who put it there.
const PROTO: u16 = 11;
const NEVER: u32 = u32::MAX;
/// `RT_SCOPE_HOST`.
const SCOPE_HOST: u8 = 254;

/// `ip address add ADDRESS/32 dev NIC`, so that nothing else becomes of it than a source for those who ask for it:
///
/// - It has no subnet. As a further address of the NIC's subnet it would go or be promoted with the first one (`promote_secondaries`), and be the
///   first one when that comes back.
/// - IPv4 chooses the source of the host's own calls, of masquerade and of multicast among addresses of global scope or the link's
///   (`inet_select_addr`): this one is of the host's. IPv6 prefers any address to one that is deprecated (RFC 6724, rule 3).
/// - It was probed for, so IPv6 need not wait for that again.
pub fn add(index: IfIndex, address: std::net::IpAddr) -> Message {
    let mut message = about(libc::RTM_NEWADDR, crate::wire::flags::CREATE | crate::wire::flags::EXCL, index, IpNet::from(address));
    let mut lifetimes = [0; 16];
    lifetimes[4..8].copy_from_slice(&NEVER.to_ne_bytes());
    message.put(libc::IFA_CACHEINFO, &lifetimes);
    message.put_u32(FLAGS, libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_NODAD);
    message.put_u32(METRIC, ADDRESS_METRIC);
    message.put(PROTO, &[PROTOCOL]);
    message
}

/// `ip address delete ADDRESS/LENGTH dev NIC`.
pub fn delete(index: IfIndex, net: IpNet) -> Message {
    about(libc::RTM_DELADDR, 0, index, net)
}

/// Whether an attribute of an address says that it is ours.
pub fn says_ours(kind: u16, value: &[u8]) -> bool {
    (kind == PROTO && value == [PROTOCOL]) || (kind == METRIC && number(value) == Some(ADDRESS_METRIC))
}

/// `ip address add ADDRESS/LENGTH dev NIC`, as anybody's.
pub fn plain(index: IfIndex, net: IpNet) -> Message {
    of_scope(libc::RTM_NEWADDR, crate::wire::flags::CREATE | crate::wire::flags::EXCL, index, net, 0)
}

fn about(kind: u16, flags: u16, index: IfIndex, net: IpNet) -> Message {
    of_scope(kind, flags, index, net, SCOPE_HOST)
}

fn of_scope(kind: u16, flags: u16, index: IfIndex, net: IpNet, scope: u8) -> Message {
    let mut fixed = [family_number(Family::of(net.addr())), net.prefix_len(), 0, scope, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &fixed);
    message.put_address(libc::IFA_LOCAL, net.addr());
    message.put_address(libc::IFA_ADDRESS, net.addr());
    message
}
