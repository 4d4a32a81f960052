//! How sockets are made: called in the namespace that they are to be of.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::model::proxy::{Dial, Endpoint, Transport};

/// Connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A peer that is gone without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// A socket that clients call.
pub fn listen(endpoint: &Endpoint) -> io::Result<Socket> {
    let Endpoint { transport, address, .. } = endpoint;
    let socket = make(*transport, *address)?;
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are two ports, whatever `net.ipv6.bindv6only` says.
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        // A namespace mostly comes before its addresses.
        socket.set_freebind_v4(true)?;
    }
    // The next process listens before this one ends.
    socket.set_reuse_port(true)?;
    if *transport == Transport::Tcp {
        // In spite of connections in TIME-WAIT. For UDP it would let others take the port.
        socket.set_reuse_address(true)?;
    }
    if *transport == Transport::Udp && address.ip().is_unspecified() {
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
    }
    socket.bind(&(*address).into())?;
    if *transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// A socket to be connected to a server. It has its source already, if one is given, so that policy rules by source see it.
pub fn dial(transport: Transport, dial: &Dial) -> io::Result<Socket> {
    let socket = make(transport, dial.address)?;
    if let Some(source) = dial.source {
        if transport == Transport::Tcp {
            // The port is chosen when the server is known: each server has all ports of the source (Linux 4.2).
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

fn make(transport: Transport, like: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    Socket::new(Domain::for_address(like), kind.nonblocking().cloexec(), Some(protocol))
}

/// What both sides of a proxied connection have: no delay of small writes, and dead peers are noticed.
pub fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}
