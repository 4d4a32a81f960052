//! TCP: connections are accepted, dialled on, and joined.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use socket2::{SockRef, Socket};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accept::{self, Call};
use super::context::Context;
use super::header::{self, Ends};
use super::port::{OpenConnection, Port};
use super::relay::Relay;
use super::scope::Scope;
use super::sockets;
use crate::model::proxy::{ProxyProtocol, Transport};

/// How long a PROXY protocol header may take to come.
const HEADER: Duration = Duration::from_secs(5);

/// A connection that is reset when dropped, unless it has ended as it should: what is cut off looks cut off at both ends, and no closed socket
/// stays behind in a namespace that is gone (with data still to be sent it would for minutes).
struct Abortive {
    stream: TcpStream,
    ended: bool,
}

impl Drop for Abortive {
    fn drop(&mut self) {
        if !self.ended {
            // An error says that it is not connected.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl Abortive {
    fn new(stream: TcpStream) -> io::Result<Self> {
        sockets::tune(&stream)?;
        Ok(Self { stream, ended: false })
    }

    /// Both directions have ended.
    fn end(mut self) {
        self.ended = true;
    }
}

/// Accepts connections until the namespace is gone, or `retire` asks to end; then what is waiting is still taken.
pub async fn listen(
    listener: AsyncFd<net::TcpListener>,
    port: Arc<Port>,
    scope: Arc<Scope>,
    context: Arc<Context>,
    retire: CancellationToken,
) {
    accept::listen(listener, port, scope, context, retire, |stream, call, place| match place {
        Some(place) => drop(call.context.workers.next().clone().spawn(serve(stream, call, place))),
        // The client is told at once.
        None => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
    })
    .await;
}

async fn serve(stream: net::TcpStream, call: Call, _place: OpenConnection) {
    call.run(call.join(stream)).await;
}

impl Call {
    async fn join(&self, stream: net::TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let local = stream.local_addr()?;
        let mut client = Abortive::new(TcpStream::from_std(stream)?)?;
        let mut ends = Ends { source: self.client, destination: local };
        if self.proxy.trusts(self.client.ip()) {
            let told = timeout(HEADER, read_header(&mut client.stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            ends = told.unwrap_or(ends);
        }
        let dial = &self.proxy.dial;
        let socket = self.context.dial(dial, &self.port.endpoint, |dial| sockets::dial(Transport::Tcp, dial));
        let connect = |socket: Socket| async {
            let link = self.context.chains.dial(self.client, || begin(&socket, dial.address))?;
            let stream = TcpStream::from_std(socket.into())?;
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(()), Err)?;
            Ok((Abortive::new(stream)?, link))
        };
        let ((mut server, _link), scope) = self.reach(socket, connect).await?;
        self.relay(&scope, self.carry(&client.stream, &mut server.stream, ends)).await?;
        // Both sides have said their last word.
        client.end();
        server.end();
        Ok(())
    }

    async fn carry(&self, client: &TcpStream, server: &mut TcpStream, ends: Ends) -> io::Result<()> {
        if self.proxy.dial.proxy_protocol != ProxyProtocol::None {
            server.write_all(&header::encode(self.proxy.dial.proxy_protocol, ends)).await?;
        }
        let [up, down] = &self.port.counts.bytes;
        Relay { pipes: &self.context.pipes, limits: self.proxy.limits, counts: [up, down] }.run(client, server).await
    }
}

/// Begins a connection, and tells the address that it comes from.
fn begin(socket: &Socket, to: SocketAddr) -> io::Result<SocketAddr> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Reads a PROXY protocol header, and not a byte more.
async fn read_header(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut fixed = [0; header::FIXED];
    // The shortest line has 15 bytes.
    let first = header::SIGNATURE.len();
    stream.read_exact(&mut fixed[..first]).await?;
    if fixed[..first] == header::SIGNATURE {
        stream.read_exact(&mut fixed[first..]).await?;
        let mut body = vec![0; header::body_length(&fixed).map_err(wrong)?];
        stream.read_exact(&mut body).await?;
        return header::decode_v2(&fixed, &body).map_err(wrong);
    }
    let mut line = fixed[..first].to_vec();
    while line.starts_with(b"PROXY ") && !line.ends_with(b"\r\n") && line.len() < header::LONGEST_LINE {
        line.push(stream.read_u8().await?);
    }
    header::decode_v1(&line).map_err(wrong)
}
