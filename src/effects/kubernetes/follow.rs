//! What the holder of the Lease watches. Each kind is listed whole first, and again after its way was lost; what keeps it from that is said once.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as KubeNamespace, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::error::Error;
use crate::api::node::EgressNode;
use crate::model::cluster::{Namespace, Word};
use crate::report::fold::{Change, Named, Teller};
use crate::report::inside;

/// Name of the ConfigMap that tells the agents what is inside, in their namespace.
pub const INSIDE: &str = "egressd-inside";
/// Its key: one subnet a line.
pub const CIDRS: &str = "cidrs";
/// How long until a kind that this cluster does not have is asked for again: it may be upgraded.
const UNKNOWN: Duration = Duration::from_secs(600);

/// Follows all of it for as long as the tasks are kept. Needs the verbs `list` and `watch` on each kind.
pub fn start(client: &Client, namespace: &str, tell: &UnboundedSender<Change>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let client = || client.clone();
    let all = Config::default;
    let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));

    tasks.spawn(follow("egressbindings.egressd.dev", Api::all(client()), all(), whole, say(tell, Change::Bindings)));
    tasks.spawn(follow("egresspools.egressd.dev", Api::all(client()), all(), whole, say(tell, Change::Pools)));
    let read = |node: EgressNode| Named { name: node.name_any(), value: node.spec };
    tasks.spawn(follow("egressnodes.egressd.dev", Api::all(client()), all(), read, say(tell, Change::Reports)));
    let read = |namespace: PartialObjectMeta<KubeNamespace>| Namespace {
        name: namespace.name_any(),
        labels: namespace.metadata.labels.unwrap_or_default(),
    };
    tasks.spawn(follow("namespaces", Api::all(client()), all(), read, say(tell, Change::Namespaces)));

    let inside = |teller| move |word| Change::Inside(teller, word);
    let read = |node: Node| Named { name: node.name_any(), value: inside::of_node(&node) };
    tasks.spawn(follow("nodes", Api::all(client()), all(), read, say(tell, inside(Teller::Nodes))));
    // Kubernetes has them from 1.33 on.
    let read = |cidr: ServiceCIDR| Named { name: cidr.name_any(), value: inside::of_services(&cidr) };
    tasks.spawn(follow("servicecidrs.networking.k8s.io", Api::all(client()), all(), read, say(tell, inside(Teller::Services))));
    // The API server keeps its own addresses there, under that name.
    let read = |slice: EndpointSlice| Named { name: slice.name_any(), value: inside::of_endpoints(&slice) };
    let endpoints = Api::namespaced(client(), "default");
    tasks.spawn(follow("endpointslices.discovery.k8s.io", endpoints, named("kubernetes"), read, say(tell, inside(Teller::ApiServer))));
    let read = |map: ConfigMap| map.data.and_then(|mut data| data.remove(CIDRS));
    let told = |word| {
        Change::ToldInside(match word {
            Word::All(all) => all.into_iter().next().flatten(),
            Word::One(text) => text,
            Word::Gone(_) => None,
        })
    };
    tasks.spawn(follow("configmaps", Api::namespaced(client(), namespace), named(INSIDE), read, say(tell, told)));
    tasks
}

fn say<T, F: Fn(Word<T>) -> Change>(tell: &UnboundedSender<Change>, change: F) -> impl Fn(Word<T>) + use<T, F> {
    let tell = tell.clone();
    // Fails only when the holder has let go, and these tasks with it.
    move |word| drop(tell.send(change(word)))
}

/// The object without what only the API server needs of it.
fn whole<K: ResourceExt>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object
}

async fn follow<K, T>(resource: &'static str, api: Api<K>, config: Config, read: impl Fn(K) -> T, tell: impl Fn(Word<T>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut said = None;
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()).default_backoff());
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.push(read(object)),
                Ok(Event::InitDone) => {
                    said = None;
                    tell(Word::All(std::mem::take(&mut listed)));
                }
                Ok(Event::Apply(object)) => tell(Word::One(read(object))),
                Ok(Event::Delete(object)) => {
                    let name = object.name_any();
                    tell(Word::Gone(object.namespace().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))));
                }
                Err(error) => {
                    let Some(error) = refusal(resource, error) else { continue };
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        warn!(error = text, "failed to watch; trying again");
                    }
                    said = Some(text);
                    // A kind of another version of Kubernetes: there are none of it. Our own are waited for.
                    if matches!(error, Error::Unknown { .. }) && resource.ends_with(".k8s.io") {
                        tell(Word::All(Vec::new()));
                        break;
                    }
                }
            }
        }
        sleep(UNKNOWN).await;
    }
}

/// What is worth telling: not that a watch ended, as each does after a while.
fn refusal(resource: &'static str, error: watcher::Error) -> Option<Error> {
    match error {
        watcher::Error::InitialListFailed(error) => Some(Error::of("list", resource, error)),
        watcher::Error::WatchStartFailed(error) => Some(Error::of("watch", resource, error)),
        other => {
            debug!(resource, error = %other, "a watch ended");
            None
        }
    }
}
