//! One long-lived netlink socket for requests and dumps: one at a time, answered before the call returns.
//!
//! The kernel answers a request while it is being sent, so nothing here waits; closing a socket may, hence it is kept.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt};

use super::{HEADER, Message, Received, attributes, messages, text};

/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;
/// Larger than any datagram of a dump (32 KiB since Linux 4.4).
const DATAGRAM: usize = 64 * 1024;
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
    /// The kernel said no; `detail` is its own word on it (`NLMSGERR_ATTR_MSG`), or empty.
    #[error("the kernel refused it{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused { source: io::Error, detail: String },
    #[error("a dump was changed under its reader {DUMP_ATTEMPTS} times")]
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

/// A socket for requests.
pub struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens a socket of this protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER`), whose dumps take filters at their word.
    ///
    /// # Errors
    /// When the kernel has no such protocol, or is older than 4.20 (strict checks).
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let mut socket = Socket::new(protocol).map_err(|source| Error::Socket { what: "open", source })?;
        socket.bind_auto().map_err(|source| Error::Socket { what: "bind", source })?;
        socket.set_netlink_get_strict_chk(true).map_err(|source| Error::Socket { what: "set strict checks on", source })?;
        // Both only make errors more telling.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Dumps of conntrack come faster with room for more than one datagram; without the right to it the default does.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20));
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a request and gives each message of the answer to `each`, until the kernel says that it was all.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's number; [`Error::Socket`] when the socket fails.
    pub fn request(&mut self, message: Message, mut each: impl FnMut(Received<'_>)) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = if message.is_dump() { 0 } else { libc::NLM_F_ACK };
        let bytes = message.finish(self.sequence, flags);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(|source| Error::Socket { what: "send on", source })?;
        let mut torn = false;
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]).filter(|m| m.sequence == self.sequence) {
                torn |= message.flags & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        verdict(&message)?;
                        return if torn { Err(Error::Restless) } else { Ok(()) };
                    }
                    _ => each(message),
                }
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

    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut slices, None, MsgFlags::empty()) {
                Ok(message) => return Ok(message.bytes),
                Err(nix::Error::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Socket { what: "receive from", source: errno.into() });
                }
            }
        }
    }
}

/// Whether an acknowledgement, or the end of a dump, says that all went well.
fn verdict(message: &Received<'_>) -> Result<(), Error> {
    let code = message.payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code >= 0 {
        return Ok(());
    }
    // An error carries the header of the request (capped), then the texts; the end of a dump has the texts at once.
    let texts = if i32::from(message.kind) == libc::NLMSG_ERROR { 4 + HEADER } else { 4 };
    let detail = attributes(message.payload.get(texts..).unwrap_or_default())
        .find(|(kind, _)| *kind == ERROR_TEXT && message.flags & libc::NLM_F_ACK_TLVS != 0)
        .map(|(_, value)| text(value))
        .unwrap_or_default();
    Err(Error::Refused { source: io::Error::from_raw_os_error(-code), detail })
}
