//! Traffic that nobody answers: what leaves a machine can be counted, and nothing else follows from it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use crate::{cloud::Seen, machine::Machine, netns::Netns};

impl Machine {
    /// Whether packets leave the machine when the namespace sends: datagrams and calls that nobody waits for.
    pub fn sends_nothing_out(&self, from: &Netns) -> Result<(), String> {
        let ((), seen) = self.watch(|| {
            for server in self.servers() {
                for _ in 0..3 {
                    shout(from, nobody(server));
                }
            }
        });
        if seen.is_empty() { Ok(()) } else { Err(format!("{}: {seen} left", from.name())) }
    }

    /// Calls `f` and returns what has left meanwhile, while somebody sends all the time: [`Machine::watch`] would wait for the end.
    pub fn count(&self, f: impl FnOnce()) -> Seen {
        self.forget();
        f();
        self.seen()
    }

    /// Begins to send datagrams that nobody answers, in one flow a family, and new flows, too, if `fresh`.
    pub fn trickle(&self, from: &Netns, fresh: bool) -> Trickle {
        let kept: Vec<(UdpSocket, SocketAddr)> =
            self.servers().into_iter().map(nobody).map(|to| (from.enter(|| datagrams(to)), to)).collect();
        let (stop, netns) = (Arc::new(AtomicBool::new(false)), from.clone());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            netns.enter(|| {
                while !stopped.load(Ordering::Relaxed) {
                    for (socket, to) in &kept {
                        // What the host refuses on the spot has not left.
                        let _ = socket.send_to(b"?", to);
                        if fresh {
                            let _ = datagrams(*to).send_to(b"?", to);
                        }
                    }
                    thread::sleep(Duration::from_micros(500));
                }
            });
        });
        Trickle { stop, thread: Some(thread) }
    }
}

/// Datagrams that are sent until this is dropped.
pub struct Trickle {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("sending does not panic");
        }
    }
}

fn datagrams(to: SocketAddr) -> UdpSocket {
    UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a port is free")
}

/// Where nobody answers, on the internet, in the family of `like`: what has left can be counted, and nothing else follows from it.
pub fn nobody(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => ([198, 51, 100, 99], 4500).into(),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x99), 4500).into(),
    }
}

/// Sends one datagram and one first packet of a TCP connection, and waits for nothing.
pub(crate) fn shout(from: &Netns, to: SocketAddr) {
    from.enter(|| {
        let _ = datagrams(to).send_to(b"?", to);
    });
    drop(call(from, to));
}

/// Begins a connection, and waits for nothing: the kernel repeats the call until it is answered or the socket is dropped.
pub fn call(from: &Netns, to: SocketAddr) -> OwnedFd {
    from.enter(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let caller = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).expect("a socket can be had");
        let _ = connect(caller.as_raw_fd(), &SockaddrStorage::from(to));
        caller
    })
}
