//! What goes over sockets as bytes, and nothing else: netlink's messages and attributes here, frames to neighbours in [`neighbour`].
//!
//! Only the attributes that matter are read and all others are passed over, so that a newer kernel's messages are never an error,
//! and a dump of ten thousand links costs no more than the bytes of it.

pub mod generic;
pub mod neighbour;
pub mod netfilter;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const ALIGNMENT: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: the two highest bits say "nested" and "network byte order".
const KIND_MASK: u16 = 0x3fff;
/// `NLMSG_ERROR`: an error, or with the number 0 an acknowledgement.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// Flags of a header (`NLM_F_*`).
pub mod flags {
    pub const REQUEST: u16 = 0x1;
    pub const MULTI: u16 = 0x2;
    pub const ACK: u16 = 0x4;
    /// A dump was changed under its reader.
    pub const DUMP_INTR: u16 = 0x10;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    /// An error has attributes.
    pub const ACK_TLVS: u16 = 0x200;
}

/// A message that is being written.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `kind` and `flags` of the header ([`flags::REQUEST`] is added), and the fixed part that the family wants.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Adds a fixed part within an attribute, as a link's peer has it.
    pub fn put_fixed(&mut self, fixed: &[u8]) {
        self.bytes.extend_from_slice(fixed);
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.put_framed(kind.to_ne_bytes(), |attribute| attribute.bytes.extend_from_slice(value));
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Adds a number in the host's byte order, as rtnetlink has them.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a number in network byte order, as netfilter has them.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds a text, with the zero at its end.
    pub fn put_text(&mut self, kind: u16, value: &str) {
        self.put_framed(kind.to_ne_bytes(), |attribute| {
            attribute.bytes.extend_from_slice(value.as_bytes());
            attribute.bytes.push(0);
        });
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
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
        self.put_framed((kind | NESTED).to_ne_bytes(), fill);
    }

    /// Adds a length, what stands behind it (an attribute's kind, the rest of `struct rtnexthop`) and what `fill` writes: all of these count.
    pub fn put_framed<const N: usize>(&mut self, head: [u8; N], fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&head);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("lists are split below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// How many bytes there are so far.
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// Whether many messages answer it.
    pub fn is_dump(&self) -> bool {
        u16_at(&self.bytes, 6) & flags::DUMP == flags::DUMP
    }

    /// The bytes to send, with the length and the sequence number filled in.
    pub fn finish(mut self, sequence: u32, more_flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a message is shorter than 4 GiB");
        let flags = u16_at(&self.bytes, 6) | more_flags;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Port of the socket whose request this answers or tells of.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// What the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the request.
    pub sequence: u32,
    pub errno: i32,
    /// The kernel's own words on it (`NLMSGERR_ATTR_MSG`).
    pub explanation: Option<String>,
}

impl Received<'_> {
    /// What an error, or the end of a dump, says was refused; `None` when all went well, and for other messages.
    pub fn refusal(&self) -> Option<Refusal> {
        // Behind the number: an error's original header, of which only the header is given back; at the end of a dump the attributes at once.
        let attributes_at = match self.kind {
            ERROR => 4 + HEADER,
            DONE => 4,
            _ => return None,
        };
        let errno = i32::from_ne_bytes(*self.payload.first_chunk()?).checked_neg()?;
        let texts = self.payload.get(attributes_at..).filter(|_| self.flags & flags::ACK_TLVS != 0);
        let explanation = texts.and_then(|texts| find(texts, ERROR_TEXT)).map(lossy);
        (errno > 0).then_some(Refusal { sequence: self.sequence, errno, explanation })
    }

    /// Whether nothing follows it in the answer to a request.
    pub fn is_last(&self) -> bool {
        matches!(self.kind, ERROR | DONE)
    }
}

/// The messages of one datagram. What is cut short ends it.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Received {
            kind: u16_at(message, 4),
            flags: u16_at(message, 6),
            sequence: u32::from_ne_bytes(*message[8..].first_chunk()?),
            port: u32::from_ne_bytes(*message[12..].first_chunk()?),
            payload: &message[HEADER..],
        })
    })
}

/// The attributes in `bytes`, each with its kind (without flag bits) and its value. What is cut short ends it.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & KIND_MASK, value))
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
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// A number in network byte order.
pub fn number_be(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// An address of 4 or 16 bytes.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
        _ => None,
    }
}

/// A text, without the zero at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(until_zero(value)).ok()
}

/// A text that may be anything, as the name of a link may.
pub fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(until_zero(value)).into_owned()
}

fn until_zero(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(24, flags::CREATE, &[7; 12]);
        message.put(1, b"odd");
        message.nest(2, |m| {
            m.put_u32(3, 99);
            m.put_be32(4, 0x0102_0304);
            m.put_text(5, "egressd");
            m.put_framed([9, 9], |_| {});
        });
        let bytes = [message.clone().finish(5, flags::ACK), message.finish(6, 0)].concat();
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(24, 5), (24, 6)]);
        assert_eq!(all[0].flags, flags::REQUEST | flags::ACK | flags::CREATE);
        let inside: Vec<_> = attributes_after(all[0].payload, 12).collect();
        assert_eq!(inside[0], (1, &b"odd"[..]));
        let nest = find(&all[0].payload[12..], 2).unwrap();
        assert_eq!(find(nest, 3).and_then(number), Some(99));
        assert_eq!(find(nest, 4).and_then(number_be), Some(0x0102_0304));
        assert_eq!(find(nest, 5).and_then(text), Some("egressd"));
    }

    #[test]
    fn a_message_or_attribute_that_is_cut_short_ends_the_reading() {
        let mut message = Message::new(24, 0, &[]);
        message.put_u32(1, 1);
        let bytes = message.finish(1, 0);
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end} bytes");
            assert!(attributes_after(&bytes[..end], HEADER).count() <= 1);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "a length below the header's would never end");
        assert_eq!(attributes(&[200, 0, 1, 0, 0]).count(), 0);
    }

    #[test]
    fn an_error_tells_whose_it_is_and_what_the_kernel_says_of_it() {
        let text = [&[20, 0, 1, 0][..], b"no such thing\0\0\0"].concat();
        let told = |kind, flags, code: i32, between: usize| {
            let payload = [&code.to_ne_bytes()[..], &vec![0; between], &text].concat();
            Received { kind, flags, sequence: 7, port: 0, payload: &payload }.refusal()
        };
        let refusal = |explanation: Option<&str>| Some(Refusal { sequence: 7, errno: 2, explanation: explanation.map(str::to_owned) });
        assert_eq!(told(ERROR, flags::ACK_TLVS, -2, HEADER), refusal(Some("no such thing")));
        assert_eq!(told(DONE, flags::ACK_TLVS, -2, 0), refusal(Some("no such thing")));
        assert_eq!(told(ERROR, 0, -2, HEADER), refusal(None));
        assert_eq!(told(ERROR, 0, 0, HEADER), None, "an acknowledgement");
        assert_eq!(told(24, 0, -2, HEADER), None);
    }
}
