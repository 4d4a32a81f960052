//! A NIC's link by packet sockets: who has an address there, and telling that it is here. Needs `CAP_NET_RAW`.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc;
use nix::sys::socket::{LinkAddr, SockaddrStorage, bind};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::model::facts::{Family, IfIndex, is_link_local};
use crate::wire::neighbour::{self, Claim, LONGEST, Mac};

/// What a socket waits for at least; timeouts are in microseconds.
const SHORTEST: Duration = Duration::from_micros(100);

/// How many frames that are there already are read once it is time: a flood of them has no end.
const MOST_LATE: usize = 1024;

/// A NIC, and the frames on its link that tell where addresses of one family are.
pub struct Neighbours {
    socket: Socket,
    mac: Mac,
    /// Those of all NICs of this host: two of them may be on one link, and no neighbour of the other.
    own: BTreeSet<Mac>,
    /// The NIC's own addresses of the family, each with its mask.
    addresses: Vec<(IpAddr, Option<IpAddr>)>,
}

impl Neighbours {
    /// Opens it.
    ///
    /// # Errors
    /// When the NIC is gone or no Ethernet, or `CAP_NET_RAW` is missing.
    pub fn open(nic: IfIndex, family: Family) -> io::Result<Self> {
        let all: Vec<InterfaceAddress> = getifaddrs()?.collect();
        let links = all.iter().filter_map(|one| Some((one.interface_name.as_str(), *one.address?.as_link_addr()?)));
        let links: Vec<(&str, LinkAddr)> = links.collect();
        let own = links.iter().filter_map(|(_, link)| link.addr()).filter(|mac| *mac != [0; 6]).collect();
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let (name, link) = links.into_iter().find(|(_, link)| link.ifindex() == nic as usize).ok_or_else(gone)?;
        if link.halen() != 6 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "its link is no Ethernet"));
        }
        let kind = if family == Family::V4 { neighbour::ARP } else { neighbour::IPV6 };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(kind.to_be()))))?;
        if family == Family::V6 {
            socket.attach_filter(&discovery())?;
        }
        bind(socket.as_raw_fd(), &link)?;
        let of_nic = all.iter().filter(|one| one.interface_name == name);
        let addresses = of_nic.filter_map(|one| Some((ip(one.address?)?, one.netmask.and_then(ip))));
        let addresses = addresses.filter(|(address, _)| Family::of(*address) == family).collect();
        Ok(Self { socket, mac: link.addr().ok_or_else(gone)?, own, addresses })
    }

    /// Asks whether a neighbour has the address.
    ///
    /// # Errors
    /// When the link is down.
    pub fn probe(&self, address: IpAddr) -> io::Result<()> {
        self.send(&neighbour::probe(address, self.mac))
    }

    /// Asks a neighbour whether it is there: the machine that answered last, if it is known. From an address of the NIC that is beside it; `false` when
    /// there is none.
    ///
    /// # Errors
    /// When the link is down.
    pub fn ask(&self, neighbour: IpAddr, last: Option<Mac>) -> io::Result<bool> {
        let of_link = self.addresses.iter().filter(|(own, _)| is_link_local(*own) == is_link_local(neighbour));
        let beside = |(own, mask): &&(IpAddr, Option<IpAddr>)| mask.is_some_and(|mask| are_beside(*own, neighbour, mask));
        let from = of_link.clone().find(beside).or_else(|| of_link.clone().next());
        let frame = from.and_then(|(from, _)| neighbour::ask(neighbour, *from, self.mac, last));
        frame.map_or(Ok(false), |frame| self.send(&frame).map(|()| true))
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
                match (&self.socket).read(&mut frame) {
                    Ok(length) => {
                        let claim = neighbour::read(&frame[..length]).filter(|claim| !self.own.contains(&claim.mac));
                        if claim.is_some() {
                            return claim;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // It is time, or the link went down.
                    Err(_) => return None,
                }
            }
            None
        })
    }
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// Whether two addresses are in one subnet of this mask.
fn are_beside(a: IpAddr, b: IpAddr, mask: IpAddr) -> bool {
    match (a, b, mask) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(mask)) => a & mask == b & mask,
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(mask)) => a & mask == b & mask,
        _ => false,
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
