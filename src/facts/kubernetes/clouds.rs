//! The API server as a source for `egressd-cloud`: pools, and the nodes whose network interfaces have their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::store::{Entry, Said};
use super::stream::{Heard, Kind, follow};
use crate::api::cloud::PoolCloudStatus;
use crate::api::node::{EgressNode, EgressNodeSpec};
use crate::api::object;
use crate::api::pool::EgressPool;
use crate::model::cloud::Machine;
use crate::model::cluster::Update;
use crate::model::pool::Pool;

/// The label by which a node's region is known.
const REGION: &str = "topology.kubernetes.io/region";

/// A pool, and what its status says of the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPool {
    pub uid: String,
    pub pool: Arc<Pool>,
    pub status: Option<PoolCloudStatus>,
}

/// All that there is, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clouds {
    /// Those that ask something of a cloud, or did.
    pub pools: BTreeMap<String, ClusterPool>,
    pub nodes: BTreeMap<String, Machine>,
}

/// A node's name, and addresses of its NICs by their names.
type Nics = (String, BTreeMap<String, BTreeSet<IpAddr>>);

enum Change {
    Pools(Update<ClusterPool>),
    Nodes(Update<(String, Machine)>),
    Reports(Update<Nics>),
}

/// The API server, followed for as long as this is kept.
pub struct Source {
    told: mpsc::UnboundedReceiver<Change>,
    pools: Option<BTreeMap<String, ClusterPool>>,
    nodes: Option<BTreeMap<String, Machine>>,
    reports: Option<BTreeMap<String, BTreeMap<String, BTreeSet<IpAddr>>>>,
    _followers: JoinSet<()>,
}

impl Source {
    /// Needs the verbs `list` and `watch` on pools, nodes and `egressnodes`. Must be called within a tokio runtime.
    pub fn start(client: &Client) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let mut all = JoinSet::new();
        let client = || client.clone();
        let api = Api::all_with(client(), &ApiResource::erase::<EgressPool>(&()));
        add(&mut all, &tell, "egresspools.egressd.dev", Kind { api, fields: None, read: pool }, Change::Pools);
        add(&mut all, &tell, "nodes", Kind { api: Api::all(client()), fields: None, read: node }, Change::Nodes);
        let api = Api::all_with(client(), &ApiResource::erase::<EgressNode>(&()));
        add(&mut all, &tell, "egressnodes.egressd.dev", Kind { api, fields: None, read: nics }, Change::Reports);
        Self { told, pools: None, nodes: None, reports: None, _followers: all }
    }

    /// Waits for a change, and gives all that there is then. Never before each kind was listed whole. May be dropped and called again without
    /// loss.
    pub async fn next(&mut self) -> Clouds {
        loop {
            let mut changes = Vec::new();
            if self.told.recv_many(&mut changes, usize::MAX).await == 0 {
                // No follower ends by itself.
                return std::future::pending().await;
            }
            changes.into_iter().for_each(|change| self.take(change));
            if let (Some(pools), Some(nodes), Some(reports)) = (&self.pools, &self.nodes, &self.reports) {
                let asks = |pool: &ClusterPool| pool.pool.aws.is_some() || pool.status.is_some();
                let pools = pools.iter().filter(|(_, pool)| asks(pool)).map(|(name, pool)| (name.clone(), pool.clone())).collect();
                let machine = |(name, node): (&String, &Machine)| {
                    let nics = reports.get(name).cloned().unwrap_or_default();
                    (name.clone(), Machine { nics, ..node.clone() })
                };
                return Clouds { pools, nodes: nodes.iter().map(machine).collect() };
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Pools(update) => update.apply(&mut self.pools, |pool| (pool.pool.name.clone(), pool)),
            Change::Nodes(update) => update.apply(&mut self.nodes, |node| node),
            Change::Reports(update) => update.apply(&mut self.reports, |nics| nics),
        }
    }
}

fn add<K, T>(
    all: &mut JoinSet<()>,
    tell: &mpsc::UnboundedSender<Change>,
    resource: &'static str,
    kind: Kind<K, T>,
    change: impl Fn(Update<T>) -> Change + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone + PartialEq + Send + 'static,
{
    let tell = tell.clone();
    let mut said = None;
    all.spawn(follow(kind, move |heard| match heard {
        // Fails only when the source is dropped, and this task with it.
        Heard::Said(Said::Update(update)) => drop(tell.send(change(update))),
        Heard::Said(Said::Trouble { key, problem }) => {
            problem.iter().for_each(|problem| warn!(resource, key, problem, "failed to read an object; the others stay in force"));
        }
        Heard::Problem(problem) => {
            match &problem {
                Some(problem) if said.as_ref() != Some(problem) => {
                    warn!("{}; the last known objects stay in force", problem.told(resource).1);
                }
                None if said.is_some() => info!(resource, "read again"),
                _ => {}
            }
            said = problem;
        }
    }));
}

fn pool(object: DynamicObject) -> Entry<ClusterPool> {
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let read = object::egress_pool(object);
    let status = read.object.status.as_ref().and_then(|status| status.cloud.clone());
    (name, Ok(ClusterPool { uid, pool: object::pool(&read).into(), status }))
}

fn node(object: Node) -> Entry<(String, Machine)> {
    let name = object.name_any();
    let region = object.labels().get(REGION).cloned();
    let provider = object.spec.and_then(|spec| spec.provider_id);
    (name.clone(), Ok((name, Machine { provider, region, nics: BTreeMap::new() })))
}

fn nics(object: DynamicObject) -> Entry<Nics> {
    let name = object.name_any();
    let read = EgressNodeSpec::deserialize(object.data.get("spec").unwrap_or(&Value::Null)).map_err(|error| error.to_string());
    let nics = read.map(|spec| spec.nics.into_iter().map(|nic| (nic.name, nic.addresses.into_iter().collect())).collect());
    (name.clone(), nics.map(|nics| (name, nics)))
}
