//! Netlink's framing: messages and attributes, as bytes, and nothing else. No socket is touched here.
//!
//! Only the attributes that matter are read and all others are passed over, so that a newer kernel's messages are never an error,
//! and a dump of ten thousand links costs no more than the bytes of it.

pub mod nexthop;
pub mod routing;
pub mod rule;
pub mod socket;
#[cfg(test)]
pub mod testing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::Emitable;
use nix::libc;

pub use socket::{Channel, Error};

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const ALIGNMENT: usize = 4;
/// `NLA_TYPE_MASK`: the two highest bits say "nested" and "network byte order".
const KIND_MASK: u16 = 0x3fff;

/// A request that is being written.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `kind` and `flags` of the header (`NLM_F_REQUEST` is added), and the fixed part that the family wants.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// A message whose fixed part and attributes a crate's type writes.
    pub fn of(kind: u16, flags: i32, body: &impl Emitable) -> Self {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        Self::new(kind, flags, &bytes)
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Adds a number in the host's byte order.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds an address, 4 or 16 bytes long.
    pub fn put_address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.put(kind, &a.octets()),
            IpAddr::V6(a) => self.put(kind, &a.octets()),
        }
    }

    /// Adds an attribute that holds those which `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.put(kind | libc::NLA_F_NESTED as u16, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// The bytes to send, with the length and the sequence number filled in.
    fn finish(mut self, sequence: u32, more_flags: i32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        let flags = u16_at(&self.bytes, 6) | more_flags as u16;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn is_dump(&self) -> bool {
        i32::from(u16_at(&self.bytes, 6)) & libc::NLM_F_DUMP == libc::NLM_F_DUMP
    }
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub kind: u16,
    pub flags: i32,
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram. What is cut short ends it.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        if length < HEADER || length > rest.len() {
            return None;
        }
        let (message, after) = (&rest[..length], rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default());
        rest = after;
        Some(Received {
            kind: u16_at(message, 4),
            flags: i32::from(u16_at(message, 6)),
            sequence: u32::from_ne_bytes(message[8..12].try_into().ok()?),
            payload: &message[HEADER..],
        })
    })
}

/// The attributes in `bytes`, each with its kind (without flag bits) and its value. What is cut short ends it.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            return None;
        }
        let attribute = (u16_at(rest, 2) & KIND_MASK, &rest[ATTRIBUTE_HEADER..length]);
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The attributes that follow a fixed part of this length; none when it is cut short.
pub fn attributes_after(payload: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(fixed..).unwrap_or_default())
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A number in the host's byte order.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// A number in network byte order.
pub fn number_be(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// An address of 4 or 16 bytes.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
        _ => None,
    }
}

/// A text that may end with a zero.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(24, libc::NLM_F_CREATE, &[7; 12]);
        message.put(1, b"odd");
        message.nest(2, |m| m.put_u32(3, 99));
        let bytes = message.finish(5, libc::NLM_F_ACK);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (24, 5));
        assert_eq!(all[0].flags, libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE);
        let inside: Vec<_> = attributes_after(all[0].payload, 12).collect();
        assert_eq!(inside[0], (1, &b"odd"[..]));
        assert_eq!(attributes(inside[1].1).next(), Some((3, &99_u32.to_ne_bytes()[..])));
    }

    #[test]
    fn a_message_or_attribute_that_is_cut_short_ends_the_reading() {
        let mut message = Message::new(24, 0, &[]);
        message.put_u32(1, 1);
        let bytes = message.finish(1, 0);
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0);
            assert!(attributes_after(&bytes[..end], HEADER).count() <= 1);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "a length below the header's would never end");
    }
}
