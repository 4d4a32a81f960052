//! Messages of rtnetlink and of IPVS, the one socket for requests of these and of netfilter, and the mark of what egressd itself sends.

pub mod address;
pub mod fdb;
pub mod ipvs;
pub mod link;
pub mod nexthop;
pub mod routing;
pub mod rule;
pub mod socket;
pub mod sockets;
#[cfg(test)]
pub mod testing;

use netlink_packet_core::Emitable;

use crate::wire::{Message, Received};
pub use socket::{Channel, Error, Room, configure};

/// A message whose fixed part and attributes are written by a type of `netlink-packet-route`.
pub fn message(kind: u16, flags: u16, body: &impl Emitable) -> Message {
    let mut bytes = vec![0; body.buffer_len()];
    body.emit(&mut bytes);
    Message::new(kind, flags, &bytes)
}

/// Reads a message as each kind that is asked for, whatever it is (see [`crate::fuzzing`]).
pub fn read_any(message: &Received<'_>) {
    let _ = (routing::route(message), rule::rule(message), nexthop::object(message), fdb::entry(message));
    let _ = (sockets::socket(message), sockets::connection(message));
}
