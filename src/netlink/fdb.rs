//! A bridge's forwarding database, as netlink messages: which hardware address is at which port.

use nix::libc;

use crate::model::facts::{IfIndex, Mac};
use crate::wire::{Message, Received, attributes_after, flags, number};

/// Length of `struct ndmsg`.
const FIXED: usize = 12;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const NUD_REACHABLE: u16 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 0x04;
const NTF_STICKY: u8 = 0x40;

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mac: Mac,
    pub port: IfIndex,
    pub bridge: Option<IfIndex>,
    /// It is the host's own (`NUD_PERMANENT`).
    pub local: bool,
    /// Frames that come in by another port do not move it (`NTF_STICKY`).
    pub sticky: bool,
}

/// The message that asks for all entries of all bridges.
pub fn dump() -> Message {
    Message::new(libc::RTM_GETNEIGH, flags::DUMP, &head(0, 0, 0))
}

/// Reads `RTM_NEWNEIGH` of such a dump.
pub fn entry(message: &Received<'_>) -> Option<Entry> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let port = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    let state = u16::from_ne_bytes([head[8], head[9]]);
    let (mut mac, mut bridge) = (None, None);
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            NDA_MASTER => bridge = number(value),
            _ => {}
        }
    }
    Some(Entry { mac: mac?, port, bridge, local: state & NUD_PERMANENT != 0, sticky: head[10] & NTF_STICKY != 0 })
}

/// `bridge fdb replace MAC dev PORT master static sticky`: frames with that source elsewhere do not move it. It goes with its port.
pub fn pin(port: IfIndex, mac: Mac) -> Message {
    about(libc::RTM_NEWNEIGH, flags::CREATE | flags::REPLACE, port, mac, NUD_NOARP | NUD_REACHABLE)
}

/// `bridge fdb delete MAC dev PORT master`: the bridge learns it from the next frame.
pub fn unpin(port: IfIndex, mac: Mac) -> Message {
    about(libc::RTM_DELNEIGH, 0, port, mac, 0)
}

fn about(kind: u16, flags: u16, port: IfIndex, mac: Mac, state: u16) -> Message {
    let sticky = if state == 0 { 0 } else { NTF_STICKY };
    let mut message = Message::new(kind, flags, &head(port, state, NTF_MASTER | sticky));
    message.put(NDA_LLADDR, &mac.0);
    message
}

fn head(port: IfIndex, state: u16, flags: u8) -> [u8; FIXED] {
    let mut head = [0; FIXED];
    head[0] = libc::AF_BRIDGE as u8;
    head[4..8].copy_from_slice(&port.to_ne_bytes());
    head[8..10].copy_from_slice(&state.to_ne_bytes());
    head[10] = flags;
    head
}
