//! One port that is served: who it is for just now, its bounds, and what is counted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use k8s_openapi::jiff::Timestamp;
use tracing::{info, warn};

use super::limits::{Descriptors, Full, Permit};
use crate::model::proxy::{Endpoint, Namespace, Proxy};

/// A port that a manifest asks for. Connections keep it until they end.
pub struct Port {
    pub endpoint: Endpoint,
    proxy: RwLock<Arc<Proxy>>,
    pub counts: Counts,
    full: Alarm,
    dial: Alarm,
    unreached: Mutex<Option<Unreached>>,
}

/// What is counted of a port, since it was first served.
#[derive(Default)]
pub struct Counts {
    /// TCP connections, SCTP associations or UDP sessions that are open.
    pub open: AtomicUsize,
    /// Those that were taken.
    pub accepted: AtomicU64,
    /// New ones that a bound refused.
    pub refused: AtomicU64,
    /// New ones that were refused because their binding had no exit that could be used.
    pub without_exit: AtomicU64,
    /// Those whose server could not be reached.
    pub unreached: AtomicU64,
    /// Bytes from clients, and to them.
    pub bytes: [AtomicU64; 2],
}

/// A server that is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    pub since: Timestamp,
    pub error: String,
}

/// A state that is logged when it begins and when it ends.
#[derive(Default)]
struct Alarm(AtomicBool);

impl Alarm {
    /// Whether it begins now.
    fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Whether it ends now.
    fn end(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// One open connection or session, which counts as long as this is kept.
pub struct OpenConnection {
    port: Arc<Port>,
    _descriptors: Permit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.port.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Port {
    /// One that nothing is open of yet.
    pub fn new(endpoint: Endpoint, proxy: Arc<Proxy>) -> Self {
        let (counts, full, dial) = Default::default();
        Self { endpoint, proxy: RwLock::new(proxy), counts, full, dial, unreached: Mutex::default() }
    }

    /// What holds for a connection that begins now.
    pub fn proxy(&self) -> Arc<Proxy> {
        Arc::clone(&self.proxy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another manifest's word from now on.
    pub fn set_proxy(&self, proxy: &Arc<Proxy>) {
        *self.proxy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(proxy);
    }

    /// Whose share of the process's bounds its connections are of: a namespace of the cluster.
    fn tenant(&self) -> Option<String> {
        let of_pod = matches!(self.endpoint.namespace, Namespace::Pod { .. });
        of_pod.then(|| self.proxy().name.split('/').next().unwrap_or_default().to_owned())
    }

    /// Connections or sessions that are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Admits a new connection that needs so many descriptors; `None` at a bound, which is counted.
    pub fn admit(self: &Arc<Self>, limit: usize, descriptors: &Descriptors, count: usize) -> Option<OpenConnection> {
        let open = &self.counts.open;
        let below = |now: usize| (now < limit).then_some(now + 1);
        let why = match open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below) {
            Ok(before) => match descriptors.take(self.tenant().as_deref(), count) {
                Ok(permit) => {
                    self.counts.accepted.fetch_add(1, Ordering::Relaxed);
                    // A port at its bound refuses and takes by turns: it is below it when a tenth is free.
                    if before + before / 10 < limit && self.full.end() {
                        info!(proxy = self.proxy().name, port = %self.endpoint, "accepting new connections again");
                    }
                    return Some(OpenConnection { port: Arc::clone(self), _descriptors: permit });
                }
                Err(full) => {
                    open.fetch_sub(1, Ordering::Relaxed);
                    match full {
                        Full::Process => "the process has no file descriptors left: raise its limit (LimitNOFILE)",
                        Full::Tenant => "connections of this namespace's objects have as many file descriptors as are left for all others",
                    }
                }
            },
            Err(_) => "the manifest allows no more",
        };
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if self.full.begin() {
            warn!(proxy = self.proxy().name, port = %self.endpoint, limit, "refusing new connections: {why}");
        }
        None
    }

    /// A new one is refused because its binding has no exit.
    pub fn without_exit(&self) {
        self.counts.without_exit.fetch_add(1, Ordering::Relaxed);
    }

    /// The server was reached.
    pub fn reached(&self) {
        if self.dial.end() {
            *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = None;
            info!(proxy = self.proxy().name, port = %self.endpoint, "reaches the server again");
        }
    }

    /// Since when the server is not reached, and why; none as long as the last call reached it.
    pub fn unreached(&self) -> Option<Unreached> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server was not reached.
    pub fn not_reached(&self, proxy: &Proxy, error: &io::Error) {
        self.counts.unreached.fetch_add(1, Ordering::Relaxed);
        if self.dial.begin() {
            let since = Unreached { since: Timestamp::now(), error: error.to_string() };
            *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(since);
            let dial = &proxy.dial;
            let source = dial.source.map(tracing::field::display);
            warn!(proxy = proxy.name, port = %self.endpoint, server = %dial.address, from = %dial.from(&self.endpoint.namespace), source, %error, "failed to reach the server");
        }
    }
}
