//! The loop's state: which ports manifests ask for, which are open, and what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::containers::Containers;
use super::context::{Context, Scope};
use super::limits::Permit;
use super::namespaces::Namespaces;
use super::port::{Port, Unreached};
use super::report::{PortReport, Report, State, Unreachable};
use super::sockets::{self, Listener};
use super::{sctp, tcp, udp};
use crate::facts::backoff::Backoff;
use crate::model::field_error::ManifestError;
use crate::model::manifests::Manifests;
use crate::model::proxy::{Endpoint, InContainers, Namespace, Proxy, assign};

/// Between two tries to open a port, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// Objects whose errors the agent tells.
const OTHERS: [&str; 3] = ["EgressBinding ", "EgressNetwork ", "EgressPool "];

/// All that the process knows and does.
pub struct Control {
    context: Arc<Context>,
    /// What manifests say that can be served, by name.
    proxies: BTreeMap<String, Arc<Proxy>>,
    /// What is wrong with manifests.
    errors: Vec<ManifestError>,
    problems: Vec<String>,
    ports: BTreeMap<Endpoint, Served>,
    /// Ports that no manifest asks for any more, while connections of theirs are open.
    leaving: Vec<Arc<Port>>,
    /// Manifests have been read.
    read: bool,
    /// Nothing is opened any more.
    retired: bool,
}

/// A port that manifests ask for.
struct Served {
    port: Arc<Port>,
    state: Opened,
}

