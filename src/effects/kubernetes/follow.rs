//! What the leader watches besides what each agent does: all bindings and pools with their status, all nodes, and what they report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::api::binding::EgressBinding;
use crate::api::node::{EgressNode, EgressNodeSpec};
use crate::api::object::{self, Lenient};
use crate::api::pool::EgressPool;
use crate::facts::kubernetes::store::{Entry, Said};
use crate::facts::kubernetes::stream::{Heard, Kind, follow};
use crate::facts::kubernetes::{CIDRS, INSIDE, Problem, read};
use crate::model::cluster::Update;
use crate::report::fold::{Change, ClusterNode, InsideSource, Named, RECORD};
use crate::report::inside;

/// Follows all of it for as long as the tasks are kept. Needs the verbs `list` and `watch` on each kind.
pub fn start(client: &Client, namespace: &str, tell: &UnboundedSender<Change>) -> JoinSet<()> {
    let mut followers = Followers { tell: tell.clone(), all: JoinSet::new() };
    let client = || client.clone();
    let named = |name: &str| Some(format!("metadata.name={name}"));

    let api = Api::all_with(client(), &ApiResource::erase::<EgressBinding>(&()));
    followers.add("egressbindings.egressd.dev", Kind { api, fields: None, read: binding }, Change::Bindings);
    let api = Api::all_with(client(), &ApiResource::erase::<EgressPool>(&()));
    followers.add("egresspools.egressd.dev", Kind { api, fields: None, read: pool }, Change::Pools);
    let api = Api::all_with(client(), &ApiResource::erase::<EgressNode>(&()));
    followers.add("egressnodes.egressd.dev", Kind { api, fields: None, read: report }, Change::Reports);
    followers.add("namespaces", Kind { api: Api::all(client()), fields: None, read: read::namespace }, Change::Namespaces);
    let kind = Kind { api: Api::namespaced(client(), namespace), fields: named(INSIDE), read: told };
    followers.add("configmaps", kind, |update| {
        Change::ToldInside(match update {
            Update::All(all) => all.into_iter().next().flatten(),
            Update::One(text) => text,
            Update::Gone(_) => None,
        })
    });

    let kind = Kind { api: Api::namespaced(client(), namespace), fields: named(RECORD), read: recorded };
    followers.add("configmaps", kind, |update| {
        Change::Recorded(match update {
            Update::All(all) => all.into_iter().next().unwrap_or_default(),
            Update::One(data) => data,
            Update::Gone(_) => BTreeMap::new(),
        })
    });

    let kind = Kind { api: Api::all(client()), fields: None, read: node };
    followers.add("nodes", kind, Change::Nodes);
    let kind = Kind { api: Api::all(client()), fields: None, read: services };
    followers.add_if_there("servicecidrs.networking.k8s.io", kind, |update| Change::Inside(InsideSource::Services, update));
    // The API server keeps its own addresses there, under that name.
    let kind = Kind { api: Api::namespaced(client(), "default"), fields: named("kubernetes"), read: endpoints };
    followers.add_if_there("endpointslices.discovery.k8s.io", kind, |update| Change::Inside(InsideSource::ApiServer, update));
    followers.all
}

struct Followers {
    tell: UnboundedSender<Change>,
    all: JoinSet<()>,
}

impl Followers {
    fn add<K, T>(&mut self, resource: &'static str, kind: Kind<K, T>, change: impl Fn(Update<T>) -> Change + Send + 'static)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        T: Clone + PartialEq + Send + 'static,
    {
        self.spawn(resource, kind, change, false);
    }

    /// A kind that not every version of Kubernetes has (ServiceCIDRs are of 1.33), or that may be kept from us: then there is nothing of it.
    fn add_if_there<K, T>(&mut self, resource: &'static str, kind: Kind<K, T>, change: impl Fn(Update<T>) -> Change + Send + 'static)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        T: Clone + PartialEq + Send + 'static,
    {
        self.spawn(resource, kind, change, true);
    }

    fn spawn<K, T>(
        &mut self,
        resource: &'static str,
        kind: Kind<K, T>,
        change: impl Fn(Update<T>) -> Change + Send + 'static,
        without: bool,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        T: Clone + PartialEq + Send + 'static,
    {
        let tell = self.tell.clone();
        let (mut listed, mut said) = (false, None);
        self.all.spawn(follow(kind, move |heard| {
            let update = match heard {
                Heard::Said(Said::Update(update)) => update,
                Heard::Said(Said::Trouble { key, problem }) => {
                    return problem
                        .iter()
                        .for_each(|problem| warn!(resource, key, problem, "failed to read an object; the others stay in force"));
                }
                Heard::Problem(problem) => {
                    let missing = matches!(problem, Some(Problem::Unknown | Problem::Forbidden { .. }));
                    match problem.as_ref().filter(|_| problem != said) {
                        Some(_) if without && missing => {
                            info!(resource, "missing or forbidden; set `inside` in the chart's values to the subnets that it would list");
                        }
                        Some(problem) => warn!(resource, problem = problem.told(resource).1, "failed to watch; retrying"),
                        None => {}
                    }
                    said = problem;
                    if !(without && missing && !listed) {
                        return;
                    }
                    Update::All(Vec::new())
                }
            };
            listed = true;
            // Fails only when the holder has let go, and this task with it.
            let _ = tell.send(change(update));
        }));
    }
}

/// The object without what only the API server needs of it.
pub(super) fn without_managers(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    object
}

fn binding(object: DynamicObject) -> Entry<Arc<Lenient<EgressBinding>>> {
    let key = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    (key, Ok(object::egress_binding(without_managers(object)).into()))
}

fn pool(object: DynamicObject) -> Entry<Arc<Lenient<EgressPool>>> {
    (object.name_any(), Ok(object::egress_pool(without_managers(object)).into()))
}

fn report(object: DynamicObject) -> Entry<Named<EgressNodeSpec>> {
    let name = object.name_any();
    let read = EgressNodeSpec::deserialize(object.data.get("spec").unwrap_or(&Value::Null));
    (name.clone(), read.map(|value| Named { name, value }).map_err(|error| error.to_string()))
}

fn told(object: ConfigMap) -> Entry<Option<String>> {
    (object.name_any(), Ok(object.data.and_then(|mut data| data.remove(CIDRS))))
}

fn recorded(object: ConfigMap) -> Entry<BTreeMap<String, String>> {
    (object.name_any(), Ok(object.data.unwrap_or_default()))
}

fn node(object: Node) -> Entry<Named<ClusterNode>> {
    let inside = inside::of_node(&object);
    let name = object.name_any();
    let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().all(|condition| condition.type_ != "Ready" || condition.status == "True");
    let value = ClusterNode { labels: object.metadata.labels.unwrap_or_default(), inside, ready };
    (name.clone(), Ok(Named { name, value }))
}

fn services(object: ServiceCIDR) -> Entry<Named<BTreeSet<IpNet>>> {
    (object.name_any(), Ok(Named { name: object.name_any(), value: inside::of_services(&object) }))
}

fn endpoints(object: EndpointSlice) -> Entry<Named<BTreeSet<IpNet>>> {
    (object.name_any(), Ok(Named { name: object.name_any(), value: inside::of_endpoints(&object) }))
}
