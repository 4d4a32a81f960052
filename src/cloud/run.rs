//! `egressd-cloud run`: each pool looked at when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use egressd::daemon::listen_to_signals;
use egressd::facts::files;
use egressd::model::cloud::CloudPool;
use tracing::{info, warn};

use crate::aws::Aws;
use crate::cluster::{self, Access, Cluster};
use crate::keeper::{self, Memory};
use crate::model::release::Kept;
use crate::model::report::{PoolReport, Reason};
use crate::provider::Error;
use crate::state::{self, Status};
use crate::stop::Stop;
use crate::wanted::{Pool, Pools, Wanted, watch};

/// How long to wait after a reading that failed.
const UNREAD: Duration = Duration::from_secs(10);

/// How long the API server may take to say which pools there are.
const ANSWER: Duration = Duration::from_secs(30);

/// Where pools are read.
#[derive(Clone, Debug)]
pub enum PoolSource {
    /// A folder of manifests.
    Files(PathBuf),
    /// The API server.
    Cluster {
        /// `None`: as in a pod.
        kubeconfig: Option<PathBuf>,
    },
}

/// How this process manages pools: from a folder on a host, or as the holder of a cluster's Lease. Status is written to the same place.
#[derive(Clone, Debug)]
pub enum BackendOptions {
    Host {
        manifests: PathBuf,
        /// Folder for the status.
        state: PathBuf,
    },
    Cluster(Access),
}

/// What `egressd-cloud run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub backend: BackendOptions,
    /// Region of pools that name none.
    pub region: Option<String>,
    /// How often a pool is read that is as it is to be.
    pub interval: Duration,
    /// So long may readings lag behind answers.
    pub window: Duration,
    /// End as soon as nothing is left to do.
    pub once: bool,
}

/// Where pools come from, and where their status goes.
enum Backend {
    Host { manifests: Box<files::Source>, held: state::StateLock },
    Cluster { cluster: Box<Cluster>, held: cluster::HeldLease },
}

impl Backend {
    /// `None`: told to stop before it was this one's turn.
    async fn open(backend: &BackendOptions, stop: &Stop) -> anyhow::Result<Option<Self>> {
        match backend {
            BackendOptions::Host { manifests, state } => {
                let held = state::hold(state)?;
                Ok(Some(Self::Host { manifests: Box::new(watch(manifests)?), held }))
            }
            BackendOptions::Cluster(access) => {
                let on_loss = stop.clone();
                let lost = move || on_loss.lose();
                let held = tokio::select! {
                    held = cluster::hold(access, lost) => held?,
                    () = stop.wait() => return Ok(None),
                };
                Ok(Some(Self::Cluster { cluster: Box::new(Cluster::connect(access.kubeconfig.as_deref()).await?), held }))
            }
        }
    }

    /// What is wanted next. May be dropped without loss.
    async fn next(&mut self) -> Wanted {
        match self {
            Self::Host { manifests, .. } => Wanted::of_files(manifests.next().await),
            Self::Cluster { cluster, .. } => cluster.next().await,
        }
    }

    /// What the process before has told. (A cluster's pools have it in their status.)
    fn before(&self) -> BTreeMap<String, PoolReport> {
        match self {
            Self::Host { held, .. } => held.before(),
            Self::Cluster { .. } => BTreeMap::new(),
        }
    }

    /// Tells what is known; when to do so again where that failed.
    async fn tell(&mut self, pools: &BTreeMap<String, Pool>, status: &Status) -> anyhow::Result<Option<Instant>> {
        match self {
            Self::Host { held, .. } => {
                status.write(&held.folder).with_context(|| format!("failed to write to {}", held.folder.display()))?;
                Ok(None)
            }
            Self::Cluster { cluster, .. } => {
                let known: Vec<_> = pools.values().map(|pool| (&*pool.pool, &pool.report)).collect();
                Ok(cluster.tell(&known).await)
            }
        }
    }

    async fn close(self) {
        if let Self::Cluster { held, .. } = self {
            held.release().await;
        }
    }
}

/// Looks after the pools until it is told to stop (SIGTERM, SIGINT), or with `once` until nothing is left to do.
/// Says whether everything is as the pools ask.
///
/// # Errors
/// When it cannot start, the status cannot be written, or another process looks after the cluster's pools by now.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let stop = Stop::default();
    let by_signal = stop.clone();
    listen_to_signals(move || by_signal.tell());
    let Some(mut backend) = Backend::open(&options.backend, &stop).await? else { return Ok(true) };
    let ready = keep(&mut backend, &options, &stop).await;
    backend.close().await;
    anyhow::ensure!(!stop.is_lost(), "lost the Lease: another egressd-cloud may look after the pools by now");
    ready
}

