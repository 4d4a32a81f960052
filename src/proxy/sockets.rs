//! How sockets are made: called in the namespace that they are to be of.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use oxirush_sctp::{InitParams, SocketToAssociation};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use crate::facts::kernel;
use crate::model::proxy::{Dial, Endpoint, Transport};
use crate::own_mark;

/// Connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Bytes of the largest SCTP message that is carried.
pub const LARGEST_MESSAGE: usize = 1 << 20;
/// Streams of an SCTP association, each way, at most.
pub const STREAMS: u16 = 256;
/// A peer that is gone without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// A socket that clients call, and that a worker waits for.
pub enum Listener {
    Tcp(AsyncFd<TcpListener>),
    Udp(AsyncFd<UdpSocket>),
    Sctp(oxirush_sctp::Listener),
}

/// A socket that clients call, in the epoll of `worker`.
pub fn listen(endpoint: &Endpoint, worker: &Handle) -> io::Result<Listener> {
    let Endpoint { transport, address, .. } = endpoint;
    let _entered = worker.enter();
    match transport {
        Transport::Tcp => {
            let socket = make(*transport, *address)?;
            // In spite of connections in TIME-WAIT. For UDP it would let others take the port.
            socket.set_reuse_address(true)?;
            share(&socket, *address)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            kernel::watch(socket.into(), Interest::READABLE).map(Listener::Tcp)
        }
        Transport::Udp => {
            let socket = make(*transport, *address)?;
            share(&socket, *address)?;
            if address.ip().is_unspecified() {
                if address.is_ipv6() {
                    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                } else {
                    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
                }
            }
            socket.bind(&(*address).into())?;
            kernel::watch(socket.into(), Interest::READABLE).map(Listener::Udp)
        }
        Transport::Sctp => {
            let socket = make_sctp(*address)?;
            share(&SockRef::from(&socket), *address)?;
            socket.options().set_init_params(InitParams::streams(STREAMS, STREAMS))?;
            socket.bind(*address)?;
            socket.listen(BACKLOG).map(Listener::Sctp)
        }
    }
}

/// The port may be taken before its address is there, and beside another process of ours.
fn share(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are two ports, whatever `net.ipv6.bindv6only` says.
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        // A namespace mostly comes before its addresses.
        socket.set_freebind_v4(true)?;
    }
    // The next process listens before this one ends.
    socket.set_reuse_port(true)
}

/// A TCP or UDP socket to be connected to a server. It has its source already, if one is given, so that policy rules by source see it.
pub fn dial(transport: Transport, dial: &Dial) -> io::Result<Socket> {
    let socket = make(transport, dial.address)?;
    if let Some(source) = dial.source {
        own_mark::mark(SockRef::from(&socket));
        if transport == Transport::Tcp {
            // The port is chosen when the server is known: each server has all ports of the source (Linux 4.2).
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// The same for SCTP, in the epoll of `worker`, with as many streams as given.
pub fn dial_sctp(dial: &Dial, streams: InitParams, worker: &Handle) -> io::Result<oxirush_sctp::Socket> {
    let _entered = worker.enter();
    let socket = make_sctp(dial.address)?;
    socket.options().set_init_params(streams)?;
    if let Some(source) = dial.source {
        own_mark::mark(SockRef::from(&socket));
        // The association has this address alone; unbound it would have all of the namespace's.
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

/// A one-to-one socket whose messages bear their stream and their payload protocol identifier. What is accepted inherits all of it.
fn make_sctp(like: SocketAddr) -> io::Result<oxirush_sctp::Socket> {
    let new = if like.is_ipv6() { oxirush_sctp::Socket::new_v6 } else { oxirush_sctp::Socket::new_v4 };
    let socket = new(SocketToAssociation::OneToOne)?;
    let options = socket.options();
    options.set_nodelay(true)?;
    options.set_max_message_size(LARGEST_MESSAGE);
    // A message has to fit the buffer, and what does not fit the other side's waits for its acknowledgements, which are delayed. Beyond
    // `net.core.wmem_max` and `rmem_max` it takes CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::SndBufForce, &LARGEST_MESSAGE).is_err() {
        options.set_send_buffer_size(LARGEST_MESSAGE)?;
    }
    if setsockopt(&socket, sockopt::RcvBufForce, &LARGEST_MESSAGE).is_err() {
        options.set_recv_buffer_size(LARGEST_MESSAGE)?;
    }
    Ok(socket)
}

fn make(transport: Transport, like: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = if transport == Transport::Udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    Socket::new(Domain::for_address(like), kind.nonblocking().cloexec(), Some(protocol))
}

/// What both sides of a proxied connection have: no delay of small writes, and dead peers are noticed.
pub fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}
