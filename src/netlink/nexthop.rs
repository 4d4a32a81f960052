//! Nexthop objects (`ip nexthop`): what a route that names one by its id leads to. They are only read.

use std::collections::HashMap;

use crate::model::facts::NextHop;
use crate::wire::{self, Message, Received, address, attributes_after, number};

/// `RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP` and `RTM_GETNEXTHOP`.
pub const NEW: u16 = 104;
pub const DELETE: u16 = 105;
const GET: u16 = 106;
/// Length of `struct nhmsg`.
const FIXED: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP: u16 = 8;
/// The gateway is on the link, whatever its address (`rtnetlink.h`).
pub const RTNH_F_ONLINK: u32 = 4;
/// Length of `struct nexthop_grp`: id, weight less one, its higher byte (Linux 6.12), reserve.
const MEMBER: usize = 8;

/// All objects by their ids.
pub type Objects = HashMap<u32, Object>;

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Itself as a next hop; a group has none of that.
    hop: NextHop,
    encap: bool,
    /// Ids and weights of a group's members.
    members: Vec<(u32, u16)>,
}

/// The message that asks for all objects.
pub fn dump() -> Message {
    Message::new(GET, wire::flags::DUMP, &[0; FIXED])
}

/// Reads `RTM_NEWNEXTHOP`: the id, and what has it.
pub fn object(message: &Received<'_>) -> Option<(u32, Object)> {
    let flags = number(message.payload.get(4..FIXED)?)?;
    let mut id = None;
    let hop = NextHop { gateway: None, interface: None, weight: 1, onlink: flags & RTNH_F_ONLINK != 0 };
    let mut object = Object { hop, encap: false, members: Vec::new() };
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            NHA_ID => id = number(value),
            NHA_GROUP => object.members = value.chunks_exact(MEMBER).filter_map(member).collect(),
            NHA_OIF => object.hop.interface = number(value),
            NHA_GATEWAY => object.hop.gateway = address(value),
            NHA_ENCAP => object.encap = true,
            _ => {}
        }
    }
    Some((id?, object))
}

fn member(bytes: &[u8]) -> Option<(u32, u16)> {
    let weight = u16::from_be_bytes([bytes[5], bytes[4]]);
    Some((number(bytes)?, weight.saturating_add(1)))
}

/// The next hops that an id stands for, and whether packets are encapsulated at some of them. Members of a group are no groups.
pub fn hops(objects: &Objects, id: u32) -> (Vec<NextHop>, bool) {
    let Some(object) = objects.get(&id) else { return (Vec::new(), false) };
    if object.members.is_empty() {
        return (vec![object.hop.clone()], object.encap);
    }
    let members = || object.members.iter().filter_map(|(id, weight)| Some((objects.get(id)?, *weight)));
    let hops = members().map(|(member, weight)| NextHop { weight, ..member.hop.clone() });
    (hops.collect(), members().any(|(member, _)| member.encap))
}
