//! One long-lived netlink socket for requests, dumps and batches: one at a time, answered before the call returns.
//!
//! The kernel answers a request while it is being sent, so nothing here waits; closing a socket may, hence it is kept.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt};

use crate::wire::{Message, Received, Refusal, flags, messages};

/// Larger than any datagram of a dump (32 KiB since Linux 4.4).
const DATAGRAM: usize = 64 << 10;
/// How often a dump that was changed under its reader is taken again.
const DUMP_ATTEMPTS: usize = 10;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {what} a netlink socket")]
    Socket {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel said no; `detail` is its own word on it, or empty.
    #[error("the kernel refused it{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused {
        #[source]
        source: io::Error,
        detail: String,
    },
    #[error("a dump was changed under its reader")]
    Restless,
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// How much is queued in each direction, in bytes. What is beyond the sysctls' limits needs `CAP_NET_ADMIN`.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub send: usize,
    pub receive: usize,
}

/// A socket for requests.
pub struct Channel {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("port", &self.port).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Sets the room of a new socket and what its errors say, and binds it; gives its port.
///
/// # Errors
/// When the room is more than this process may have.
pub fn configure(socket: &mut Socket, room: Room) -> io::Result<u32> {
    setsockopt(socket, sockopt::SndBufForce, &room.send)?;
    setsockopt(socket, sockopt::RcvBufForce, &room.receive)?;
    bind(socket)
}

fn bind(socket: &mut Socket) -> io::Result<u32> {
    // Errors say why, and do not repeat the message that they are about.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket.bind_auto()?.port_number())
}

impl Channel {
    /// Opens a socket of this protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER`), whose dumps take filters at their word.
    ///
    /// # Errors
    /// When the kernel has no such protocol, or is older than 4.20 (strict checks).
    pub fn open(protocol: isize) -> Result<Self, Error> {
        Self::new(protocol, |socket| {
            // Dumps come faster with room for more than one datagram; without the right to it the default does.
            let _ = setsockopt(socket, sockopt::RcvBufForce, &(1 << 20));
            bind(socket)
        })
    }

    /// The same with more room.
    ///
    /// # Errors
    /// As [`Channel::open`], and when the room is more than this process may have.
    pub fn open_with(protocol: isize, room: Room) -> Result<Self, Error> {
        Self::new(protocol, |socket| configure(socket, room))
    }

    fn new(protocol: isize, configure: impl FnOnce(&mut Socket) -> io::Result<u32>) -> Result<Self, Error> {
        let mut socket = Socket::new(protocol).map_err(|source| Error::Socket { what: "open", source })?;
        socket.set_netlink_get_strict_chk(true).map_err(|source| Error::Socket { what: "set strict checks on", source })?;
        let port = configure(&mut socket).map_err(|source| Error::Socket { what: "set up", source })?;
        Ok(Self { socket, port, sequence: 1, buffer: vec![0; DATAGRAM] })
    }

    /// The netlink port: who did something, in the kernel's events.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The sequence number that the next request or batch begins with.
    pub fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Sends a request and gives each message of the answer to `each`, until the kernel says that it was all.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's number; [`Error::Restless`] when it was a dump that was changed meanwhile; [`Error::Socket`]
    /// when the socket fails.
    pub fn request(&mut self, message: Message, mut each: impl FnMut(Received<'_>)) -> Result<(), Error> {
        let sequence = self.sequence;
        let acknowledged = if message.is_dump() { 0 } else { flags::ACK };
        self.send(&message.finish(sequence, acknowledged), 1)?;
        let mut torn = false;
        loop {
            let received = self.receive(MsgFlags::empty())?.unwrap_or(0);
            for message in messages(&self.buffer[..received]).filter(|message| message.sequence == sequence) {
                torn |= message.flags & flags::DUMP_INTR != 0;
                if let Some(Refusal { errno, explanation, .. }) = message.refusal() {
                    let source = io::Error::from_raw_os_error(errno);
                    return Err(Error::Refused { source, detail: explanation.unwrap_or_default() });
                }
                if message.is_last() {
                    return if torn { Err(Error::Restless) } else { Ok(()) };
                }
                each(message);
            }
        }
    }

    /// Takes a dump, again if it was changed under its reader, and keeps what `keep` makes of its messages.
    ///
    /// # Errors
    /// As [`Channel::request`]; [`Error::Restless`] when it changed each time.
    pub fn dump<T>(&mut self, message: &Message, keep: impl Fn(Received<'_>) -> Option<T>) -> Result<Vec<T>, Error> {
        let mut kept = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            kept.clear();
            match self.request(message.clone(), |m| kept.extend(keep(m))) {
                Err(Error::Restless) => {}
                other => return other.map(|()| kept),
            }
        }
        Err(Error::Restless)
    }

    /// Sends a batch of netfilter's, whose messages have this many sequence numbers from [`Channel::next_sequence`] on, and gives what was
    /// refused, in the batch's order. Nothing refused: all of it is in force.
    ///
    /// # Errors
    /// [`Error::Socket`] when the socket fails.
    pub fn commit(&mut self, batch: &[u8], numbers: u32) -> Result<Vec<Refusal>, Error> {
        let first = self.sequence;
        self.send(batch, numbers)?;
        // The kernel has committed or aborted, and queued every error, when the call returns.
        let mut refusals = Vec::new();
        while let Some(received) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            let ours = messages(&self.buffer[..received]).filter(|message| message.sequence.wrapping_sub(first) < numbers);
            refusals.extend(ours.filter_map(|message| message.refusal()));
        }
        refusals.sort_by_key(|refusal| refusal.sequence.wrapping_sub(first));
        Ok(refusals)
    }

    fn send(&mut self, bytes: &[u8], numbers: u32) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(numbers);
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0);
        sent.map(drop).map_err(|source| Error::Socket { what: "send on", source })
    }

    /// Length of the next datagram, now in the buffer; `None` when there is none and none is waited for.
    fn receive(&mut self, wait: MsgFlags) -> Result<Option<usize>, Error> {
        loop {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let source = match recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut slices, None, wait) {
                Ok(message) if message.flags.contains(MsgFlags::MSG_TRUNC) => io::Error::from_raw_os_error(libc::EMSGSIZE),
                Ok(message) => return Ok(Some(message.bytes)),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) if wait.contains(MsgFlags::MSG_DONTWAIT) => return Ok(None),
                Err(errno) => errno.into(),
            };
            return Err(Error::Socket { what: "receive from", source });
        }
    }
}
