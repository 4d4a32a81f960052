//! A NIC's link by packet sockets: who has an address there, and telling that it is here. Needs `CAP_NET_RAW`.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::model::facts::{Family, IfIndex};
use crate::wire::neighbour::{self, Claim, LONGEST, Mac};

/// A NIC, and the frames on its link that tell where addresses of one family are.
pub struct Neighbours {
    socket: Socket,
    mac: Mac,
    /// Those of all NICs of this host: two of them may be on one link, and no neighbour of the other.
    own: BTreeSet<Mac>,
}

impl Neighbours {
    /// Opens it.
    ///
    /// # Errors
    /// When the NIC is gone or no Ethernet, or `CAP_NET_RAW` is missing.
    pub fn open(nic: IfIndex, family: Family) -> io::Result<Self> {
        let links: Vec<LinkAddr> = getifaddrs()?.filter_map(|one| one.address?.as_link_addr().copied()).collect();
        let own = links.iter().filter_map(LinkAddr::addr).filter(|mac| *mac != [0; 6]).collect();
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let link = links.into_iter().find(|link| link.ifindex() == nic as usize).ok_or_else(gone)?;
        if link.halen() != 6 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "its link is no Ethernet"));
        }
        let kind = if family == Family::V4 { neighbour::ARP } else { neighbour::IPV6 };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(kind.to_be()))))?;
        if family == Family::V6 {
            socket.attach_filter(&discovery())?;
        }
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self { socket, mac: link.addr().ok_or_else(gone)?, own })
    }

    /// Asks whether a neighbour has the address.
    ///
    /// # Errors
    /// When the link is down.
    pub fn probe(&self, address: IpAddr) -> io::Result<()> {
        self.send(&neighbour::probe(address, self.mac))
    }

    /// Tells all neighbours that the address is here.
    ///
    /// # Errors
    /// When the link is down.
    pub fn announce(&self, address: IpAddr) -> io::Result<()> {
        self.send(&neighbour::announce(address, self.mac))
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// What neighbours claim, until then.
    pub fn claims(&self, until: Instant) -> impl Iterator<Item = Claim> {
        std::iter::from_fn(move || {
            let mut frame = [0; LONGEST];
            loop {
                let left = until.checked_duration_since(Instant::now()).filter(|left| *left > Duration::from_micros(1))?;
                self.socket.set_read_timeout(Some(left)).ok()?;
                match (&self.socket).read(&mut frame) {
                    Ok(length) => match neighbour::read(&frame[..length]).filter(|claim| !self.own.contains(&claim.mac)) {
                        Some(claim) => return Some(claim),
                        None => {}
                    },
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // In time, or the link went down.
                    Err(_) => return None,
                }
            }
        })
    }
}

/// Lets IPv6's neighbour discovery through alone: the kernel gives the socket no other frame.
fn discovery() -> [SockFilter; 7] {
    let load = |offset| SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, offset);
    let is = |value: u8, yes, no| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value.into());
    let give = |bytes: usize| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes as u32);
    [
        load(neighbour::NEXT_HEADER_AT),
        is(neighbour::ICMPV6, 0, 4),
        load(neighbour::KIND_AT),
        is(neighbour::SOLICITATION, 1, 0),
        is(neighbour::ADVERTISEMENT, 0, 1),
        give(LONGEST),
        give(0),
    ]
}
