//! One port that manifests ask for: opened, failed or waiting, and what there is to say of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::context::Context;
use super::exits::Exits;
use super::limits::Permit;
use super::port::{Port, Unreached};
use super::report::{PortReport, State, Unreachable};
use super::scope::Scope;
use super::sockets::Listener;
use super::{sctp, tcp, udp};
use crate::facts::backoff::Backoff;

/// Between two tries to open a port, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// A port that manifests ask for.
pub struct Served {
    pub port: Arc<Port>,
    pub state: Opened,
}

/// What became of it.
pub enum Opened {
    /// Its namespace is not there, or it was not tried yet.
    No,
    Yes {
        scope: Arc<Scope>,
        retire: CancellationToken,
        task: JoinHandle<()>,
        _descriptor: Permit,
    },
    Failed {
        error: String,
        due: Instant,
        backoff: Backoff,
    },
}

impl Served {
    /// One that was not tried yet.
    pub fn new(port: Arc<Port>) -> Self {
        Self { port, state: Opened::No }
    }

    /// A namespace took its sockets along when it went.
    pub fn forget_gone(&mut self, now: Option<Arc<Scope>>) {
        match &self.state {
            Opened::Yes { scope, .. } if scope.gone.is_cancelled() => {
                info!(proxy = self.port.proxy().name, port = %self.port.endpoint, "stopped listening: the network namespace is gone");
            }
            Opened::Failed { .. } if now.is_none() => {}
            _ => return,
        }
        self.state = Opened::No;
    }

    /// Whether it is to be opened now.
    pub fn is_due(&self) -> bool {
        match &self.state {
            Opened::No => true,
            Opened::Yes { .. } => false,
            Opened::Failed { due, .. } => *due <= Instant::now(),
        }
    }

    /// Serves what was opened, in the namespace of `scope`.
    pub fn begin(&mut self, opened: io::Result<Listener>, worker: &Handle, scope: &Arc<Scope>, context: &Arc<Context>) {
        let port = &self.port;
        let descriptor = context.descriptors.take(None, 1).map_err(|_| io::Error::other("no file descriptors are left; raise LimitNOFILE"));
        let (listener, descriptor) = match opened.and_then(|listener| Ok((listener, descriptor?))) {
            Ok(opened) => opened,
            Err(error) => return self.fail(&error),
        };
        let retire = CancellationToken::new();
        let (port, kept, all, ends) = (Arc::clone(port), Arc::clone(scope), Arc::clone(context), retire.clone());
        let task = match listener {
            Listener::Tcp(listener) => worker.spawn(tcp::listen(listener, port, kept, all, ends)),
            Listener::Udp(socket) => worker.spawn(udp::listen(socket, port, kept, all, ends)),
            Listener::Sctp(listener) => worker.spawn(sctp::listen(listener, port, kept, all, ends)),
        };
        let port = &self.port;
        info!(proxy = port.proxy().name, port = %port.endpoint, "listening");
        self.state = Opened::Yes { scope: Arc::clone(scope), retire, task, _descriptor: descriptor };
    }

    /// It could not be opened, and is tried again later.
    pub fn fail(&mut self, error: &io::Error) {
        let error = match error.kind() {
            _ if is_unknown(error) => format!("{error}: this kernel has no SCTP; load it by `modprobe sctp`"),
            io::ErrorKind::AddrInUse => format!("{error}: another program has the port; stop it, or take another port"),
            io::ErrorKind::PermissionDenied => format!("{error}: it needs CAP_SYS_ADMIN, and CAP_NET_BIND_SERVICE below port 1024"),
            _ => error.to_string(),
        };
        let mut backoff = match &self.state {
            Opened::Failed { backoff, .. } => backoff.clone(),
            _ => Backoff::new(RETRY[0], RETRY[1]),
        };
        let known = matches!(&self.state, Opened::Failed { error: before, .. } if *before == error);
        if !known {
            warn!(proxy = self.port.proxy().name, port = %self.port.endpoint, "failed to listen: {error}; retrying");
        }
        self.state = Opened::Failed { error, due: Instant::now() + backoff.wait(), backoff };
    }

    /// Takes no new connection any more.
    pub fn retire(&self) {
        if let Opened::Yes { retire, .. } = &self.state {
            retire.cancel();
        }
    }

    /// What there is to say of it.
    pub fn report(&self, exits: &Exits) -> PortReport {
        let Port { endpoint, counts, .. } = &*self.port;
        let (state, reason) = match &self.state {
            Opened::Yes { .. } => (State::Listening, None),
            Opened::No => (State::Waiting, Some(format!("there is no network namespace {}", endpoint.namespace))),
            Opened::Failed { error, .. } => (State::Failing, Some(error.clone())),
        };
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let proxy = self.port.proxy();
        let dial = &proxy.dial;
        let (by, source) = (dial.asked(endpoint), dial.asked_source(endpoint));
        PortReport {
            proxy: proxy.name.clone(),
            network_namespace: endpoint.namespace.to_string(),
            protocol: endpoint.transport.to_string(),
            address: endpoint.address.to_string(),
            server: dial.address.to_string(),
            dialled_from: dial.from(&endpoint.namespace).to_string(),
            source: dial.source,
            binding: dial.binding.clone(),
            exits: by.as_ref().map(|asked| exits.of(asked)).unwrap_or_default(),
            no_exit: by.as_ref().and_then(|asked| exits.refusal(asked)),
            warning: source.as_ref().and_then(|asked| exits.refusal(asked)),
            state,
            reason,
            unreachable: self
                .port
                .unreached()
                .map(|Unreached { since, error }| Unreachable { since: format!("{since:.3}"), reason: error }),
            open: self.port.open(),
            accepted: now(&counts.accepted),
            refused: now(&counts.refused),
            without_exit: now(&counts.without_exit),
            unreached: now(&counts.unreached),
            bytes_up: now(&counts.bytes[0]),
            bytes_down: now(&counts.bytes[1]),
        }
    }
}

/// Whether the kernel does not know the protocol (socket(2)).
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [Errno::EPROTONOSUPPORT, Errno::ESOCKTNOSUPPORT];
    error.raw_os_error().is_some_and(|code| unknown.contains(&Errno::from_raw(code)))
}
