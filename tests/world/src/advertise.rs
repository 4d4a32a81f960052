//! Router advertisements (RFC 4861), as an IPv6 gateway sends them: the default route of a NIC that was not set up by hand.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt::Ipv6MulticastHops,
    },
};

use crate::netns::Netns;

/// How long the route is to live, in seconds.
const LIFETIME: u16 = 1800;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Advertises the router behind `device` twice a second, until the process ends.
pub(crate) fn start(netns: &Netns, device: &str, prefix: Ipv6Addr) {
    let (socket, index) = netns.enter(|| {
        let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6);
        (socket.expect("root may open a raw socket"), if_nametoindex(device).expect("the device is there"))
    });
    // Receivers drop what may have passed a router.
    setsockopt(&socket, Ipv6MulticastHops, &255).expect("255 hops are allowed");
    let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
    let message = message(prefix);
    thread::spawn(move || {
        loop {
            if let Err(error) = sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty()) {
                eprintln!("failed to advertise: {}", io::Error::from(error));
            }
            thread::sleep(Duration::from_millis(500));
        }
    });
}

/// The kernel fills in the checksum.
fn message(prefix: Ipv6Addr) -> Vec<u8> {
    const ADVERTISEMENT: u8 = 134;
    const HOP_LIMIT: u8 = 64;
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, 0];
    message.extend(LIFETIME.to_be_bytes());
    message.extend([0; 8]); // reachable time and retransmission timer: not said
    // The prefix is on the link; addresses are not made from it, the NICs have theirs.
    const PREFIX: [u8; 4] = [3, 4, 64, 0x80];
    message.extend(PREFIX);
    message.extend(86_400_u32.to_be_bytes());
    message.extend(14_400_u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(prefix.octets());
    message
}
