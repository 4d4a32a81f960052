//! The API server as a source for `egressd proxy`: the cluster's `EgressProxy` objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::store::{Entry, Said};
use super::stream::{Heard, Kind, follow};
use super::trouble::Problem;
use crate::api::object;
use crate::api::proxy::EgressProxy;
use crate::model::cluster::Update;
use crate::model::proxy::Proxy;

const RESOURCE: &str = "egressproxies.egressd.dev";

/// All that there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxies {
    pub all: Vec<Arc<Proxy>>,
    /// What is wrong with objects, by `NAMESPACE/NAME`. What such a one said before stays in force.
    pub errors: BTreeMap<String, String>,
    /// What keeps them from being read; what was known holds meanwhile.
    pub problem: Option<String>,
}

/// The API server, followed for as long as this is kept.
pub struct Source {
    told: mpsc::UnboundedReceiver<Heard<Arc<Proxy>>>,
    all: Option<BTreeMap<String, Arc<Proxy>>>,
    errors: BTreeMap<String, String>,
    problem: Option<Problem>,
    _follower: JoinSet<()>,
}

impl Source {
    /// Needs the verbs `list` and `watch` on `egressproxies`. Must be called within a tokio runtime.
    pub fn start(client: Client) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let mut follower = JoinSet::new();
        // Not by its type: one object of a newer definition must not spoil the list.
        let api = Api::all_with(client, &ApiResource::erase::<EgressProxy>(&()));
        // Fails only when the source is dropped, and this task with it.
        follower.spawn(follow(Kind { api, fields: None, read: proxy }, move |heard| drop(tell.send(heard))));
        Self { told, all: None, errors: BTreeMap::new(), problem: None, _follower: follower }
    }

    /// Waits for a change, and gives all that there is then: never before the objects were listed, unless it is known why they cannot be. May be
    /// dropped and called again without loss.
    pub async fn next(&mut self) -> Proxies {
        loop {
            let mut heard = Vec::new();
            if self.told.recv_many(&mut heard, usize::MAX).await == 0 {
                // The follower does not end by itself.
                return std::future::pending().await;
            }
            heard.into_iter().for_each(|heard| self.take(heard));
            let problem = self.problem.as_ref().map(|problem| problem.told(RESOURCE).1);
            if self.all.is_some() || problem.is_some() {
                let all = self.all.iter().flat_map(BTreeMap::values).cloned().collect();
                return Proxies { all, errors: self.errors.clone(), problem };
            }
        }
    }

    fn take(&mut self, heard: Heard<Arc<Proxy>>) {
        match heard {
            Heard::Said(Said::Update(update)) => Update::apply(update, &mut self.all, |proxy| (proxy.name.clone(), proxy)),
            Heard::Said(Said::Trouble { key, problem: Some(problem) }) => drop(self.errors.insert(key, problem)),
            Heard::Said(Said::Trouble { key, problem: None }) => drop(self.errors.remove(&key)),
            Heard::Problem(problem) => self.problem = problem,
        }
    }
}

fn proxy(object: DynamicObject) -> Entry<Arc<Proxy>> {
    let key = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let read = object::proxy(&object).map(Arc::new);
    (key, read.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}
