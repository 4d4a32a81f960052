//! The socket on which the kernel tells of changes, in this network namespace and in all that have a number here.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ready::watch;
use crate::wire::{Received, messages};

/// What one start of a container sends fits hundreds of times; what does not fit is asked for anew.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Larger than any one event.
const DATAGRAM: usize = 64 * 1024;
const GROUPS: [u32; 10] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
    libc::RTNLGRP_NSID,
];

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was queued has been read.
    All,
    /// The queue overflowed: some events are lost.
    Overrun,
}

/// The listening socket.
pub struct Listener {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl Listener {
    /// Opens it. Needs `CAP_NET_BROADCAST` for the other namespaces and `CAP_NET_ADMIN` for the room.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        socket.set_listen_all_namespaces(true)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        // Kernels before 5.3 have no nexthop objects.
        let _ = socket.add_membership(libc::RTNLGRP_NEXTHOP);
        Ok(Self { socket: watch(socket, Interest::READABLE)?, buffer: vec![0; DATAGRAM], control: nix::cmsg_space!(i32, i32) })
    }

    /// Waits until something is queued. Cancelling it loses nothing.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Gives all that is queued to `each`, with the number of the namespace that it comes from; `None` is this one.
    pub fn drain(&mut self, mut each: impl FnMut(Option<i32>, Received<'_>)) -> io::Result<Drained> {
        let Self { socket, buffer, control } = self;
        loop {
            match socket.try_io(Interest::READABLE, |socket| receive(socket, buffer, control)) {
                Ok((length, nsid)) => messages(&buffer[..length]).for_each(|m| each(nsid, m)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => return Ok(Drained::Overrun),
                    Some(libc::EINTR) => {}
                    _ if error.kind() == io::ErrorKind::WouldBlock => return Ok(Drained::All),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Throws away what is queued: a dump that follows says it all.
    pub fn discard(&mut self) -> io::Result<()> {
        loop {
            match receive(self.socket.get_ref(), &mut self.buffer, &mut self.control) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EINTR)) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
}

/// Receives one datagram: its length, and the number of the namespace that it comes from.
fn receive(socket: &Socket, buffer: &mut [u8], control: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut slices, Some(control), flags)?;
    Ok((message.bytes, namespace(message.cmsgs()?)))
}

/// The namespace's number, from the control message that comes with what is not of this one.
fn namespace(control: impl Iterator<Item = ControlMessageOwned>) -> Option<i32> {
    control
        .filter_map(|message| match message {
            ControlMessageOwned::Unknown(unknown)
                if unknown.cmsg_header.cmsg_level == libc::SOL_NETLINK
                    && unknown.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
            {
                Some(i32::from_ne_bytes(unknown.data_bytes.get(..4)?.try_into().ok()?))
            }
            _ => None,
        })
        .next()
}
