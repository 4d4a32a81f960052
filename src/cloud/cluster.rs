//! The pools of a cluster: read from the API server, and what became of them told there. One process at a time looks after them, by a Lease.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use egressd::api::cloud::PoolCloudStatus;
use egressd::effects::kubernetes::lease::{CLOUD, Candidate};
use egressd::effects::kubernetes::write_cloud;
use egressd::facts::kubernetes::clouds::{Clouds, ClusterPool, Source};
use egressd::facts::kubernetes::{self, Client};
use egressd::model::cloud::{CloudPool, Host, Interface};
use egressd::report::cloud::status;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::model::cluster::{known, name, parts, shown};
use crate::model::report::PoolReport;
use crate::wanted::Wanted;

/// How long after a write that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the Lease may take to be released.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the API server is reached, and which process this is.
#[derive(Clone, Debug)]
pub struct Access {
    /// `None`: as in a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// What tells this process from others that wait for the Lease.
    pub identity: String,
}

/// The cluster, as it was told last.
pub struct Cluster {
    client: Client,
    source: Source,
    clouds: Clouds,
    /// Why a write failed that is to be made again, by pool.
    failed: BTreeMap<String, String>,
}

impl Cluster {
    /// Nothing is asked before the first [`Cluster::next`].
    ///
    /// # Errors
    /// When there is no way to the API server.
    pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let client = kubernetes::client(kubeconfig).await?;
        Ok(Self { source: Source::start(&client), client, clouds: Clouds::default(), failed: BTreeMap::new() })
    }

    /// Waits for a change of pools or nodes, and gives what is wanted then. May be dropped without loss.
    pub async fn next(&mut self) -> Wanted {
        self.clouds = self.source.next().await;
        let mut wanted = Wanted::default();
        let mut shown = BTreeMap::new();
        for (pool, one) in &self.clouds.pools {
            wanted.errors.extend(one.pool.errors.iter().map(|error| (Some(pool.clone()), format!("EgressPool {pool}: {error}"))));
            let (parts, problems) = parts(&one.pool, &self.clouds.nodes);
            wanted.errors.extend(problems.into_iter().map(|problem| (None, format!("EgressPool {pool}: {problem}"))));
            shown.extend(parts.iter().map(|part| (name(part), known(part, one.status.as_ref()))));
            wanted.pools.extend(parts.into_iter().map(|part| (name(&part), Arc::new(part))));
        }
        wanted.told = Some(shown);
        wanted
    }

    /// All pools, whether their nodes are known yet or not: what they may ask for.
    pub fn whole(&self) -> Vec<CloudPool> {
        let pools = self.clouds.pools.values().filter_map(|one| one.pool.cloud());
        let host = |pool: &CloudPool| (!matches!(pool.aws.interface, Interface::Id(_))).then(Host::default);
        pools.map(|pool| CloudPool { host: host(&pool), ..pool }).collect()
    }

    /// The instances that are nodes.
    pub fn instances(&self) -> BTreeSet<String> {
        self.clouds.nodes.values().filter_map(|node| node.instance().map(str::to_owned)).collect()
    }

    /// Writes what is known of the pools into their status, where it is not there already. When to try again what failed.
    pub async fn tell(&mut self, known: &[(&CloudPool, &PoolReport)]) -> Option<Instant> {
        let writes: Vec<(String, String, Option<PoolCloudStatus>)> =
            self.clouds.pools.iter().filter_map(|(name, pool)| Some((name.clone(), pool.uid.clone(), self.due(pool, known)?))).collect();
        self.failed.retain(|pool, _| writes.iter().any(|(name, ..)| name == pool));
        for (name, uid, new) in writes {
            match write_cloud(self.client.clone(), &name, &uid, new.as_ref()).await {
                Ok(()) => {
                    self.failed.remove(&name);
                    // As if it had been told already, or the next look would write the same again.
                    self.clouds.pools.get_mut(&name).into_iter().for_each(|pool| pool.status.clone_from(&new));
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.failed.insert(name.clone(), error.clone()).as_ref() != Some(&error) {
                        warn!(pool = name, error, "failed to write the pool's cloud status; retrying");
                    }
                }
            }
        }
        (!self.failed.is_empty()).then(|| Instant::now() + AGAIN)
    }

    /// The status of a pool that is to be written; `None`: it is there already.
    fn due(&self, pool: &ClusterPool, known: &[(&CloudPool, &PoolReport)]) -> Option<Option<PoolCloudStatus>> {
        if pool.pool.aws.is_none() {
            return pool.status.is_some().then_some(None);
        }
        // What is wrong with the pool its own conditions say; what it said before stays in force.
        if !pool.pool.errors.is_empty() {
            return None;
        }
        let own: Vec<_> = known.iter().filter(|(part, _)| part.name == pool.pool.name).copied().collect();
        let (_, problems) = parts(&pool.pool, &self.clouds.nodes);
        let new = status(shown(&own, &problems), pool.pool.generation, pool.status.as_ref(), Timestamp::now());
        (pool.status.as_ref() != Some(&new)).then_some(Some(new))
    }
}

/// The Lease, held for as long as this is kept.
pub struct HeldLease {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Waits for the Lease, and then keeps it. `lost` is called when that fails: somebody else may look after the pools then.
///
/// # Errors
/// When there is no way to the API server.
pub async fn hold(access: &Access, lost: impl FnOnce() + Send + 'static) -> anyhow::Result<HeldLease> {
    let client = kubernetes::client(access.kubeconfig.as_deref()).await.context("failed to ask for the Lease")?;
    let mut candidate = Candidate::new(client, &access.namespace, CLOUD, &access.identity, watch::Sender::default());
    candidate.acquire().await;
    info!(identity = access.identity, "managing the cluster's pools");
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (until, _) = watch::channel(candidate.until());
        tokio::select! {
            () = candidate.keep(&until) => lost(),
            _ = &mut stopped => candidate.release().await,
        }
    });
    Ok(HeldLease { stop, task })
}

impl HeldLease {
    /// Lets go of it, and waits for that a little.
    pub async fn release(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(PATIENCE, self.task).await;
    }
}
