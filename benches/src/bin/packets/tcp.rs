//! TCP between the container and a server behind the router.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::Instant,
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt},
};
use world::Netns;

use bench::{host::FAR, send};

const GREET: u16 = 80;
const SINK: u16 = 81;
const BLOCK: usize = 256 << 10;

/// Starts the server: one port says a byte, one takes all and then says a byte. It ends with the program.
pub fn serve(router: &Netns) {
    let listen = |port| router.enter(|| TcpListener::bind((FAR, port)).expect("the router holds the address"));
    let (greet, sink) = (listen(GREET), listen(SINK));
    thread::spawn(move || {
        send::pin();
        for stream in greet.incoming() {
            // The client resets it: it may be gone.
            let _ = stream.and_then(|mut stream| stream.write_all(b".").and_then(|()| stream.read(&mut [0; 1])));
        }
    });
    thread::spawn(move || {
        send::pin();
        let mut block = vec![0; BLOCK];
        for stream in sink.incoming() {
            let mut stream = stream.expect("a connection is complete when it is accepted");
            while let Ok(1..) = stream.read(&mut block) {}
            let _ = stream.write_all(b".");
        }
    });
}

/// TCP connections a second: made, greeted and reset, one after the other.
pub fn connections(container: &Netns, source: Ipv4Addr, count: u32) -> f64 {
    container.enter(|| {
        send::pin();
        let began = Instant::now();
        for _ in 0..count {
            let mut stream = open(source, GREET);
            stream.read_exact(&mut [0; 1]).expect("the server greets");
            reset(&stream);
        }
        f64::from(count) / began.elapsed().as_secs_f64()
    })
}

/// Bits a second of one connection, from its first byte to the server's word that all is there.
pub fn throughput(container: &Netns, source: Ipv4Addr, bytes: usize) -> f64 {
    container.enter(|| {
        send::pin();
        let mut stream = open(source, SINK);
        let block = vec![0; BLOCK];
        let began = Instant::now();
        for _ in 0..bytes / BLOCK {
            stream.write_all(&block).expect("the server takes all");
        }
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        stream.read_exact(&mut [0; 1]).expect("the server answers");
        let rate = (bytes * 8) as f64 / began.elapsed().as_secs_f64();
        reset(&stream);
        rate
    })
}

fn open(source: Ipv4Addr, port: u16) -> TcpStream {
    let address = |ip, port| SockaddrStorage::from(SocketAddr::from((ip, port)));
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket can be made");
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true).expect("the kernel knows the option");
    bind(fd.as_raw_fd(), &address(source, 0)).expect("the container holds the address");
    connect(fd.as_raw_fd(), &address(FAR, port)).expect("the server listens");
    fd.into()
}

/// Ends it without a wait on either side, so that ports do not run out.
fn reset(stream: &TcpStream) {
    setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("a socket lingers or not");
}
