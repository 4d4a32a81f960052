//! When programs that follow a machine's kernel told of addresses, and how long what followed took.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt};

use crate::machine::Machine;

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
/// `NFT_MSG_NEWSETELEM` of `NFNL_SUBSYS_NFTABLES`.
const NEW_ELEMENTS: u16 = 10 << 8 | 12;
/// Sets whose elements say which port owns an IPv4 address, and which policy it has.
const SETS: [&[u8]; 2] = [b"owners4\0", b"policies\0"];

/// When a program that follows the kernel told of addresses.
pub struct Told(Arc<Mutex<Vec<(Duration, Ipv4Addr)>>>);

impl Told {
    /// Follows a program's lines, as far as they are `of` interest.
    pub fn by(machine: &Machine, program: &[&str], of: fn(&str) -> bool) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let monitor = machine.enter(|| Command::new(program[0]).args(&program[1..]).stdout(Stdio::piped()).spawn());
        let lines = BufReader::new(monitor.expect("it is installed").stdout.expect("it is piped")).lines();
        let seen = Arc::clone(&told);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| of(line)) {
                let now = now();
                let addresses = line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok());
                seen.lock().expect("nobody panics with it").extend(addresses.map(|address| (now, address)));
            }
        });
        Self(told)
    }

    /// Follows the kernel's word on what egressd told it of addresses, which is sent when that is in force. (`nft monitor` reads whole sets
    /// before it prints a line.)
    pub fn by_policies(machine: &Machine) -> Self {
        let open = || socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let socket = machine.enter(open).expect("the kernel has nftables");
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("it may be that large");
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).expect("root may listen");
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) {
                let now = now();
                let addresses: Vec<_> = messages(&buffer[..length]).flat_map(addresses).map(|address| (now, address)).collect();
                seen.lock().expect("nobody panics with it").extend(addresses);
            }
        });
        Self(told)
    }

    /// When an address was first told of from a time on.
    pub fn after(&self, (time, of): (Duration, Ipv4Addr)) -> Option<Duration> {
        let told = self.0.lock().expect("nobody panics with it");
        told.iter().find(|(at, address)| *address == of && *at >= time).map(|(at, _)| *at)
    }
}

/// The time since the epoch.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// The messages of a netlink datagram, with their headers.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let (message, rest) = datagram.split_at_checked(length.next_multiple_of(4))?;
        datagram = rest;
        Some(message)
    })
}

/// Whatever may be an address in a message about new elements: all is aligned to four bytes.
fn addresses(message: &[u8]) -> Vec<Ipv4Addr> {
    let ours = message.get(4..6) == Some(&NEW_ELEMENTS.to_ne_bytes())
        && SETS.iter().any(|set| message.windows(set.len()).any(|name| name == *set));
    let words = message.chunks_exact(4).filter(|_| ours);
    words.filter_map(|word| word.first_chunk::<4>().copied().map(Ipv4Addr::from)).collect()
}

/// The delay that so many percent of the delays do not exceed.
pub fn percentile(delays: &[Duration], percent: usize) -> Duration {
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    let last = delays.len().saturating_sub(1);
    delays.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

/// The 50th and 99th percentile and the longest of some delays, as text.
pub fn percentiles(delays: &[Duration]) -> String {
    let at = |percent| percentile(delays, percent).as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}", at(50), at(99), at(100), delays.len())
}
