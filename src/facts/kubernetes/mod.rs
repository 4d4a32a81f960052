//! The API server as a source of facts for the agent of one node: bindings, pools, namespaces, the node's pods, the node itself, what is
//! inside, and the agents' own DaemonSet.
//!
//! Each kind is a watch of its own (`stream`), read (`read`) and compared with what was told before (`store`): at rest nothing comes but
//! the API server's bookmarks, and nothing is told of updates that change nothing here.

mod client;
pub mod clouds;
mod connector;
pub mod proxies;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod store;
pub(crate) mod stream;
mod trouble;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::core::ApiResource;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::binding::EgressBinding;
use crate::api::pool::EgressPool;
use crate::model::cluster::{ClusterChange, Update};
use store::Said;
use stream::{Heard, Kind, follow};
use trouble::Troubles;

pub use client::{Error, client};
pub use kube::Client;
pub use read::CIDRS;
pub(crate) use trouble::Problem;

/// The ConfigMap that says which subnets are inside the cluster: one a line under the key `cidrs`. One agent writes it for all.
pub const INSIDE: &str = "egressd-inside";

/// What the agent of a node looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Name of the node.
    pub node: String,
    /// Namespace of the agents: of their DaemonSet and of the ConfigMap [`INSIDE`].
    pub namespace: String,
    /// Name of the agents' DaemonSet; `None`: nothing is said of it.
    pub daemonset: Option<String>,
}

/// An API server, followed for as long as this is kept.
pub struct Source {
    client: Client,
    scope: Scope,
    troubles: Troubles,
    running: Option<Running>,
}

struct Running {
    told: mpsc::UnboundedReceiver<Message>,
    _followers: JoinSet<()>,
}

enum Message {
    Changes(Vec<ClusterChange>),
    Problem(&'static str, Option<Problem>),
}

impl Source {
    /// Nothing is asked for before the first [`Source::next`].
    pub fn new(client: Client, scope: Scope) -> Self {
        Self { client, scope, troubles: Troubles::default(), running: None }
    }

