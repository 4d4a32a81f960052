//! UDP: a session for each client and address called, with a connected socket of its own towards the server, until nothing was sent for a while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::context::Context;
use super::datagram::{self, LARGEST, Path};
use super::port::{OpenConnection, Port};
use super::scope::Scope;
use super::sockets;
use crate::facts::kernel;
use crate::model::proxy::Transport;

/// Datagrams that one socket gives in a row before others have their turn.
const BATCH: usize = 64;
/// How often sessions are looked at for idle ones, at the least and at the most.
const SWEEPS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

thread_local! {
    /// One datagram on its way through: it is sent on before the next one is read.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into());
}

/// One client's datagrams.
struct Session {
    server: Arc<AsyncFd<UdpSocket>>,
    last: Arc<AtomicU64>,
    answers: AbortHandle,
    _place: OpenConnection,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Serves the port until its namespace is gone or `retire` asks to end.
pub async fn listen(socket: AsyncFd<UdpSocket>, port: Arc<Port>, scope: Arc<Scope>, context: Arc<Context>, retire: CancellationToken) {
    let socket = Arc::new(socket);
    let (end, mut ended) = mpsc::unbounded_channel();
    let mut server = Server { socket, port, context, sessions: HashMap::new(), start: Instant::now(), end };
    let mut sweep = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = scope.gone.cancelled() => return,
            () = retire.cancelled() => return,
            () = tokio::time::sleep_until(sweep) => {
                let idle = server.port.proxy().limits.idle;
                server.sweep(idle);
                sweep = Instant::now() + (idle / 4).clamp(SWEEPS[0], SWEEPS[1]);
            }
            Some(path) = ended.recv() => drop(server.sessions.remove(&path)),
            ready = server.socket.readable() => match ready {
                Ok(mut ready) => {
                    ready.retain_ready();
                    server.serve().await;
                }
                Err(error) => return warn!(port = %server.port.endpoint, %error, "failed to wait for datagrams"),
            },
        }
    }
}

struct Server {
    socket: Arc<AsyncFd<UdpSocket>>,
    port: Arc<Port>,
    context: Arc<Context>,
    sessions: HashMap<Path, Session>,
    start: Instant,
    /// Told of sessions whose namespace is gone.
    end: mpsc::UnboundedSender<Path>,
}

impl Server {
    /// Sends on what has come, up to a batch of it.
    async fn serve(&mut self) {
        for _ in 0..BATCH {
            let mut new = None;
            let received = self.socket.try_io(Interest::READABLE, |socket| {
                BUFFER.with_borrow_mut(|buffer| {
                    let (length, path) = datagram::receive(socket, buffer)?;
                    match self.sessions.get(&path) {
                        Some(session) => send_on(&self.port, session, &buffer[..length], self.start),
                        None => new = Some((path, buffer[..length].to_vec())),
                    }
                    Ok(())
                })
            });
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error about an earlier answer.
                Err(error) => debug!(port = %self.port.endpoint, %error, "failed to receive a datagram"),
            }
            if let Some((path, first)) = new {
                self.begin(path, &first).await;
            }
        }
        tokio::task::yield_now().await;
    }

    async fn begin(&mut self, path: Path, first: &[u8]) {
        let proxy = self.port.proxy();
        let Some(place) = self.context.admit(&self.port, &proxy, 1) else { return };
        let dialled = async {
            let (socket, scope) = self.context.dial(&proxy.dial, &self.port.endpoint, |dial| sockets::dial(Transport::Udp, dial)).await?;
            socket.connect(&proxy.dial.address.into())?;
            io::Result::Ok((UdpSocket::from(socket), scope))
        };
        let (server, scope) = match dialled.await {
            Ok(dialled) => dialled,
            Err(error) => return self.port.not_reached(&proxy, &error),
        };
        let worker = self.context.workers.next();
        let entered = worker.enter();
        let server = match kernel::watch(server, Interest::READABLE) {
            Ok(server) => Arc::new(server),
            Err(error) => return self.port.not_reached(&proxy, &error),
        };
        drop(entered);
        self.port.reached();
        let last = Arc::new(AtomicU64::new(0));
        let answers = Answers {
            from: Arc::clone(&server),
            to: Arc::clone(&self.socket),
            path,
            port: Arc::clone(&self.port),
            last: Arc::clone(&last),
            start: self.start,
        };
        let end = self.end.clone();
        let carried = async move {
            if scope.gone.run_until_cancelled(answers.carry()).await.is_none() {
                let _ = end.send(path);
            }
        };
        let session = Session { server, last, answers: worker.spawn(carried).abort_handle(), _place: place };
        send_on(&self.port, &session, first, self.start);
        self.sessions.insert(path, session);
    }

    /// Forgets sessions in which nothing was sent for so long.
    fn sweep(&mut self, idle: Duration) {
        let now = millis(self.start);
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.sessions.retain(|_, session| now.saturating_sub(session.last.load(Ordering::Relaxed)) < idle);
    }
}

fn send_on(port: &Port, session: &Session, bytes: &[u8], start: Instant) {
    session.last.store(millis(start), Ordering::Relaxed);
    match session.server.get_ref().send(bytes) {
        Ok(sent) => drop(port.counts.bytes[0].fetch_add(sent as u64, Ordering::Relaxed)),
        // A full queue drops datagrams, here as on any way; other errors are of an earlier one (ICMP).
        Err(error) => debug!(port = %port.endpoint, %error, "failed to forward a datagram"),
    }
}

/// What a server sends back to one client.
struct Answers {
    from: Arc<AsyncFd<UdpSocket>>,
    to: Arc<AsyncFd<UdpSocket>>,
    path: Path,
    port: Arc<Port>,
    last: Arc<AtomicU64>,
    start: Instant,
}

impl Answers {
    async fn carry(self) {
        while let Ok(mut ready) = self.from.readable().await {
            ready.retain_ready();
            for _ in 0..BATCH {
                let carried = self.from.try_io(Interest::READABLE, |socket| {
                    BUFFER.with_borrow_mut(|buffer| {
                        let length = socket.recv(buffer)?;
                        self.send_back(&buffer[..length]);
                        Ok(())
                    })
                });
                match carried {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Nobody listens at the server just now: the next datagram may find somebody.
                    Err(error) => debug!(port = %self.port.endpoint, %error, "failed to receive an answer"),
                    Ok(()) => {}
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn send_back(&self, bytes: &[u8]) {
        self.last.store(millis(self.start), Ordering::Relaxed);
        match datagram::send_back(self.to.get_ref(), bytes, &self.path) {
            Ok(()) => drop(self.port.counts.bytes[1].fetch_add(bytes.len() as u64, Ordering::Relaxed)),
            Err(error) => debug!(port = %self.port.endpoint, %error, "failed to return an answer"),
        }
    }
}

fn millis(start: Instant) -> u64 {
    start.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}
