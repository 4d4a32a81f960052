//! A netlink socket of netfilter's: batches, dumps, and the buffers that they need.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc::{MSG_DONTWAIT, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};

use super::CommitError;
use crate::nft::encode::Batch;
use crate::nft::uapi::*;
use crate::nft::wire::{self, Head, Message, Writer};

/// A batch is one datagram: 100,000 elements are about 8 MiB.
const SEND_BUFFER: usize = 64 << 20;
/// Errors of a batch, or events of other programs' batches, all queued before the first is read.
const RECEIVE_BUFFER: usize = 16 << 20;
/// The kernel's dumps come in datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

pub(super) struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("port", &self.port).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) sequence: u32,
    pub(super) errno: i32,
    pub(super) explanation: Option<String>,
}

/// Sets a new socket up and binds it; gives its port.
pub(super) fn configure(socket: &mut netlink_sys::Socket) -> io::Result<u32> {
    // Beyond what sysctls allow, for which CAP_NET_ADMIN is needed: as it is for all the rest.
    setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER)?;
    setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    // Errors say why, and do not repeat the message that they are about.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket.bind_auto()?.port_number())
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        let port = configure(&mut inner)?;
        Ok(Self { inner, port, sequence: 1, buffer: vec![0; DATAGRAM] })
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Sends a batch and gives what was refused; nothing refused: all of it is in force.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Vec<Refusal>, CommitError> {
        self.sequence = batch.next_sequence();
        self.inner.send(&batch.bytes, 0).map_err(CommitError::Send)?;
        // The kernel has committed or aborted, and queued every error, when the call returns.
        let mut refusals = Vec::new();
        while let Some(length) = self.receive(MSG_DONTWAIT).map_err(CommitError::Receive)? {
            let errors = wire::messages(&self.buffer[..length]).filter(|message| batch.contains(message.sequence));
            refusals.extend(errors.filter_map(|message| refusal(&message)));
        }
        refusals.sort_by_key(|refusal| refusal.sequence);
        Ok(refusals)
    }

    /// Asks, and gives each message of the answer to `each`.
    pub(super) fn request(
        &mut self,
        operation: u16,
        flags: u16,
        family: u8,
        attributes: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message),
    ) -> io::Result<()> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut writer = Writer::default();
        writer.message(Head { kind: wire::nftables(operation), flags, sequence, family, resource: 0 }, attributes);
        self.inner.send(&writer.into_bytes(), 0)?;
        loop {
            let length = self.receive(0)?.unwrap_or(0);
            for message in wire::messages(&self.buffer[..length]).filter(|message| message.sequence == sequence) {
                if let Some(refusal) = refusal(&message) {
                    return Err(io::Error::from_raw_os_error(refusal.errno));
                }
                if matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
                    return Ok(());
                }
                each(&message);
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Length of the next datagram, now in the buffer; `None` when there is none and none is waited for.
    fn receive(&mut self, flags: i32) -> io::Result<Option<usize>> {
        loop {
            return match self.inner.recv(&mut &mut self.buffer[..], flags | MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => Err(io::Error::from(Errno::EMSGSIZE)),
                Ok(length) => Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            };
        }
    }
}

/// What an error message says; `None` for other messages and for an acknowledgement.
fn refusal(message: &Message) -> Option<Refusal> {
    if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
        return None;
    }
    // Behind the number: an error's original header, of which only the header is given back.
    let errno = -i32::from_ne_bytes(*message.body.first_chunk()?);
    let attributes = if message.kind == NLMSG_ERROR { 20 } else { 4 };
    let explanation = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| wire::find(message.body.get(attributes..)?, NLMSGERR_ATTR_MSG).and_then(wire::text))
        .flatten();
    (errno > 0).then(|| Refusal { sequence: message.sequence, errno, explanation: explanation.map(str::to_owned) })
}