    /// Waits for changes and gives all that are there, in order. May be dropped and called again without loss.
    ///
    /// Never fails. The first word on each kind is [`Update::All`]. While a kind cannot be read, a [`ClusterChange::Trouble`] says why, or
    /// [`ClusterChange::Lost`] when it is the API server that is away, and what was told of it stays true; it is tried again after 1 to 60 s, and
    /// what changed meanwhile is told then. A watch that is only begun anew is no loss.
    pub async fn next(&mut self) -> Vec<ClusterChange> {
        let running = self.running.get_or_insert_with(|| start(&self.client, &self.scope));
        let mut batch = Vec::new();
        // A trouble that is known already is no change.
        while batch.is_empty() {
            let mut told = Vec::new();
            if running.told.recv_many(&mut told, usize::MAX).await == 0 {
                // No follower ends by itself.
                return std::future::pending().await;
            }
            for told in told {
                match told {
                    Message::Changes(changes) => batch.extend(changes),
                    Message::Problem(resource, problem) => batch.extend(self.troubles.set(resource, problem)),
                }
            }
        }
        batch
    }
}

fn start(client: &Client, scope: &Scope) -> Running {
    let (tell, told) = mpsc::unbounded_channel();
    let mut followers = Followers { tell, all: JoinSet::new() };
    let client = || client.clone();
    let named = |name: &str| Some(format!("metadata.name={name}"));

    // Not by their types: one object of a newer definition must not spoil the list.
    let bindings = Api::all_with(client(), &ApiResource::erase::<EgressBinding>(&()));
    let kind = Kind { api: bindings, fields: None, read: read::binding };
    followers.add("egressbindings.egressd.dev", kind, "EgressBinding", |update| vec![ClusterChange::Bindings(update)]);

    let pools = Api::all_with(client(), &ApiResource::erase::<EgressPool>(&()));
    let kind = Kind { api: pools, fields: None, read: read::pool };
    followers.add("egresspools.egressd.dev", kind, "EgressPool", |update| vec![ClusterChange::Pools(update)]);

    let kind = Kind { api: Api::all(client()), fields: None, read: read::namespace };
    followers.add("namespaces", kind, "namespace", |update| vec![ClusterChange::Namespaces(update)]);

    let pods = Api::all_with(client(), &ApiResource::erase::<Pod>(&()));
    let kind = Kind { api: pods, fields: Some(format!("spec.nodeName={}", scope.node)), read: read::pod };
    followers.add("pods", kind, "pod", |update| vec![ClusterChange::Pods(update)]);

    let kind = Kind { api: Api::all(client()), fields: named(&scope.node), read: read::node };
    let name = scope.node.clone();
    followers.add("nodes", kind, "node", move |update| node(&name, only(update)));

    let configmaps: Api<ConfigMap> = Api::namespaced(client(), &scope.namespace);
    let kind = Kind { api: configmaps, fields: named(INSIDE), read: read::inside };
    followers.add("configmaps", kind, "ConfigMap", |update| only(update).map_or_else(|| vec![ClusterChange::InsideUnsaid], inside));

    if let Some(name) = &scope.daemonset {
        let daemonsets = Api::namespaced_with(client(), &scope.namespace, &ApiResource::erase::<DaemonSet>(&()));
        let kind = Kind { api: daemonsets, fields: named(name), read: read::daemonset };
        followers.add("daemonsets.apps", kind, "DaemonSet", |update| vec![ClusterChange::DaemonSet(only(update))]);
    }
    Running { told, _followers: followers.all }
}

struct Followers {
    tell: mpsc::UnboundedSender<Message>,
    all: JoinSet<()>,
}

impl Followers {
    /// Each kind has a task of its own: one that cannot be read holds up no other.
    fn add<K, T>(
        &mut self,
        resource: &'static str,
        kind: Kind<K, T>,
        singular: &'static str,
        changes: impl Fn(Update<T>) -> Vec<ClusterChange> + Send + 'static,
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
        T: Clone + PartialEq + Send + 'static,
    {
        let tell = self.tell.clone();
        let hear = move |heard| {
            let told = match heard {
                Heard::Said(Said::Update(update)) => Message::Changes(changes(update)),
                Heard::Said(Said::Trouble { key, problem }) => {
                    Message::Changes(vec![ClusterChange::Trouble { about: format!("{singular} {key}"), problem }])
                }
                Heard::Problem(problem) => Message::Problem(resource, problem),
            };
            // Fails only when the source is dropped, and this task with it.
            let _ = tell.send(told);
        };
        self.all.spawn(follow(kind, hear));
    }
}

/// Of a kind of which one object by its name is watched: that object.
fn only<T>(update: Update<T>) -> Option<T> {
    match update {
        Update::All(all) => all.into_iter().next(),
        Update::One(one) => Some(one),
        Update::Gone(_) => None,
    }
}

fn node(name: &str, node: Option<crate::model::cluster::Node>) -> Vec<ClusterChange> {
    let about = format!("node {name}");
    match node {
        Some(node) => vec![ClusterChange::Node(node), ClusterChange::Trouble { about, problem: None }],
        None => {
            let problem = format!("there is no node {name} in the cluster; give --node-name as `kubectl get nodes` shows it");
            vec![ClusterChange::Trouble { about, problem: Some(problem) }]
        }
    }
}

/// That nobody says what is inside changes nothing: what was said stays until it is said anew.
fn inside(inside: read::Inside) -> Vec<ClusterChange> {
    let problem = (!inside.unreadable.is_empty())
        .then(|| format!("ConfigMap {INSIDE}: no subnets: {}; write one a line, for instance 10.244.0.0/16", inside.unreadable.join(", ")));
    vec![ClusterChange::Inside(inside.subnets), ClusterChange::Trouble { about: format!("ConfigMap {INSIDE}"), problem }]
}
