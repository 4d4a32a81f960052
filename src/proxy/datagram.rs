//! Datagrams with both of their addresses: received with the address that was called, and answered from it (IP_PKTINFO of ip(7), IPV6_PKTINFO
//! of RFC 3542). On a wildcard socket the kernel would answer from whichever address the route prefers.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg};

/// The largest datagram, and more: what IP can carry.
pub const LARGEST: usize = 65_536;

/// Who sent a datagram, and to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    pub client: SocketAddr,
    /// `None` where the socket has one address alone.
    pub called: Option<Called>,
}

/// An address of ours that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Called {
    address: IpAddr,
    /// The interface, where the address means nothing without it; else 0.
    interface: u32,
}

/// Takes one datagram from a socket that does not block, and its length.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
    let mut control = cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let client = message.address.as_ref().and_then(address).ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    let called = message.cmsgs()?.find_map(|message| match message {
        // Not the destination in the header, which may be a broadcast address, but the address of ours that an answer has.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Called { address: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(), interface: 0 })
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let local = address.is_unicast_link_local();
            (!address.is_multicast()).then_some(Called { address: address.into(), interface: if local { info.ipi6_ifindex } else { 0 } })
        }
        _ => None,
    });
    Ok((message.bytes, Path { client, called }))
}

/// Sends a datagram back along the path, from a socket that does not block.
pub fn send_back(socket: &UdpSocket, bytes: &[u8], path: &Path) -> io::Result<()> {
    let (fd, parts, flags) = (socket.as_raw_fd(), [IoSlice::new(bytes)], MsgFlags::MSG_DONTWAIT);
    let (v4, v6);
    let control = match path.called {
        Some(Called { address: IpAddr::V4(address), .. }) => {
            let source = in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(Called { address: IpAddr::V6(address), interface }) => {
            v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: address.octets() }, ipi6_ifindex: interface };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
        None => None,
    };
    let sent = match path.client {
        SocketAddr::V4(client) => sendmsg(fd, &parts, control.as_slice(), flags, Some(&SockaddrIn::from(client))),
        SocketAddr::V6(client) => sendmsg(fd, &parts, control.as_slice(), flags, Some(&SockaddrIn6::from(client))),
    };
    sent?;
    Ok(())
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
}
