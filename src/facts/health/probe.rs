//! One probe of one server.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::tls;
use crate::facts::http;
use crate::model::facts::Family;
use crate::model::health::{Check, Probe};
use crate::own_mark;

/// Bytes of the longest datagram.
const LONGEST: usize = 65_535;

/// Asks a server; else what is wrong. The connection is reset behind it: neither side has to remember it.
pub async fn probe(check: &Check) -> Result<(), String> {
    let at = SocketAddr::new(check.address, check.port);
    if let Probe::Udp { send, expect } = &check.how.probe {
        return ask(at, send, expect.as_deref()).await;
    }
    let stream = connect(check.from, at).await.map_err(|error| words(&error))?;
    stream.set_zero_linger().map_err(|error| words(&error))?;
    match &check.how.probe {
        Probe::Http { path, host, tls } => {
            let host = host.clone().unwrap_or_else(|| at.to_string());
            if *tls { get(tls::connect(stream, &host, at.ip()).await?, path, &host).await } else { get(stream, path, &host).await }
        }
        Probe::Tcp | Probe::Udp { .. } => Ok(()),
    }
}

/// From an exit the socket is bound to it first: the host's own packets with that address leave by its NIC, and by no other exit.
async fn connect(from: Option<IpAddr>, at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    own_mark::mark(SockRef::from(&socket));
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect(at).await
}

/// Sends a datagram, and waits for one that has the text in it. The kernel tells a connected socket of ICMP errors.
async fn ask(at: SocketAddr, send: &[u8], expect: Option<&str>) -> Result<(), String> {
    let any = Family::of(at.ip()).unspecified();
    let failed = |error: io::Error| words(&error);
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    own_mark::mark(SockRef::from(&socket));
    socket.connect(at).await.map_err(failed)?;
    socket.send(send).await.map_err(failed)?;
    let mut answer = vec![0; LONGEST];
    let length = socket.recv(&mut answer).await.map_err(failed)?;
    let has = |text: &str| answer[..length].windows(text.len()).any(|part| part == text.as_bytes());
    match expect {
        Some(text) if !has(text) => Err(format!("its answer has no {text:?} in it")),
        _ => Ok(()),
    }
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, host: &str) -> Result<(), String> {
    let path = path.parse().map_err(|error| format!("{path} is no path: {error}"))?;
    let status = http::get(stream, path, host, async |answer| answer.status()).await.map_err(|error| error.to_string())?;
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("it answers {status}")) }
}

/// `Connection refused`, without the number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