async fn keep(backend: &mut Backend, options: &Options, stop: &Stop) -> anyhow::Result<bool> {
    let mut aws = Aws::new(options.region.clone(), stop.clone())?;
    let mut memory = Memory::new(options.window);
    let mut pools = Pools::new(backend.before());
    let mut errors = tokio::select! {
        wanted = backend.next() => pools.take(wanted),
        () = stop.wait() => return Ok(true),
    };
    errors.iter().for_each(|error| warn!("{error}"));
    info!(version = env!("CARGO_PKG_VERSION"), pools = pools.known.len(), "egressd-cloud runs");
    loop {
        let due = pools.known.iter().filter(|(_, pool)| pool.due <= Instant::now());
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let kept = pools.kept(&name);
            let Some(pool) = pools.known.get_mut(&name) else { continue };
            if !look(&mut aws, pool, &kept, &mut memory, options, stop).await {
                // What is not known of the rest is not to be told.
                return Ok(false);
            }
        }
        let status = Status { pools: pools.reports(), errors: errors.clone() };
        let again = backend.tell(&pools.known, &status).await?;
        let told = again.is_none();
        if stop.is_told() || (options.once && told && pools.known.values().all(|pool| pool.over)) {
            return Ok(status.is_ready());
        }
        let due = pools.known.values().map(|pool| pool.due).chain(again).min().unwrap_or_else(|| Instant::now() + options.interval);
        tokio::select! {
            wanted = backend.next() => {
                let now = pools.take(wanted);
                now.iter().filter(|error| !errors.contains(error)).for_each(|error| warn!("{error}"));
                errors = now;
            }
            () = tokio::time::sleep_until(due.into()) => {}
            () = stop.wait() => {}
        }
    }
}

/// One round of one pool. When the cloud cannot be read, all that is known stays. False when it was told to stop meanwhile.
async fn look(aws: &mut Aws, pool: &mut Pool, kept: &Kept, memory: &mut Memory, options: &Options, stop: &Stop) -> bool {
    match keeper::round(aws, &pool.pool, kept, memory, &mut pool.failures, stop).await {
        Ok(round) => {
            if round.report != pool.report {
                for (aspect, condition) in &round.report.conditions {
                    info!(pool = pool.pool.name, %aspect, ready = condition.ready, reason = %condition.reason, message = condition.message, "condition");
                }
            }
            let interval = Instant::now() + options.interval;
            (pool.report, pool.over) = (round.report, round.over);
            pool.due = round.due.map_or(interval, |due| due.min(interval));
        }
        Err(Error::Stopped) => return false,
        Err(error) => {
            warn!(pool = pool.pool.name, %error, "failed to read the cloud; the last reading stays in force");
            pool.report.problem = Some(error.to_string());
            (pool.due, pool.over) = (Instant::now() + UNREAD.min(options.interval), true);
        }
    }
    true
}

/// What the pools may ask for, whatever nodes there are.
///
/// # Errors
/// When they cannot be read, or one of them is wrong.
pub async fn wishes(source: &PoolSource) -> anyhow::Result<Vec<CloudPool>> {
    match source {
        PoolSource::Files(_) => Ok(pools(source).await?.iter().map(|pool| (**pool).clone()).collect()),
        PoolSource::Cluster { kubeconfig } => Ok(read(kubeconfig.as_deref()).await?.0.whole()),
    }
}

/// The cluster, once it has said what there is.
async fn read(kubeconfig: Option<&Path>) -> anyhow::Result<(Cluster, Wanted)> {
    let mut cluster = Cluster::connect(kubeconfig).await?;
    let wanted = tokio::time::timeout(ANSWER, cluster.next()).await;
    Ok((cluster, wanted.context("the API server has not sent its pools; see the warnings above")?))
}

/// The pools, as they are now: in a cluster each node's part by itself.
///
/// # Errors
/// When they cannot be read, or one of them is wrong.
pub async fn pools(source: &PoolSource) -> anyhow::Result<Vec<Arc<CloudPool>>> {
    let wanted = match source {
        PoolSource::Files(folder) => Wanted::of_files(watch(folder)?.next().await),
        PoolSource::Cluster { kubeconfig } => read(kubeconfig.as_deref()).await?.1,
    };
    let mut pools = Pools::default();
    let errors = pools.take(wanted);
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(pools.known.into_values().map(|pool| pool.pool).collect())
}

/// The instances of a cluster's nodes. `None` of files: they are this instance's.
///
/// # Errors
/// When they cannot be read.
pub async fn instances(source: &PoolSource) -> anyhow::Result<Option<BTreeSet<String>>> {
    match source {
        PoolSource::Files(_) => Ok(None),
        PoolSource::Cluster { kubeconfig } => Ok(Some(read(kubeconfig.as_deref()).await?.0.instances())),
    }
}

/// The calls that `run` would make, pool by pool.
///
/// # Errors
/// When the cloud cannot be read.
pub async fn rehearse(source: &PoolSource, region: Option<String>, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(source).await?;
    let mut aws = Aws::new(region, Stop::default())?;
    for pool in pools {
        let (calls, report) = keeper::rehearse(&mut aws, &pool).await.with_context(|| format!("pool {}", pool.name))?;
        told(format!("EgressPool {} on {}: {} calls", pool.name, report.network_interface.unwrap_or_default(), calls.len()));
        calls.iter().for_each(|planned| told(format!("  {}: {}", planned.call, planned.reason)));
        let wrong = report.conditions.iter().filter(|(_, condition)| condition.reason > Reason::Pending);
        wrong.for_each(|(aspect, condition)| told(format!("  {aspect} {}: {}", condition.reason, condition.message)));
    }
    Ok(())
}