enum Opened {
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

impl Control {
    /// Knows nothing yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            proxies: BTreeMap::new(),
            errors: Vec::new(),
            problems: Vec::new(),
            ports: BTreeMap::new(),
            leaving: Vec::new(),
            read: false,
            retired: false,
        }
    }

    /// Takes what manifests say now. A proxy that is wrong now stays as it was. [`Control::assign`] has to follow.
    pub fn take(&mut self, said: Manifests) {
        let mut proxies: BTreeMap<String, Arc<Proxy>> = said.proxies.into_iter().map(|proxy| (proxy.name.clone(), proxy)).collect();
        let concerns = |error: &ManifestError| !OTHERS.iter().any(|kind| error.object.starts_with(kind));
        let mut errors: Vec<ManifestError> = said.errors.into_iter().filter(concerns).collect();
        let is_wrong = |proxy: &Proxy| errors.iter().any(|error| error.object == proxy.object());
        let kept = self.proxies.values().filter(|proxy| !proxies.contains_key(&proxy.name) && is_wrong(proxy));
        let kept: Vec<Arc<Proxy>> = kept.cloned().collect();
        for error in errors.iter_mut().filter(|error| kept.iter().any(|proxy| error.object == proxy.object())) {
            error.error.message.push_str(" (what it said before stays in force)");
        }
        proxies.extend(kept.into_iter().map(|proxy| (proxy.name.clone(), proxy)));
        self.proxies = proxies;
        self.errors = errors;
        self.read = true;
    }

    /// Ports that manifests ask for in containers.
    pub fn in_containers(&self) -> Vec<InContainers> {
        self.proxies.values().filter_map(|proxy| proxy.containers.clone()).collect()
    }

    /// Finds which ports are to be served now: by manifests, in the containers that run.
    pub fn assign(&mut self, containers: &Containers, namespaces: &mut Namespaces) {
        let (wanted, clashes) = assign(self.proxies.values(), &containers.running());
        let wrong = self.errors.iter().chain(&clashes).map(|error| format!("{}: {}", error.object, error.error));
        self.tell(wrong.chain(containers.problem()).collect());
        let leaving = &mut self.leaving;
        leaving.retain(|port| port.open() > 0);
        self.ports.retain(|endpoint, served| {
            let stays = wanted.contains_key(endpoint);
            if !stays {
                info!(proxy = served.port.proxy().name, port = %endpoint, "listens no more: nothing asks for it");
                served.retire();
                leaving.push(Arc::clone(&served.port));
            }
            stays
        });
        for (endpoint, proxy) in wanted {
            match self.ports.get(&endpoint) {
                Some(served) => served.port.set_proxy(&proxy),
                None => {
                    let port = Arc::new(Port::new(endpoint.clone(), proxy));
                    self.ports.insert(endpoint, Served { port, state: Opened::No });
                }
            }
        }
        namespaces.want(self.wanted().iter().filter_map(|namespace| namespace.file().map(Into::into)).collect());
    }

    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{problem}");
        }
        self.problems = problems;
    }

    /// Namespaces that have to be watched: those of ports, those that are dialled from, and those that sockets of ours are still in.
    fn wanted(&self) -> BTreeSet<Namespace> {
        let dialled = self.proxies.values().map(|proxy| &proxy.dial.namespace);
        let named: BTreeSet<&Namespace> = self.ports.keys().map(|endpoint| &endpoint.namespace).chain(dialled).collect();
        named.into_iter().cloned().chain(self.context.scopes.in_use()).collect()
    }

    /// Ends what is in namespaces that are gone, and opens what can be opened.
    pub async fn round(&mut self, namespaces: &mut Namespaces) {
        let mut now = BTreeMap::from([(Namespace::Host, None)]);
        now.extend(self.wanted().into_iter().filter_map(|namespace| {
            let id = namespaces.known().get(namespace.file()?).copied()??;
            Some((namespace, Some(id)))
        }));
        self.context.scopes.set(&now);
        let mut openings: BTreeMap<Namespace, Vec<Endpoint>> = BTreeMap::new();
        for (endpoint, served) in &mut self.ports {
            served.forget_gone(self.context.scopes.get(&endpoint.namespace));
            if !self.retired && served.is_due() && now.contains_key(&endpoint.namespace) {
                openings.entry(endpoint.namespace.clone()).or_default().push(endpoint.clone());
            }
        }
        for (namespace, endpoints) in openings {
            self.open_all(&namespace, endpoints).await;
        }
    }

    /// Opens ports of one namespace, all in one visit.
    async fn open_all(&mut self, namespace: &Namespace, endpoints: Vec<Endpoint>) {
        let Some(scope) = self.context.scopes.get(namespace) else { return };
        let endpoints = self.without_shared(namespace, &scope, endpoints);
        if endpoints.is_empty() {
            return;
        }
        let workers: Vec<Handle> = endpoints.iter().map(|_| self.context.workers.next().clone()).collect();
        let asked: Vec<(Endpoint, Handle)> = endpoints.iter().cloned().zip(workers.iter().cloned()).collect();
        let open = move || Ok(asked.iter().map(|(endpoint, worker)| sockets::listen(endpoint, worker)).collect::<Vec<_>>());
        let opened = match (namespace.file(), scope.id) {
            (Some(path), Some(id)) => self.context.opener.enter(path.to_owned(), id, open).await,
            _ => open(),
        };
        let opened = match opened {
            Ok(opened) => opened,
            // It is gone, and the next look finds that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => endpoints.iter().map(|_| Err(io::Error::new(error.kind(), error.to_string()))).collect(),
        };
        for ((endpoint, worker), opened) in endpoints.iter().zip(&workers).zip(opened) {
            if let Some(served) = self.ports.get_mut(endpoint) {
                served.begin(opened, worker, &scope, &self.context);
            }
        }
    }

    /// Leaves out ports that are open already in the same namespace under another of its names: the kernel would give each of the two sockets
    /// half of the connections.
    fn without_shared(&mut self, namespace: &Namespace, scope: &Scope, mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        for name in self.context.scopes.other_names(namespace, scope, self.context.home) {
            endpoints.retain(|endpoint| {
                let other = self.ports.get(&Endpoint { namespace: name.clone(), ..endpoint.clone() });
                let Some(other) = other.filter(|other| matches!(other.state, Opened::Yes { .. })) else { return true };
                let object = other.port.proxy().object();
                let error = format!("this network namespace is also {name}, where {object} serves the port; keep one of them");
                self.ports.entry(endpoint.clone()).and_modify(|served| served.fail(&io::Error::other(error)));
                false
            });
        }
        endpoints
    }

    /// When a port that failed is tried again.
    pub fn due(&self) -> Option<Instant> {
        let failed = self.ports.values().filter_map(|served| match &served.state {
            Opened::Failed { due, .. } => Some(*due),
            _ => None,
        });
        failed.min()
    }

    /// Whether manifests have been read, and each port was tried.
    pub fn is_ready(&self) -> bool {
        self.read && !self.retired
    }

    /// Listens no more.
    pub fn retire(&mut self) {
        self.retired = true;
        self.ports.values().for_each(Served::retire);
    }

    /// Connections and sessions that are open.
    pub fn open(&self) -> usize {
        self.ports.values().map(|served| &served.port).chain(&self.leaving).map(|port| port.open()).sum()
    }

    /// Whether nothing is listened for any more, and nothing is open.
    pub fn is_over(&self) -> bool {
        // What waited to be accepted is open by the time that a listener has ended.
        let listens = |served: &Served| matches!(&served.state, Opened::Yes { task, .. } if !task.is_finished());
        self.retired && !self.ports.values().any(listens) && self.open() == 0
    }

    /// What there is to say.
    pub fn report(&self) -> Report {
        let ports = self.ports.values().map(Served::report).collect();
        Report { ready: self.is_ready(), problems: self.problems.clone(), ports, free_descriptors: self.context.descriptors.free() }
    }
}

