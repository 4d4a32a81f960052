//! Sockets of this network namespace that take calls, as `sock_diag` tells them (`include/uapi/linux/inet_diag.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::routing::family_number;
use crate::model::facts::{Family, IfIndex};
use crate::model::ports::Protocol;
use crate::wire::{Message, Received, attributes_after, flags};

/// `SOCK_DIAG_BY_FAMILY`, of requests and of answers.
const BY_FAMILY: u16 = 20;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`.
const FIXED: usize = 72;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// `TCP_CLOSE`, which is what a UDP socket is in that is connected to nobody.
const CLOSE: u32 = 7;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;

/// A socket that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Of IPv4 also where an IPv6 socket is bound to the mapped form of it.
    pub address: IpAddr,
    pub port: u16,
    /// An IPv6 socket that takes calls by IPv4, too, if it is bound to `::`.
    pub dual_stack: bool,
    /// What it is bound to by `SO_BINDTODEVICE`.
    pub interface: Option<IfIndex>,
    pub user: u32,
    pub inode: u32,
}

/// The message that asks for all of a family: TCP sockets that listen, UDP sockets that are connected to nobody.
pub fn dump(protocol: Protocol, family: Family) -> Message {
    let states = match protocol {
        Protocol::Udp => 1 << CLOSE,
        Protocol::Tcp | Protocol::Sctp => 1 << LISTEN,
    };
    let mut head = [0; REQUEST];
    head[0] = family_number(family);
    head[1] = protocol.number();
    head[4..8].copy_from_slice(&u32::to_ne_bytes(states));
    Message::new(BY_FAMILY, flags::DUMP, &head)
}

/// Reads one of the answers; `None` for a socket that has no port.
pub fn socket(message: &Received<'_>) -> Option<Socket> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED).filter(|_| message.kind == BY_FAMILY)?.try_into().ok()?;
    let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let is_v6 = head[0] == family_number(Family::V6);
    let source: [u8; 16] = head[8..24].try_into().ok()?;
    let address =
        if is_v6 { Ipv6Addr::from(source).to_canonical() } else { Ipv4Addr::new(source[0], source[1], source[2], source[3]).into() };
    let v6_only = attributes_after(message.payload, FIXED).any(|(kind, value)| kind == V6_ONLY && value != [0]);
    let port = u16::from_be_bytes([head[4], head[5]]);
    (port != 0).then(|| Socket {
        address,
        port,
        dual_stack: is_v6 && !v6_only,
        interface: Some(number(40)).filter(|index| *index != 0),
        user: number(64),
        inode: number(68),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::netlink::Channel;

    fn all(protocol: Protocol) -> Vec<Socket> {
        let mut channel = Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).expect("the kernel has it");
        let of = [Family::V4, Family::V6].map(|family| channel.dump(&dump(protocol, family), |message| socket(&message)).expect("a dump"));
        of.concat()
    }

    #[test]
    fn what_this_process_listens_on_is_told() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let dual = TcpListener::bind("[::]:0").expect("a port");
        let connected = std::net::TcpStream::connect(tcp.local_addr().expect("bound")).expect("it listens");
        let of = |listener: &TcpListener| {
            let at = listener.local_addr().expect("bound");
            all(Protocol::Tcp).into_iter().find(|socket| socket.port == at.port()).map(|socket| (socket.address, socket.dual_stack))
        };
        assert_eq!(of(&tcp), Some((IpAddr::from([127, 0, 0, 1]), false)));
        assert_eq!(of(&dual), Some((Ipv6Addr::UNSPECIFIED.into(), true)));
        let port = connected.local_addr().expect("connected").port();
        assert!(all(Protocol::Tcp).iter().all(|socket| socket.port != port), "a connection takes no calls");
        let open = UdpSocket::bind("[::1]:0").expect("a port");
        let at = open.local_addr().expect("bound");
        let told = || all(Protocol::Udp).into_iter().any(|socket| (socket.address, socket.port) == (at.ip(), at.port()));
        assert!(told());
        open.connect("[::1]:9").expect("an address");
        assert!(!told(), "a connected socket takes no calls but its peer's");
    }
}
