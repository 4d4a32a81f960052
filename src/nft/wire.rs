//! Netlink messages and their attributes as bytes: a writer that fills in the lengths, and iterators that read.

use super::uapi::{NFNL_SUBSYS_NFTABLES, NLM_F_REQUEST};

const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const ATTRIBUTE: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Type of an nf_tables message: the subsystem and what is asked of it.
pub const fn nftables(operation: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | operation
}

/// What stands ahead of a message's attributes.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub kind: u16,
    /// `NLM_F_*`; `NLM_F_REQUEST` is added.
    pub flags: u16,
    pub sequence: u32,
    /// `NFPROTO_*`.
    pub family: u8,
    /// Subsystem of a batch; else 0.
    pub resource: u16,
}

/// Netlink messages, one behind the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Appends a message whose attributes `body` writes.
    pub fn message(&mut self, head: Head, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&head.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(head.flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&head.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[head.family, 0]);
        self.bytes.extend_from_slice(&head.resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).expect("a message is shorter than 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends an attribute with other attributes in it.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE]);
        body(self);
        let length = self.bytes.len() - start;
        self.attribute_head(start, kind | NESTED, length);
    }

    /// Appends an attribute of bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE]);
        self.bytes.extend_from_slice(value);
        self.attribute_head(start, kind, ATTRIBUTE + value.len());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends a text, with the NUL at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE]);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.attribute_head(start, kind, ATTRIBUTE + value.len() + 1);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends a number, in network order as nf_tables has them all.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// How many bytes there are so far.
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes to send.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn attribute_head(&mut self, start: usize, kind: u16, length: usize) {
        let length = u16::try_from(length).expect("lists are split below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Port of the socket whose request this answers or tells of.
    pub port: u32,
    /// What follows the netlink header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The operation, when this is an nf_tables message.
    pub fn operation(&self) -> Option<u16> {
        (self.kind >> 8 == NFNL_SUBSYS_NFTABLES).then_some(self.kind & 0xff)
    }

    /// `NFPROTO_*`.
    pub fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// Attributes of an nf_tables message.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(NFGENMSG..).unwrap_or_default())
    }

    /// The first attribute of a type.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.body.get(NFGENMSG..).unwrap_or_default(), kind)
    }
}

/// The messages of one datagram. Ends where they are cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            flags: u16::from_ne_bytes([message[6], message[7]]),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            port: u32::from_ne_bytes([message[12], message[13], message[14], message[15]]),
            body: &message[HEADER..],
        })
    })
}

/// The attributes in `bytes`, without their flags. Ends where they are cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    })
}

/// The first attribute of a type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// An attribute's number.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// An attribute's text, without the NUL at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        let head = Head { kind: nftables(9), flags: 0x400, sequence: 7, family: 10, resource: 0 };
        writer.message(head, |w| {
            w.text(1, "egressd");
            w.nest(2, |w| w.number(3, 0x0102_0304));
        });
        writer.message(head, |_| {});
        let bytes = writer.into_bytes();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].operation(), read[0].family(), read[0].sequence), (Some(9), 10, 7));
        assert_eq!(read[0].attribute(1).and_then(text), Some("egressd"));
        let nested = read[0].attribute(2).expect("the nest is there");
        assert_eq!(find(nested, 3).and_then(number), Some(0x0102_0304));
        assert_eq!(read[1].attributes().count(), 0);
    }

    #[test]
    fn a_message_that_is_cut_short_is_not_read() {
        let mut writer = Writer::default();
        writer.message(Head { kind: nftables(0), flags: 0, sequence: 1, family: 2, resource: 0 }, |w| w.text(1, "egressd"));
        let bytes = writer.into_bytes();
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0, "{length} bytes");
        }
        assert_eq!(attributes(&[200, 0, 1, 0, 0]).count(), 0);
        assert_eq!(attributes(&[1, 0, 1, 0]).count(), 0);
    }
}