impl Served {
    /// A namespace took its sockets along when it went.
    fn forget_gone(&mut self, now: Option<Arc<Scope>>) {
        match &self.state {
            Opened::Yes { scope, .. } if scope.gone.is_cancelled() => {
                info!(proxy = self.port.proxy().name, port = %self.port.endpoint, "listens no more: the network namespace is gone");
            }
            Opened::Failed { .. } if now.is_none() => {}
            _ => return,
        }
        self.state = Opened::No;
    }

    fn is_due(&self) -> bool {
        match &self.state {
            Opened::No => true,
            Opened::Yes { .. } => false,
            Opened::Failed { due, .. } => *due <= Instant::now(),
        }
    }

    fn begin(&mut self, opened: io::Result<Listener>, worker: &Handle, scope: &Arc<Scope>, context: &Arc<Context>) {
        let port = &self.port;
        let descriptor = context.descriptors.take(1).ok_or_else(|| io::Error::other("no file descriptors are left; raise LimitNOFILE"));
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
        info!(proxy = port.proxy().name, port = %port.endpoint, "listens");
        self.state = Opened::Yes { scope: Arc::clone(scope), retire, task, _descriptor: descriptor };
    }

    fn fail(&mut self, error: &io::Error) {
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
            warn!(proxy = self.port.proxy().name, port = %self.port.endpoint, "failed to listen: {error}; it is tried again");
        }
        self.state = Opened::Failed { error, due: Instant::now() + backoff.wait(), backoff };
    }

    fn retire(&self) {
        if let Opened::Yes { retire, .. } = &self.state {
            retire.cancel();
        }
    }

    fn report(&self) -> PortReport {
        let Port { endpoint, counts, .. } = &*self.port;
        let (state, reason) = match &self.state {
            Opened::Yes { .. } => (State::Listening, None),
            Opened::No => (State::Waiting, Some(format!("there is no network namespace {}", endpoint.namespace))),
            Opened::Failed { error, .. } => (State::Failing, Some(error.clone())),
        };
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PortReport {
            proxy: self.port.proxy().name.clone(),
            network_namespace: endpoint.namespace.to_string(),
            protocol: endpoint.transport.to_string(),
            address: endpoint.address.to_string(),
            state,
            reason,
            unreachable: self
                .port
                .unreached()
                .map(|Unreached { since, error }| Unreachable { since: format!("{since:.3}"), reason: error }),
            open: self.port.open(),
            accepted: now(&counts.accepted),
            refused: now(&counts.refused),
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
