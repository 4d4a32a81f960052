//! TCP: connections are accepted, dialled on, and joined.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::context::{Context, Scope};
use super::header::{self, Ends};
use super::port::{Place, Port};
use super::relay::Relay;
use super::sockets;
use crate::facts::backoff::Backoff;
use crate::model::proxy::{Proxy, ProxyProtocol, Transport};

/// How long a server may take to answer a call: SYNs are sent after 1, 3 and 7 seconds as well.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a PROXY protocol header may take to come.
const HEADER: Duration = Duration::from_secs(5);
/// Descriptors of a joined connection.
const DESCRIPTORS: usize = 2;
/// Pauses when nothing can be accepted, for want of memory for instance.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

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
    let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
    loop {
        let accepted = tokio::select! {
            biased;
            () = scope.gone.cancelled() => return,
            () = retire.cancelled() => break,
            accepted = listener.async_io(Interest::READABLE, net::TcpListener::accept) => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                backoff = Backoff::new(PAUSES[0], PAUSES[1]);
                admit(stream, client, &port, &scope, &context);
            }
            Err(error) if is_of_connection(&error) => debug!(port = %port.endpoint, %error, "a connection ended before it was accepted"),
            Err(error) => {
                let pause = backoff.wait();
                if pause == PAUSES[0] {
                    warn!(port = %port.endpoint, %error, "failed to accept a connection; those that are open go on");
                }
                tokio::select! {
                    () = scope.gone.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    while let Ok((stream, client)) = listener.get_ref().accept() {
        admit(stream, client, &port, &scope, &context);
    }
}

/// Whether it is an error of the connection that was to be accepted (accept(2) tells those, too). Any other would come again at once.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable | TimedOut)
}

fn admit(stream: net::TcpStream, client: SocketAddr, port: &Arc<Port>, scope: &Arc<Scope>, context: &Arc<Context>) {
    let proxy = port.proxy();
    let Some(place) = port.admit(proxy.limits.open, &context.descriptors, DESCRIPTORS) else {
        // The client is told at once.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    };
    let call = Call { client, proxy, port: Arc::clone(port), scope: Arc::clone(scope), context: Arc::clone(context) };
    context.workers.next().spawn(call.serve(stream, place));
}

/// A client's connection and what it needs.
struct Call {
    client: SocketAddr,
    proxy: Arc<Proxy>,
    port: Arc<Port>,
    scope: Arc<Scope>,
    context: Arc<Context>,
}

impl Call {
    async fn serve(self, stream: net::TcpStream, _place: Place) {
        let ended = tokio::select! {
            biased;
            () = self.scope.gone.cancelled() => Err(io::Error::other("its network namespace is gone")),
            ended = self.join(stream) => ended,
        };
        if let Err(error) = ended {
            debug!(port = %self.port.endpoint, client = %self.client, %error, "a connection was reset");
        }
    }

    async fn join(&self, stream: net::TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let local = stream.local_addr()?;
        let mut client = Abortive::new(TcpStream::from_std(stream)?)?;
        let mut ends = Ends { source: self.client, destination: local };
        if self.proxy.trusts(self.client.ip()) {
            let told = timeout(HEADER, read_header(&mut client.stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            ends = told.unwrap_or(ends);
        }
        let dialled = timeout(CONNECT, self.dial()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (mut server, scope) = match dialled {
            Ok(dialled) => dialled,
            Err(error) => {
                self.port.not_reached(&self.proxy, &error);
                return Err(error);
            }
        };
        self.port.reached();
        tokio::select! {
            biased;
            () = scope.gone.cancelled() => Err(io::Error::other("the network namespace that it was dialled from is gone")),
            joined = self.relay(&client.stream, &mut server.stream, ends) => joined,
        }?;
        // Both sides have said their last word.
        client.end();
        server.end();
        Ok(())
    }

    async fn dial(&self) -> io::Result<(Abortive, Arc<Scope>)> {
        let (socket, scope) = self.context.dial(Transport::Tcp, &self.proxy.dial).await?;
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(self.proxy.dial.address);
        let stream = tokio::select! {
            biased;
            () = scope.gone.cancelled() => return Err(io::Error::other("the network namespace that it is dialled from is gone")),
            stream = connecting => stream?,
        };
        Ok((Abortive::new(stream)?, scope))
    }

    async fn relay(&self, client: &TcpStream, server: &mut TcpStream, ends: Ends) -> io::Result<()> {
        if self.proxy.dial.proxy_protocol != ProxyProtocol::None {
            server.write_all(&header::encode(self.proxy.dial.proxy_protocol, ends)).await?;
        }
        let [up, down] = &self.port.counts.bytes;
        Relay { pipes: &self.context.pipes, limits: self.proxy.limits, counts: [up, down] }.run(client, server).await
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
