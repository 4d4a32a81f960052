//! What TCP's connections and SCTP's associations share: they are accepted, admitted, and each has a task of its own.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::context::Context;
use super::port::{OpenConnection, Port};
use super::scope::Scope;
use crate::facts::backoff::Backoff;
use crate::model::proxy::Proxy;

/// How long a server may take to answer a call: SYNs are sent after 1, 3 and 7 seconds as well, and INITs of SCTP like them.
const CONNECT: Duration = Duration::from_secs(10);
/// Descriptors of a joined connection.
const DESCRIPTORS: usize = 2;
/// Pauses when nothing can be accepted, for want of memory for instance.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// How long it is waited for a call that came before the port was closed: one turn of epoll.
const LAST: Duration = Duration::from_millis(2);
/// How long such calls are taken in all.
const LAST_TURN: Duration = Duration::from_millis(50);

/// What calls are accepted from.
pub trait Accept: Send + Sync {
    type Stream: Send;

    /// Waits for the next call. May be dropped while it waits.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Accept for AsyncFd<net::TcpListener> {
    type Stream = net::TcpStream;

    async fn next(&self) -> io::Result<(net::TcpStream, SocketAddr)> {
        self.async_io(Interest::READABLE, net::TcpListener::accept).await
    }
}

impl Accept for oxirush_sctp::Listener {
    type Stream = oxirush_sctp::ConnectedSocket;

    async fn next(&self) -> io::Result<(oxirush_sctp::ConnectedSocket, SocketAddr)> {
        self.accept().await
    }
}

/// A client's call and what it needs.
pub struct Call {
    pub client: SocketAddr,
    pub proxy: Arc<Proxy>,
    pub port: Arc<Port>,
    pub scope: Arc<Scope>,
    pub context: Arc<Context>,
}

/// Accepts calls until the namespace is gone, or `retire` asks to end; then what is waiting is still taken. `serve` begins a task for each, or
/// with no place for it resets it.
pub async fn listen<L: Accept>(
    listener: L,
    port: Arc<Port>,
    scope: Arc<Scope>,
    context: Arc<Context>,
    retire: CancellationToken,
    serve: impl Fn(L::Stream, Call, Option<OpenConnection>) + Send + Sync,
) {
    let admit = |stream, client| {
        let proxy = port.proxy();
        let place = context.admit(&port, &proxy, DESCRIPTORS);
        let call = Call { client, proxy, port: Arc::clone(&port), scope: Arc::clone(&scope), context: Arc::clone(&context) };
        serve(stream, call, place);
    };
    let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
    loop {
        let accepted = tokio::select! {
            biased;
            () = scope.gone.cancelled() => return,
            () = retire.cancelled() => break,
            accepted = listener.next() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                backoff = Backoff::new(PAUSES[0], PAUSES[1]);
                admit(stream, client);
            }
            Err(error) if is_of_connection(&error) => debug!(port = %port.endpoint, %error, "a connection ended before it was accepted"),
            Err(error) => {
                let pause = backoff.wait();
                if pause == PAUSES[0] {
                    warn!(port = %port.endpoint, %error, "failed to accept a connection; open ones continue");
                }
                tokio::select! {
                    () = scope.gone.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    // A busy port always has one more, and the next process has it by now.
    let end = Instant::now() + LAST_TURN;
    while Instant::now() < end {
        match timeout(LAST, listener.next()).await {
            Ok(Ok((stream, client))) => admit(stream, client),
            Ok(Err(error)) if is_of_connection(&error) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Whether it is an error of the connection that was to be accepted (accept(2) tells those, too). Any other would come again at once.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable | TimedOut)
}

impl Call {
    /// Serves it by `join` until that ends, or the namespace is gone.
    pub async fn run(&self, join: impl Future<Output = io::Result<()>>) {
        let ended = tokio::select! {
            biased;
            () = self.scope.gone.cancelled() => Err(io::Error::other("its network namespace is gone")),
            ended = join => ended,
        };
        if let Err(error) = ended {
            debug!(port = %self.port.endpoint, client = %self.client, %error, "a connection was reset");
        }
    }

    /// The server, dialled by `connect` in time and while its namespace is there. What becomes of it is counted.
    pub async fn reach<S, T, F: Future<Output = io::Result<T>>>(
        &self,
        socket: impl Future<Output = io::Result<(S, Arc<Scope>)>>,
        connect: impl FnOnce(S) -> F,
    ) -> io::Result<(T, Arc<Scope>)> {
        let dial = async {
            let (socket, scope) = socket.await?;
            let server = scope.gone.run_until_cancelled(connect(socket)).await;
            let server = server.unwrap_or_else(|| Err(io::Error::other("the network namespace that it is dialled from is gone")))?;
            Ok((server, scope))
        };
        let dialled = timeout(CONNECT, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match &dialled {
            Ok(_) => self.port.reached(),
            Err(error) => self.port.not_reached(&self.proxy, error),
        }
        dialled
    }

    /// Relays by `relay` as long as the namespace `scope`, which was dialled from, is there.
    pub async fn relay<T>(&self, scope: &Scope, relay: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let relayed = scope.gone.run_until_cancelled(relay).await;
        relayed.unwrap_or_else(|| Err(io::Error::other("the network namespace that it was dialled from is gone")))
    }
}
