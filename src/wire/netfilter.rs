//! What all of netfilter's messages have behind the header (`struct nfgenmsg`): nf_tables and conntrack.

use super::{Message, Received, attributes_after};

/// Length of `struct nfgenmsg`.
const FIXED: usize = 4;

/// The kind of a subsystem's message (`NFNL_SUBSYS_*` and what is asked of it).
pub const fn kind(subsystem: u16, operation: u16) -> u16 {
    subsystem << 8 | operation
}

/// The beginning of a message for a family (`NFPROTO_*`). `resource` is the subsystem of a batch, else 0.
pub fn message(kind: u16, flags: u16, family: u8, resource: u16) -> Message {
    let [high, low] = resource.to_be_bytes();
    Message::new(kind, flags, &[family, 0, high, low])
}

impl<'a> Received<'a> {
    /// The operation, when it is a message of this subsystem.
    pub fn operation(&self, subsystem: u16) -> Option<u16> {
        (self.kind >> 8 == subsystem).then_some(self.kind & 0xff)
    }

    /// `NFPROTO_*` of a message of netfilter's.
    pub fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or(0)
    }

    /// Attributes of a message of netfilter's.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes_after(self.payload, FIXED)
    }

    /// The first attribute of a kind, in a message of netfilter's.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find_map(|(found, value)| (found == kind).then_some(value))
    }
}
