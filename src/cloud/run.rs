//! `egressd-cloud run`, each pool looked at when it is due, and `release`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use egressd::daemon::listen_to_signals;
use egressd::facts::files;
use egressd::model::cloud::{Aws as Spec, CloudPool, ElasticAddresses, Interface};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::aws::Aws;
use crate::cluster::{self, Access, Cluster};
use crate::keeper::{self, Memory};
use crate::model::answers::supposed;
use crate::model::facts::Nic;
use crate::model::release::{self, Kept};
use crate::model::report::{PoolReport, Reason};
use crate::provider::Provider;
use crate::state::{self, Status};
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

/// What tells this process to stop.
#[derive(Clone, Default)]
struct Stop {
    flag: Arc<AtomicBool>,
    told: Arc<Notify>,
    /// It is no more this process that looks after the pools.
    lost: Arc<AtomicBool>,
}

impl Stop {
    fn stop(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
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
                let lost = move || {
                    on_loss.lost.store(true, Ordering::Relaxed);
                    on_loss.stop();
                };
                let held = tokio::select! {
                    held = cluster::hold(access, lost) => held?,
                    () = stop.told.notified() => return Ok(None),
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
    listen_to_signals(move || by_signal.stop());
    let Some(mut desk) = Desk::open(&options.office, &stop).await? else { return Ok(true) };
    let ready = keep(&mut desk, &options, &stop).await;
    desk.close().await;
    anyhow::ensure!(!stop.lost.load(Ordering::Relaxed), "lost the Lease: another egressd-cloud may look after the pools by now");
    ready
}

async fn keep(desk: &mut Desk, options: &Options, stop: &Stop) -> anyhow::Result<bool> {
    let mut aws = Aws::new(options.region.clone())?;
    let mut memory = Memory::new(options.window);
    let mut pools = Pools::new(desk.before());
    let mut errors = tokio::select! {
        wanted = desk.next() => pools.take(wanted),
        () = stop.told.notified() => return Ok(true),
    };
    errors.iter().for_each(|error| warn!("{error}"));
    info!(version = env!("CARGO_PKG_VERSION"), pools = pools.known.len(), "egressd-cloud runs");
    loop {
        for pool in pools.known.values_mut().filter(|pool| pool.due <= Instant::now()) {
            look(&mut aws, pool, &mut memory, options, || stop.is_stopped()).await;
        }
        let status = Status { pools: pools.reports(), errors: errors.clone() };
        let again = desk.tell(&pools.known, &status).await?;
        let told = again.is_none();
        if stop.is_stopped() || (options.once && told && pools.known.values().all(|pool| pool.over)) {
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
            () = stop.told.notified() => {}
        }
    }
}

/// One round of one pool. When the cloud cannot be read, all that is known stays.
async fn look(aws: &mut Aws, pool: &mut Pool, memory: &mut Memory, options: &Options, stopped: impl Fn() -> bool) {
    match keeper::round(aws, &pool.pool, memory, &mut pool.failures, stopped).await {
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
        Err(error) => {
            warn!(pool = pool.pool.name, %error, "failed to read the cloud; the last reading stays in force");
            pool.report.problem = Some(error.to_string());
            (pool.due, pool.over) = (Instant::now() + UNREAD.min(options.interval), true);
        }
    }
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

/// What `egressd-cloud release` was asked for.
#[derive(Clone, Debug)]
pub struct Release {
    pub pool: String,
    pub place: Place,
    pub region: Option<String>,
    /// `None`: the one that bears the pool's tag.
    pub nic: Option<String>,
    /// So long may readings lag behind answers.
    pub window: Duration,
    pub dry_run: bool,
}

/// Gives back what a pool has and no longer asks for, and says which calls that took (or would take).
///
/// # Errors
/// When a call fails, or what is meant cannot be told.
pub async fn release(options: Release, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(&options.place).await?;
    let mut aws = Aws::new(options.region.clone())?;
    let named: Vec<&CloudPool> = pools.iter().map(|pool| &**pool).filter(|pool| pool.name == options.pool).collect();
    let region = options.region.clone().or_else(|| named.first().and_then(|pool| pool.aws.region.clone()));
    let nic = match &options.nic {
        Some(nic) => nic.clone(),
        None => one(&options.pool, aws.interfaces_of(&options.pool, region.as_deref()).await?)?,
    };
    let interface = Interface::Id(nic.clone());
    // One that is found by its instance may be the same.
    let here = |pool: &&Arc<CloudPool>| !matches!(&pool.aws.interface, Interface::Id(id) if *id != nic);
    let others = pools.iter().filter(here);
    let kept = Kept {
        addresses: asked(&mut aws, &named, &nic).await?,
        forwards: others.clone().any(|pool| pool.aws.forwards),
        tables: others.flat_map(|pool| pool.aws.route_tables.iter().cloned()).collect(),
    };
    // Elastic addresses are read whatever the pool asked for.
    let elastic = Some(ElasticAddresses::Allocate);
    let spec = Spec { region, interface, elastic, forwards: false, route_tables: Vec::new() };
    let pool = CloudPool { name: options.pool.clone(), addresses: Vec::new(), aws: spec, host: None };
    loop {
        let made = give_back(&mut aws, &pool, &kept, options.dry_run, &mut told).await?;
        if made == 0 || options.dry_run {
            return Ok(());
        }
        // What was done before this began may have been shown late.
        tokio::time::sleep(options.window).await;
    }
}

/// What a pool still asks of a network interface; `None`: there is no such pool any more.
async fn asked(aws: &mut Aws, parts: &[&CloudPool], nic: &str) -> anyhow::Result<Option<BTreeSet<Ipv4Addr>>> {
    let mut asked = BTreeSet::new();
    for part in parts {
        // Other nodes have other addresses of it.
        if part.host.is_none() || aws.read(part).await?.nic.id == nic {
            asked.extend(part.addresses.iter().copied());
        }
    }
    Ok((!parts.is_empty()).then_some(asked))
}

/// Reads once, and makes the calls that are due after that. Returns how many.
async fn give_back(aws: &mut Aws, pool: &CloudPool, kept: &Kept, dry_run: bool, told: &mut impl FnMut(String)) -> anyhow::Result<usize> {
    let mut known = aws.read(pool).await?;
    let mut made = 0;
    loop {
        let plan = release::release(&pool.name, kept, &known);
        let Some(next) = plan.calls.first() else {
            let left: Vec<&str> = plan.problems.iter().map(|problem| problem.message.as_str()).collect();
            anyhow::ensure!(left.is_empty(), "some of it cannot be released: {}", left.join(". "));
            return Ok(made);
        };
        let answer = if dry_run { supposed(&next.call, made) } else { aws.perform(pool, &next.call).await? };
        told(format!("{}: {}", next.call, next.reason));
        known.learn(&next.call, &answer);
        made += 1;
    }
}

/// The network interface that bears the pool's tag.
fn one(pool: &str, nics: Vec<Nic>) -> anyhow::Result<String> {
    match nics.as_slice() {
        [] => anyhow::bail!("no network interface has the tag of a pool {pool}: there is nothing to release, or --region is wrong"),
        [nic] => Ok(nic.id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().map(|nic| nic.id.as_str()).collect();
            anyhow::bail!("several network interfaces have a pool {pool}: name one by --network-interface: {}", ids.join(", "))
        }
    }
}

/// The calls that `run` would make, pool by pool.
///
/// # Errors
/// When the cloud cannot be read.
pub async fn rehearse(place: &Place, region: Option<String>, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(place).await?;
    let mut aws = Aws::new(region)?;
    for pool in pools {
        let (calls, report) = keeper::rehearse(&mut aws, &pool).await.with_context(|| format!("pool {}", pool.name))?;
        told(format!("EgressPool {} on {}: {} calls", pool.name, report.network_interface.unwrap_or_default(), calls.len()));
        calls.iter().for_each(|planned| told(format!("  {}: {}", planned.call, planned.reason)));
        let wrong = report.conditions.iter().filter(|(_, condition)| condition.reason > Reason::Pending);
        wrong.for_each(|(aspect, condition)| told(format!("  {aspect} {}: {}", condition.reason, condition.message)));
    }
    Ok(())
}
