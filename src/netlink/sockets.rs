//! Sockets of this network namespace that take calls, and open connections, as `sock_diag` tells them (`include/uapi/linux/inet_diag.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::routing::family_number;
use crate::model::facts::{Family, IfIndex};
use crate::model::ports::Protocol;
use crate::wire::{Message, Received, attributes_after, flags, number};

/// `SOCK_DIAG_BY_FAMILY`, of requests and of answers.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`.
const FIXED: usize = 72;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// `INET_DIAG_MARK`.
const MARK: u16 = 15;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP: u16 = 21;
/// Connections that a program may still use: `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`.
const OPEN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
/// Where `struct inet_diag_sockid` is in requests, and in answers.
const ID: [usize; 2] = [8, 4];
/// Length of that.
const ID_LENGTH: usize = 48;
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
    /// It is in the state `TCP_LISTEN`; of UDP none is.
    pub listens: bool,
    /// An IPv6 socket that takes calls by IPv4, too, if it is bound to `::`.
    pub dual_stack: bool,
    /// What it is bound to by `SO_BINDTODEVICE`.
    pub interface: Option<IfIndex>,
    pub user: u32,
    pub inode: u32,
}

/// The message that asks for all of a family: TCP sockets that listen, SCTP sockets, UDP sockets that are connected to nobody.
pub fn dump(protocol: Protocol, family: Family) -> Message {
    let states = match protocol {
        Protocol::Udp => 1 << CLOSE,
        Protocol::Tcp | Protocol::Sctp => 1 << LISTEN,
    };
    Message::new(BY_FAMILY, flags::DUMP, &request(family, protocol, states))
}

fn request(family: Family, protocol: Protocol, states: u32) -> [u8; REQUEST] {
    let mut head = [0; REQUEST];
    head[0] = family_number(family);
    head[1] = protocol.number();
    head[4..8].copy_from_slice(&u32::to_ne_bytes(states));
    head
}

/// An open TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end. Of IPv4 also where an IPv6 socket has the mapped form of it.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub user: u32,
    /// `SO_MARK`.
    pub mark: u32,
    /// The control group of version 2 that its socket was made in.
    pub cgroup: Option<u64>,
    family: Family,
    /// As the kernel tells it from all others.
    id: [u8; ID_LENGTH],
}

/// The message that asks for all connections of a family that are open.
pub fn dump_connections(family: Family) -> Message {
    Message::new(BY_FAMILY, flags::DUMP, &request(family, Protocol::Tcp, OPEN))
}

/// Reads one of the answers.
pub fn connection(message: &Received<'_>) -> Option<Connection> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED).filter(|_| message.kind == BY_FAMILY)?.try_into().ok()?;
    let family = if head[0] == family_number(Family::V6) { Family::V6 } else { Family::V4 };
    let end =
        |port: usize, at: usize| Some(SocketAddr::new(address(family, &head[at..])?, u16::from_be_bytes([head[port], head[port + 1]])));
    let mut connection = Connection {
        source: end(4, 8)?,
        destination: end(6, 24)?,
        user: number(&head[64..])?,
        mark: 0,
        cgroup: None,
        family,
        id: *head[ID[1]..].first_chunk()?,
    };
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            MARK => connection.mark = number(value)?,
            CGROUP => connection.cgroup = Some(u64::from_ne_bytes(*value.first_chunk()?)),
            _ => {}
        }
    }
    Some(connection)
}

/// The message that ends a connection: its program gets an error (`ECONNABORTED`), and the other end a reset. The kernel refuses it with
/// `EOPNOTSUPP` where it is built without `CONFIG_INET_DIAG_DESTROY`.
pub fn destroy(connection: &Connection) -> Message {
    let mut head = request(connection.family, Protocol::Tcp, OPEN);
    head[ID[0]..].copy_from_slice(&connection.id);
    Message::new(DESTROY, 0, &head)
}

/// An address as `struct inet_diag_sockid` has it.
fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical()),
        Family::V4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
    }
}

/// Reads one of the answers; `None` for a socket that has no port.
pub fn socket(message: &Received<'_>) -> Option<Socket> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED).filter(|_| message.kind == BY_FAMILY)?.try_into().ok()?;
    let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let is_v6 = head[0] == family_number(Family::V6);
    let address = address(if is_v6 { Family::V6 } else { Family::V4 }, &head[8..])?;
    let v6_only = attributes_after(message.payload, FIXED).any(|(kind, value)| kind == V6_ONLY && value != [0]);
    let port = u16::from_be_bytes([head[4], head[5]]);
    (port != 0).then(|| Socket {
        address,
        port,
        listens: u32::from(head[1]) == LISTEN,
        dual_stack: is_v6 && !v6_only,
        interface: Some(number(40)).filter(|index| *index != 0),
        user: number(64),
        inode: number(68),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::netlink::Channel;
    use crate::netlink::testing::alone;

    fn all(protocol: Protocol) -> Vec<Socket> {
        let mut channel = Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).expect("the kernel has it");
        let of = [Family::V4, Family::V6].map(|family| channel.dump(&dump(protocol, family), |message| socket(&message)).expect("a dump"));
        of.concat()
    }

    #[test]
    fn an_open_connection_is_told_and_ended_by_what_tells_it_from_others() {
        alone(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let at = listener.local_addr().expect("bound");
            let [mut ended, mut kept] = [(); 2].map(|()| TcpStream::connect(at).expect("it listens"));
            let mut channel = Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).expect("the kernel has it");
            let mut open = || channel.dump(&dump_connections(Family::V4), |message| connection(&message)).expect("a dump");
            let of = |stream: &TcpStream, all: &[Connection]| {
                let own = stream.local_addr().expect("connected");
                all.iter().find(|connection| (connection.source, connection.destination) == (own, at)).cloned()
            };
            let all = open();
            let told = of(&ended, &all).expect("it is open");
            assert!(of(&kept, &all).is_some() && told.user == 0 && told.mark == 0, "{told:?}");
            channel.request(destroy(&told), |_| {}).expect("this kernel has CONFIG_INET_DIAG_DESTROY");
            let error = ended.read(&mut [0]).expect_err("it was ended");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
            kept.write_all(b"?").expect("it goes on");
            let again = channel.request(destroy(&told), |_| {}).expect_err("it is gone");
            assert_eq!(again.errno(), Some(nix::libc::ENOENT));
        });
    }

    #[test]
    fn what_this_process_listens_on_is_told() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let dual = TcpListener::bind("[::]:0").expect("a port");
        let connected = TcpStream::connect(tcp.local_addr().expect("bound")).expect("it listens");
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
