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
pub enum Place {
    /// A folder of manifests.
    Files(PathBuf),
    /// The API server.
    Cluster {
        /// `None`: as in a pod.
        kubeconfig: Option<PathBuf>,
    },
}

/// Who looks after the pools, and where it is told what became of them.
#[derive(Clone, Debug)]
pub enum Office {
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
    pub office: Office,
    /// Region of pools that name none.
    pub region: Option<String>,
    /// How often a pool is read that is as it is to be.
    pub interval: Duration,
    /// So long may readings lag behind answers.
    pub window: Duration,
    /// End as soon as nothing is left to do.
    pub once: bool,
}

/// The desk of a process that looks after pools.
enum Desk {
    Host { manifests: Box<files::Source>, held: state::Held },
    Cluster { cluster: Box<Cluster>, held: cluster::Held },
}

impl Desk {
    /// `None`: told to stop before it was this one's turn.
    async fn open(office: &Office, stop: &Stop) -> anyhow::Result<Option<Self>> {
        match office {
            Office::Host { manifests, state } => {
                let held = state::hold(state)?;
                Ok(Some(Self::Host { manifests: Box::new(watch(manifests)?), held }))
            }
            Office::Cluster(access) => {
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
    let Some(mut desk) = Desk::open(&options.office, &stop).await? else { return Ok(true) };
    let ready = keep(&mut desk, &options, &stop).await;
    desk.close().await;
    anyhow::ensure!(!stop.is_lost(), "lost the Lease: another egressd-cloud may look after the pools by now");
    ready
}

async fn keep(desk: &mut Desk, options: &Options, stop: &Stop) -> anyhow::Result<bool> {
    let mut aws = Aws::new(options.region.clone(), stop.clone())?;
    let mut memory = Memory::new(options.window);
    let mut pools = Pools::new(desk.before());
    let mut errors = tokio::select! {
        wanted = desk.next() => pools.take(wanted),
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
        let again = desk.tell(&pools.known, &status).await?;
        let told = again.is_none();
        if stop.is_told() || (options.once && told && pools.known.values().all(|pool| pool.over)) {
            return Ok(status.is_ready());
        }
        let due = pools.known.values().map(|pool| pool.due).chain(again).min().unwrap_or_else(|| Instant::now() + options.interval);
        tokio::select! {
            wanted = desk.next() => {
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
pub async fn wishes(place: &Place) -> anyhow::Result<Vec<CloudPool>> {
    match place {
        Place::Files(_) => Ok(pools(place).await?.iter().map(|pool| (**pool).clone()).collect()),
        Place::Cluster { kubeconfig } => Ok(read(kubeconfig.as_deref()).await?.0.whole()),
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
pub async fn pools(place: &Place) -> anyhow::Result<Vec<Arc<CloudPool>>> {
    let wanted = match place {
        Place::Files(folder) => Wanted::of_files(watch(folder)?.next().await),
        Place::Cluster { kubeconfig } => read(kubeconfig.as_deref()).await?.1,
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
pub async fn instances(place: &Place) -> anyhow::Result<Option<BTreeSet<String>>> {
    match place {
        Place::Files(_) => Ok(None),
        Place::Cluster { kubeconfig } => Ok(Some(read(kubeconfig.as_deref()).await?.0.instances())),
    }
}

/// The calls that `run` would make, pool by pool.
///
/// # Errors
/// When the cloud cannot be read.
pub async fn rehearse(place: &Place, region: Option<String>, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(place).await?;
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
