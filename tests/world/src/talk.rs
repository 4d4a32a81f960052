//! Servers that say which address they see, and clients that ask them.
//!
//! A server answers each connection and each datagram with one line, `ADDRESS PORT`, of the peer it sees. A TCP connection
//! stays open until the client shuts it down, and each line sent is answered the same way, so that a flow can be kept.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// How long a client waits for anything: many times what the way takes, as long as a dropped first packet's repetition.
pub const PATIENCE: Duration = Duration::from_millis(2500);

/// Whom servers have seen, in order: (address and port of the server, peer).
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>>);

impl Guests {
    /// All so far.
    pub fn list(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.0.lock().expect("no server panics while it holds the lock").clone()
    }

    fn add(&self, at: SocketAddr, peer: SocketAddr) {
        self.0.lock().expect("no server panics while it holds the lock").push((at, peer));
    }
}

/// Serves TCP and UDP on these ports of these addresses of the namespace, until the process ends.
///
/// Each address has sockets of its own, so that a datagram is answered from the address that it was sent to.
pub fn serve(netns: &Netns, addresses: &[IpAddr], ports: &[u16]) -> Guests {
    let guests = Guests::default();
    for at in addresses.iter().flat_map(|&address| ports.iter().map(move |&port| SocketAddr::new(address, port))) {
        let (listener, socket) = netns.enter(|| {
            let bound = TcpListener::bind(at).and_then(|listener| Ok((listener, UdpSocket::bind(at)?)));
            bound.unwrap_or_else(|error| panic!("failed to listen on {at}: {error}"))
        });
        let (by_tcp, by_udp) = (guests.clone(), guests.clone());
        thread::spawn(move || serve_tcp(&listener, at, &by_tcp));
        thread::spawn(move || serve_udp(&socket, at, &by_udp));
    }
    guests
}

fn serve_tcp(listener: &TcpListener, at: SocketAddr, guests: &Guests) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let guests = guests.clone();
        thread::spawn(move || {
            // A client that is gone ends only its own connection.
            let _ = talk(stream, at, &guests);
        });
    }
}

fn talk(mut stream: TcpStream, at: SocketAddr, guests: &Guests) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    guests.add(at, peer);
    let line = describe(peer);
    stream.write_all(line.as_bytes())?;
    let asked = BufReader::new(stream.try_clone()?);
    for request in asked.lines() {
        request?;
        stream.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn serve_udp(socket: &UdpSocket, at: SocketAddr, guests: &Guests) {
    let mut datagram = [0; 2048];
    loop {
        // An ICMP error of an earlier answer comes back here as an error; the next datagram is what counts.
        if let Ok((_, peer)) = socket.recv_from(&mut datagram) {
            guests.add(at, peer);
            let _ = socket.send_to(describe(peer).as_bytes(), peer);
        }
    }
}

fn describe(peer: SocketAddr) -> String {
    format!("{} {}\n", peer.ip(), peer.port())
}

/// Reads a server's answer.
pub fn parse(line: &str) -> io::Result<SocketAddr> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not a server's answer: {line:?}"));
    let (address, port) = line.trim().split_once(' ').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    Ok(SocketAddr::new(address, port.parse().map_err(|_| invalid())?))
}

/// A connection to a server that is kept.
pub struct Flow {
    stream: BufReader<TcpStream>,
    /// The peer that the server saw.
    pub seen: SocketAddr,
}

impl Flow {
    /// Connects from the namespace.
    pub fn open(netns: &Netns, to: SocketAddr) -> io::Result<Self> {
        Self::over(netns.enter(|| connect(to))?)
    }

    /// Connects from an address of the namespace.
    pub fn open_from(netns: &Netns, from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = netns.enter(|| Socket::new(Domain::for_address(to), Type::STREAM, None))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Self::over(patient(socket.into())?)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        let seen = parse(&line(&mut stream)?)?;
        Ok(Self { stream, seen })
    }

    /// Asks again on the same connection.
    pub fn ask(&mut self) -> io::Result<SocketAddr> {
        self.stream.get_mut().write_all(b"again\n")?;
        parse(&line(&mut self.stream)?)
    }

    /// Sends something on the same connection, and waits for nothing.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"again\n")
    }

    /// Ends the connection from both sides, so that no packet of it comes later.
    pub fn close(mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown(Shutdown::Write)?;
        self.stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Sends one datagram from this address, and waits for nothing. It begins a flow: no port is used again, as the kernel's choice may be.
pub fn shout(netns: &Netns, from: IpAddr, to: SocketAddr) {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let from = SocketAddr::new(from, NEXT.fetch_add(1, Ordering::Relaxed));
    let sent = netns.enter(|| UdpSocket::bind(from).and_then(|socket| socket.send_to(b"?", to)));
    sent.unwrap_or_else(|error| panic!("{} cannot send from {from} to {to}: {error}", netns.name()));
}

/// Asks a server by a new TCP connection.
pub fn ask_tcp(netns: &Netns, to: SocketAddr) -> io::Result<SocketAddr> {
    let flow = Flow::open(netns, to)?;
    let seen = flow.seen;
    flow.close()?;
    Ok(seen)
}

/// Asks a server by so many new TCP connections, one client after the other; how often it saw whom.
pub fn peers(clients: &[Netns], to: SocketAddr, times: usize) -> BTreeMap<IpAddr, usize> {
    let mut peers = BTreeMap::new();
    for client in clients.iter().cycle().take(times) {
        let peer = ask_tcp(client, to).unwrap_or_else(|error| panic!("{} to {to}: {error}", client.name()));
        *peers.entry(peer.ip()).or_default() += 1;
    }
    peers
}

/// Asks a server by one datagram from a new port.
pub fn ask_udp(netns: &Netns, to: SocketAddr) -> io::Result<SocketAddr> {
    ask_udp_from(netns, unspecified(to), to)
}

/// Asks a server by one datagram from this address and port.
pub fn ask_udp_from(netns: &Netns, from: SocketAddr, to: SocketAddr) -> io::Result<SocketAddr> {
    let socket = netns.enter(|| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        io::Result::Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who am I?\n")?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer[..length]))
}

/// Asks a web server and returns the body of its answer.
pub fn get(netns: &Netns, at: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = netns.enter(|| connect(at))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .or_else(|| answer.split_once("\n\n"))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {answer:?}")))?;
    if head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(head.to_owned()))
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    patient(TcpStream::connect_timeout(&to, PATIENCE)?)
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    let any = if like.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    any.parse().expect("it is an address")
}
