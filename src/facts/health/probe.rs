//! One probe of one server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

use crate::model::health::{Check, Probe};

/// Asks a server; else what is wrong. The connection is reset behind it: neither side has to remember it.
pub async fn probe(check: &Check) -> Result<(), String> {
    let at = SocketAddr::new(check.address, check.port);
    let stream = connect(check.from, at).await.map_err(|error| words(&error))?;
    stream.set_zero_linger().map_err(|error| words(&error))?;
    match &check.how.probe {
        Probe::Tcp => Ok(()),
        Probe::Http { path, host } => get(stream, path, host.clone().unwrap_or_else(|| at.to_string())).await,
    }
}

/// From an exit the socket is bound to it first: the host's own packets with that address leave by its NIC.
async fn connect(from: Option<IpAddr>, at: SocketAddr) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(at).await };
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(at).await
}

async fn get(stream: TcpStream, path: &str, host: String) -> Result<(), String> {
    let failed = |error: hyper::Error| format!("no answer of HTTP: {error}");
    let uri: Uri = path.parse().map_err(|error| format!("{path} is no path: {error}"))?;
    let request = Request::get(uri)
        .header(HOST, host)
        .header(USER_AGENT, concat!("egressd/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut answer = pin!(async {
        let status = sender.send_request(request).await.map_err(failed)?.status();
        if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("it answers {status}")) }
    });
    tokio::select! {
        answer = &mut answer => answer,
        // Who hangs up behind an answer has given one.
        _ended = connection => answer.await,
    }
}

/// `Connection refused`, without the number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
