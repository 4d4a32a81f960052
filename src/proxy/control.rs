//! The loop's state: which ports manifests ask for, which are open, and what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tracing::{info, warn};

use super::containers::Containers;
use super::context::Context;
use super::namespaces::Namespaces;
use super::pods::Pods;
use super::port::Port;
use super::report::Report;
use super::scope::Scope;
use super::served::{Opened, Served};
use super::sockets;
use crate::model::field_error::ManifestError;
use crate::model::leave::Asked;
use crate::model::manifests::Manifests;
use crate::model::proxy::{Endpoint, InContainers, Namespace, Proxy, Runs, assign};

/// Objects whose errors the agent tells.
const OTHERS: [&str; 3] = ["EgressBinding ", "EgressNetwork ", "EgressPool "];

/// All that the process knows and does.
pub struct Control {
    context: Arc<Context>,
    /// What manifests say that can be served, by name.
    proxies: BTreeMap<String, Arc<Proxy>>,
    /// Which of them each port is of.
    holders: BTreeMap<Endpoint, String>,
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

impl Control {
    /// Knows nothing yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            proxies: BTreeMap::new(),
            holders: BTreeMap::new(),
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
            error.error.message.push_str(" (its last valid version stays in force)");
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

    /// Finds which ports are to be served now: by manifests, in the containers and pods that run.
    pub fn assign(&mut self, containers: &Containers, pods: &Pods, namespaces: &mut Namespaces) {
        let runs = Runs { containers: &containers.running(), pods: &pods.running() };
        let had = |proxy: &Proxy, endpoint: &Endpoint| self.holders.get(&endpoint.clone().of_any_run()) == Some(&proxy.name);
        let (wanted, clashes) = assign(self.proxies.values(), runs, had);
        // While its container is away, too: that comes again with another namespace.
        self.holders.retain(|_, holder| self.proxies.contains_key(holder));
        self.holders.extend(wanted.iter().map(|(endpoint, proxy)| (endpoint.clone().of_any_run(), proxy.name.clone())));
        let wrong = self.errors.iter().chain(&clashes).map(|error| format!("{}: {}", error.object, error.error));
        self.tell(wrong.chain(containers.problem()).chain(pods.problems()).collect());
        let leaving = &mut self.leaving;
        leaving.retain(|port| port.open() > 0);
        self.ports.retain(|endpoint, served| {
            let stays = wanted.contains_key(endpoint);
            if !stays {
                info!(proxy = served.port.proxy().name, port = %endpoint, "stopped listening: no manifest asks for the port");
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
                    self.ports.insert(endpoint, Served::new(port));
                }
            }
        }
        self.context.exits.want(self.asked());
        namespaces.want(self.wanted().iter().filter_map(|namespace| namespace.file().map(Into::into)).collect());
    }

    /// What the agent is to be asked: exits of bindings, and whether sources are exits.
    fn asked(&self) -> BTreeSet<Asked> {
        let of_port = |(endpoint, served): (&Endpoint, &Served)| {
            let dial = &served.port.proxy().dial;
            [dial.asked(endpoint), dial.asked_source(endpoint)]
        };
        self.ports.iter().flat_map(of_port).flatten().collect()
    }

    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{problem}");
        }
        self.problems = problems;
    }

    /// Namespaces that have to be watched: those of ports, those that are dialled from, and those that sockets of ours are still in.
    fn wanted(&self) -> BTreeSet<Namespace> {
        let dialled = self.proxies.values().filter_map(|proxy| proxy.dial.namespace.as_ref());
        let named: BTreeSet<&Namespace> = self.ports.keys().map(|endpoint| &endpoint.namespace).chain(dialled).collect();
        named.into_iter().cloned().chain(self.context.scopes.in_use()).collect()
    }

    /// Ends what is in namespaces that are gone, and opens what can be opened.
    pub async fn round(&mut self, namespaces: &mut Namespaces) {
        let home = self.context.home;
        let mut now = BTreeMap::from([(Namespace::Host, None)]);
        now.extend(self.wanted().into_iter().filter_map(|namespace| {
            let id = namespaces.known().get(namespace.file()?).copied()??;
            // Whatever a runtime says, the node's network is no pod's.
            let of_node = matches!(namespace, Namespace::Pod { .. }) && id == home;
            (!of_node).then_some((namespace, Some(id)))
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
        let ports = self.ports.values().map(|served| served.report(&self.context.exits)).collect();
        let problems = self.problems.iter().cloned().chain(self.context.exits.problem()).collect();
        Report { ready: self.is_ready(), problems, ports, free_descriptors: self.context.descriptors.free() }
    }
}
