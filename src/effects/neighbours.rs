//! A NIC's link by packet sockets: who has an address there, and telling that it is here. Needs `CAP_NET_RAW`.

mod filter;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{LinkAddr, bind, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::model::facts::{Family, IfIndex};
use crate::wire::neighbour::{self, Claim, LONGEST, Mac};

/// What a socket waits for at least; timeouts are in microseconds.
const SHORTEST: Duration = Duration::from_micros(100);

/// How many frames that are there already are read once it is time: a flood of them has no end.
const MOST_LATE: usize = 1024;

/// Bytes of frames that wait to be read; a frame takes the kernel about 800 of them. The default has room for 256.
const BUFFER: usize = 1 << 20;

/// How many questions or announcements go out at once, and how long to wait after them. A NIC's queue has room for 1000, and as many answers as
/// questions come back.
const AT_ONCE: usize = 64;
const BREATH: Duration = Duration::from_millis(2);

/// A NIC, and the frames on its link that tell where addresses of one family are.
pub struct Neighbours {
    socket: Socket,
    nic: IfIndex,
    mac: Mac,
    /// Those of all NICs of this host: two of them may be on one link, and no neighbour of the other.
    own: BTreeSet<Mac>,
}

impl Neighbours {
    /// Opens it. With `only` it hears of these addresses alone: whatever else is said on the link, what is said of them finds room.
    ///
    /// # Errors
    /// When the NIC is gone or no Ethernet, or `CAP_NET_RAW` is missing.
    pub fn open(nic: IfIndex, family: Family, only: Option<&BTreeSet<IpAddr>>) -> io::Result<Self> {
        let links: Vec<LinkAddr> = getifaddrs()?.filter_map(|one| one.address?.as_link_addr().copied()).collect();
        let own = links.iter().filter_map(LinkAddr::addr).filter(|mac| *mac != [0; 6]).collect();
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let link = links.into_iter().find(|link| link.ifindex() == nic as usize).ok_or_else(gone)?;
        if link.halen() != 6 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "its link is no Ethernet"));
        }
        let kind = if family == Family::V4 { neighbour::ARP } else { neighbour::IPV6 };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(kind.to_be()))))?;
        if let Some(filter) = filter::of(family, only) {
            socket.attach_filter(&filter)?;
        }
        // Without the right to more it has the default.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self { socket, nic, mac: link.addr().ok_or_else(gone)?, own })
    }

    /// Asks whether neighbours have these addresses, some at a time, and hands over what is claimed meanwhile.
    ///
    /// # Errors
    /// When the link is down.
    pub fn probe(&self, addresses: &[IpAddr], mut claimed: impl FnMut(Claim)) -> io::Result<()> {
        for some in addresses.chunks(AT_ONCE) {
            some.iter().try_for_each(|address| self.send(&neighbour::probe(*address, self.mac)))?;
            self.claims(Instant::now() + BREATH).for_each(&mut claimed);
        }
        Ok(())
    }

    /// Asks a neighbour whether it is there, from an address of the NIC: the machine that answered last, if it is known.
    ///
    /// # Errors
    /// When the link is down.
    pub fn ask(&self, neighbour: IpAddr, from: IpAddr, last: Option<Mac>) -> io::Result<()> {
        neighbour::ask(neighbour, from, self.mac, last).map_or(Ok(()), |frame| self.send(&frame))
    }

    /// Tells all neighbours that the addresses are here, some at a time.
    ///
    /// # Errors
    /// When the link is down.
    pub fn announce(&self, addresses: &[IpAddr]) -> io::Result<()> {
        for some in addresses.chunks(AT_ONCE) {
            some.iter().try_for_each(|address| self.send(&neighbour::announce(*address, self.mac)))?;
            std::thread::sleep(BREATH);
        }
        Ok(())
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// What neighbours claim, and have claimed since it was opened, until then.
    pub fn claims(&self, until: Instant) -> impl Iterator<Item = Claim> {
        let mut late = 0;
        std::iter::from_fn(move || {
            let mut frame = [0; LONGEST];
            while late < MOST_LATE {
                let left = until.saturating_duration_since(Instant::now());
                late += usize::from(left.is_zero());
                // A timeout of nothing would be none at all.
                self.socket.set_read_timeout(Some(left.max(SHORTEST))).ok()?;
                match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                    // Until it was bound it heard all links, and it hears those above its own: another VLAN has addresses of its own.
                    Ok((_, from)) if from.is_none_or(|from| from.ifindex() != self.nic as usize) => {}
                    Ok((length, _)) => {
                        let claim = neighbour::read(&frame[..length]).filter(|claim| !self.own.contains(&claim.mac));
                        if claim.is_some() {
                            return claim;
                        }
                    }
                    Err(Errno::EINTR) => {}
                    // It is time, or the link went down.
                    Err(_) => return None,
                }
            }
            None
        })
    }
}
