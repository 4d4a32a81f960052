//! Links as they are made, as netlink messages.

use ipnet::IpNet;
use nix::libc;

use super::address;
use crate::model::facts::{IfIndex, Mac, Place};
use crate::wire::{Message, Received, attributes_after, flags, number};

/// Length of `struct ifinfomsg`.
const FIXED: usize = 16;
/// `VETH_INFO_PEER`.
const PEER: u16 = 1;
/// `IFLA_IFALIAS`.
pub const ALIAS: u16 = 20;
/// `IFLA_TARGET_NETNSID`. Asks for `CAP_NET_ADMIN` there, and not for entering it.
const TARGET_NETNSID: u16 = 46;
/// `IF_OPER_UP`.
const OPERATIONAL: u8 = 6;

/// `ip link add NAME type veth peer name PEER netns FD`. A `%d` in the name is a number that the kernel chooses.
pub fn veth(name: &str, peer: &str, namespace: u32) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, flags::CREATE | flags::EXCL, &[0; FIXED]);
    message.put_text(libc::IFLA_IFNAME, name);
    message.nest(libc::IFLA_LINKINFO, |information| {
        information.put_text(libc::IFLA_INFO_KIND, "veth");
        information.nest(libc::IFLA_INFO_DATA, |data| {
            data.put_framed(PEER.to_ne_bytes(), |end| {
                end.put_fixed(&[0; FIXED]);
                end.put_text(libc::IFLA_IFNAME, peer);
                end.put_u32(libc::IFLA_NET_NS_FD, namespace);
            });
        });
    });
    message
}

/// The message that asks for a link by its name.
pub fn by_name(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, 0, &[0; FIXED]);
    message.put_text(libc::IFLA_IFNAME, name);
    message
}

/// The message that asks for a link by its index.
pub fn by_index(index: IfIndex) -> Message {
    about(libc::RTM_GETLINK, index, 0)
}

/// The message that asks for the other end of a veth, in the namespace with that number.
pub fn at(place: Place) -> Message {
    let mut message = by_index(place.index);
    place.nsid.iter().for_each(|nsid| message.put(TARGET_NETNSID, &nsid.to_ne_bytes()));
    message
}

/// The hardware address of an answer's link.
pub fn hardware_address(message: &Received<'_>) -> Option<Mac> {
    let address = attributes_after(message.payload, FIXED).find(|(kind, _)| *kind == libc::IFLA_ADDRESS)?;
    address.1.try_into().ok().map(Mac)
}

/// Whether the kernel has taken note of an answer's link having a carrier (RFC 2863). Until then it drops what is sent by it.
pub fn is_operational(message: &Received<'_>) -> bool {
    let state = attributes_after(message.payload, FIXED).find(|(kind, _)| *kind == libc::IFLA_OPERSTATE);
    state.is_some_and(|(_, state)| state.first() == Some(&OPERATIONAL))
}

/// Of a veth in an answer: its own index, and its peer's.
pub fn ends(message: &Received<'_>) -> Option<(IfIndex, IfIndex)> {
    let index = number(message.payload.get(4..8)?)?;
    let peer = attributes_after(message.payload, FIXED).find(|(kind, _)| *kind == libc::IFLA_LINK)?;
    Some((index, number(peer.1)?))
}

/// `ip link set dev INDEX alias TEXT`.
pub fn set_alias(index: IfIndex, text: &str) -> Message {
    let mut message = about(libc::RTM_NEWLINK, index, 0);
    message.put(ALIAS, text.as_bytes());
    message
}

/// `ip link set dev INDEX up`.
pub fn set_up(index: IfIndex) -> Message {
    about(libc::RTM_NEWLINK, index, libc::IFF_UP as u32)
}

/// `ip address add ADDRESS/LENGTH dev INDEX nodad`.
pub fn add_address(index: IfIndex, net: IpNet) -> Message {
    let mut message = address::plain(index, net);
    message.put_u32(address::FLAGS, libc::IFA_F_NODAD);
    message
}

/// `ip link delete dev INDEX`.
pub fn delete(index: IfIndex) -> Message {
    about(libc::RTM_DELLINK, index, 0)
}

fn about(kind: u16, index: IfIndex, turned_on: u32) -> Message {
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&turned_on.to_ne_bytes());
    fixed[12..16].copy_from_slice(&turned_on.to_ne_bytes());
    Message::new(kind, 0, &fixed)
}
