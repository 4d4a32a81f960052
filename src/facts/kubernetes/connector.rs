//! Connections to the API server, by the host's own way: where all programs of the host are bound to exits, and none of these can be used, the
//! agent has to learn all the same what is to become of them.

use std::io;
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::own_mark;

/// How long a connection to one address may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection on which nothing came for so long is asked by the kernel whether the other end is still there...
const KEEPALIVE: Duration = Duration::from_secs(30);
/// ...again after this time...
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(5);
/// ...and so often, before it is taken for dead.
const KEEPALIVE_RETRIES: u32 = 3;
/// The same while something that was sent is not acknowledged: keepalive does nothing then, and the kernel would try again for 15 minutes.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects to the first address of the server that takes it.
///
/// # Errors
/// Of the address that was tried last; when the server has none.
pub async fn connect(server: Uri) -> io::Result<TokioIo<TcpStream>> {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        own_mark::mark(SockRef::from(&socket));
        keep_alive(SockRef::from(&socket))?;
        match timeout(CONNECT, socket.connect(address)).await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT.as_secs())),
        }
    }
    Err(last)
}

fn keep_alive(socket: SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_and_a_name_are_connected_to_and_who_is_not_there_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        for host in ["127.0.0.1", "localhost"] {
            let stream = connect(format!("https://{host}:{port}/").parse().expect("a URI")).await.expect("it listens");
            assert_eq!(stream.inner().peer_addr().expect("it is connected").port(), port);
            assert!(SockRef::from(stream.inner()).keepalive().expect("it can be asked"));
        }
        let none = std::net::TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr()).expect("a port");
        connect(format!("https://{none}").parse().expect("a URI")).await.expect_err("nobody listens");
    }
}
