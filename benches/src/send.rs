//! The sender of packets: a thread in the container's namespace that has a core to itself while it sends.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Instant,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, gettid},
};
use world::{Netns, command};

use crate::host::FAR;

/// Destination ports of new flows: 40,000 from here on.
const FIRST_PORT: u16 = 10_000;

/// Puts the thread on the last core, ahead of all that is not real time: what else runs here is no part of what is measured. Packets are
/// handled in the sender's context all the way (veth, softirq), so that its time is theirs.
pub fn pin() {
    let mut cores = CpuSet::new();
    let core = thread::available_parallelism().expect("the kernel tells").get() - 1;
    cores.set(core).expect("there are that many bits");
    sched_setaffinity(Pid::from_raw(0), &cores).expect("there is such a core");
    command::run(&["chrt", "--fifo", "--pid", "10", &gettid().to_string()]);
}

/// Opens a socket for each source, on a port of its own.
pub fn open(netns: &Netns, sources: &[Ipv4Addr]) -> Vec<UdpSocket> {
    netns.enter(|| sources.iter().map(|source| UdpSocket::bind((*source, 0)).expect("the container holds the address")).collect())
}

/// Nanoseconds a packet, of `packets` that each begin a flow.
pub fn new_flows(sockets: &[UdpSocket], packets: u32) -> f64 {
    assert!(packets < 40_000, "each destination port is used once");
    let began = Instant::now();
    for (port, socket) in (FIRST_PORT..).zip(sockets.iter().cycle()).take(packets as usize) {
        socket.send_to(&[0; 32], (FAR, port)).expect("a UDP packet can be sent");
    }
    each(began, packets)
}

/// Nanoseconds a packet, of `packets` in flows that are known already.
pub fn established(sockets: &[UdpSocket], packets: u32) -> f64 {
    let send = |socket: &UdpSocket| socket.send_to(&[0; 32], (FAR, 9)).expect("a UDP packet can be sent");
    for socket in sockets {
        send(socket);
    }
    let began = Instant::now();
    for socket in sockets.iter().cycle().take(packets as usize) {
        send(socket);
    }
    each(began, packets)
}

fn each(began: Instant, packets: u32) -> f64 {
    began.elapsed().as_nanos() as f64 / f64::from(packets)
}
