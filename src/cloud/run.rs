//! `egressd-cloud run` and `release`: the pools of a folder, each looked at when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use egressd::daemon::listen_to_signals;
use egressd::facts::files;
use egressd::model::cloud::{Aws as Spec, CloudPool, ElasticAddresses, Interface};
use egressd::model::manifests::Manifests;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::aws::Aws;
use crate::keeper::{self, Failures, Memory};
use crate::model::answers::supposed;
use crate::model::facts::Nic;
use crate::model::release::{self, Kept};
use crate::model::report::{PoolReport, Reason};
use crate::provider::Provider;
use crate::state::{self, Status};

/// Objects whose errors the agent tells.
const OTHERS: [&str; 3] = ["EgressBinding ", "EgressNetwork ", "EgressProxy "];
/// How long to wait after a reading that failed.
const UNREAD: Duration = Duration::from_secs(10);

/// What `egressd-cloud run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// Folder of the status.
    pub state: PathBuf,
    /// Region of pools that name none.
    pub region: Option<String>,
    /// How often a pool is read that is as it is to be.
    pub interval: Duration,
    /// So long may readings lag behind answers.
    pub window: Duration,
    /// End as soon as nothing is left to do.
    pub once: bool,
}

/// One pool, and what is known of it.
struct Pool {
    pool: Arc<CloudPool>,
    failures: Failures,
    report: PoolReport,
    due: Instant,
    over: bool,
}

/// Looks after the pools until it is told to stop (SIGTERM, SIGINT), or with `once` until nothing is left to do.
/// Says whether everything is as the pools ask.
///
/// # Errors
/// When it cannot start, or the status cannot be written.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let held = state::hold(&options.state)?;
    let mut manifests = watch(&options.manifests)?;
    let mut aws = Aws::new(options.region.clone())?;
    let (stopped, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (flag, told) = (Arc::clone(&stopped), Arc::clone(&stop));
    listen_to_signals(move || {
        flag.store(true, Ordering::Relaxed);
        told.notify_one();
    });
    let mut memory = Memory::new(options.window);
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let mut errors = take(manifests.next().await, &mut pools);
    info!(version = env!("CARGO_PKG_VERSION"), pools = pools.len(), "egressd-cloud runs");
    loop {
        for pool in pools.values_mut().filter(|pool| pool.due <= Instant::now()) {
            look(&mut aws, pool, &mut memory, &options, || stopped.load(Ordering::Relaxed)).await;
        }
        let reports = pools.iter().map(|(name, pool)| (name.clone(), pool.report.clone())).collect();
        let status = Status { pools: reports, errors: errors.clone() };
        status.write(&held.folder).with_context(|| format!("failed to write to {}", held.folder.display()))?;
        if stopped.load(Ordering::Relaxed) || (options.once && pools.values().all(|pool| pool.over)) {
            return Ok(status.is_ready());
        }
        let due = pools.values().map(|pool| pool.due).min().unwrap_or_else(|| Instant::now() + options.interval);
        tokio::select! {
            said = manifests.next() => errors = take(said, &mut pools),
            () = tokio::time::sleep_until(due.into()) => {}
            () = stop.notified() => {}
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
            warn!(pool = pool.pool.name, %error, "failed to read the cloud; what is known stays");
            pool.report.problem = Some(error.to_string());
            (pool.due, pool.over) = (Instant::now() + UNREAD.min(options.interval), true);
        }
    }
}

fn watch(folder: &Path) -> anyhow::Result<files::Source> {
    files::Source::new(folder, Path::new(""), None).with_context(|| format!("failed to read manifests of {}", folder.display()))
}

/// Takes what manifests say now, and returns what is wrong. A pool that is wrong now stays as it was, and from one that is gone nothing is
/// taken away.
fn take(said: Manifests, pools: &mut BTreeMap<String, Pool>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut wrong = BTreeSet::new();
    for error in said.errors.iter().filter(|error| !OTHERS.iter().any(|kind| error.object.starts_with(kind))) {
        let mut message = format!("{}: {}", error.object, error.error);
        if let Some(name) = error.object.strip_prefix("EgressPool ").filter(|name| pools.contains_key(*name)) {
            wrong.insert(name.to_owned());
            message += " (what it said before stays in force)";
        }
        warn!("{message}");
        errors.push(message);
    }
    let names: BTreeSet<&str> = said.pools.iter().map(|pool| pool.name.as_str()).collect();
    pools.retain(|name, _| {
        let stays = names.contains(name.as_str()) || wrong.contains(name);
        if !stays {
            info!(pool = name, "the pool is gone; what it has in the cloud stays until `egressd-cloud release {name}`");
        }
        stays
    });
    for pool in said.pools {
        match pools.get_mut(&pool.name) {
            Some(known) if known.pool == pool => {}
            Some(known) => (known.pool, known.due, known.over) = (pool, Instant::now(), false),
            None => {
                let new = Pool {
                    pool: Arc::clone(&pool),
                    failures: Failures::default(),
                    report: PoolReport::default(),
                    due: Instant::now(),
                    over: false,
                };
                pools.insert(pool.name.clone(), new);
            }
        }
    }
    errors
}

/// The pools of a folder, as it is now.
///
/// # Errors
/// When the folder cannot be read, or one of its pools is wrong.
pub async fn pools(folder: &Path) -> anyhow::Result<Vec<Arc<CloudPool>>> {
    let mut pools = BTreeMap::new();
    let errors = take(watch(folder)?.next().await, &mut pools);
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(pools.into_values().map(|pool| pool.pool).collect())
}

/// What `egressd-cloud release` was asked for.
#[derive(Clone, Debug)]
pub struct Release {
    pub pool: String,
    pub manifests: PathBuf,
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
    let pools = pools(&options.manifests).await?;
    let mut aws = Aws::new(options.region.clone())?;
    let asked = pools.iter().find(|pool| pool.name == options.pool);
    let region = options.region.clone().or_else(|| asked.and_then(|pool| pool.aws.region.clone()));
    let nic = match &options.nic {
        Some(nic) => nic.clone(),
        None => one(&options.pool, aws.interfaces_of(&options.pool, region.as_deref()).await?)?,
    };
    let interface = Interface::Id(nic.clone());
    // One that is found by its instance may be the same.
    let here = |pool: &&Arc<CloudPool>| !matches!(&pool.aws.interface, Interface::Id(id) if *id != nic);
    let others = pools.iter().filter(here);
    let kept = Kept {
        addresses: asked.map(|pool| pool.addresses.iter().copied().collect()),
        forwards: others.clone().any(|pool| pool.aws.forwards),
        tables: others.flat_map(|pool| pool.aws.route_tables.iter().cloned()).collect(),
    };
    // Elastic addresses are read whatever the pool asked for.
    let elastic = Some(ElasticAddresses::Allocate);
    let spec = Spec { region, interface, elastic, forwards: false, route_tables: Vec::new() };
    let pool = CloudPool { name: options.pool.clone(), addresses: Vec::new(), aws: spec };
    loop {
        let made = give_back(&mut aws, &pool, &kept, options.dry_run, &mut told).await?;
        if made == 0 || options.dry_run {
            return Ok(());
        }
        // What was done before this began may have been shown late.
        tokio::time::sleep(options.window).await;
    }
}

/// Reads once, and makes the calls that are due after that. Returns how many.
async fn give_back(aws: &mut Aws, pool: &CloudPool, kept: &Kept, dry_run: bool, told: &mut impl FnMut(String)) -> anyhow::Result<usize> {
    let mut known = aws.read(pool).await?;
    let mut made = 0;
    loop {
        let plan = release::release(&pool.name, kept, &known);
        let Some(next) = plan.calls.first() else {
            let left: Vec<&str> = plan.problems.iter().map(|problem| problem.message.as_str()).collect();
            anyhow::ensure!(left.is_empty(), "not all of it can be given back: {}", left.join(". "));
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
        [] => anyhow::bail!("no network interface bears the tag of a pool {pool}: nothing is to be released, or --region is another one"),
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
pub async fn rehearse(options: Options, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(&options.manifests).await?;
    let mut aws = Aws::new(options.region)?;
    for pool in pools {
        let (calls, report) = keeper::rehearse(&mut aws, &pool).await.with_context(|| format!("pool {}", pool.name))?;
        told(format!("EgressPool {} on {}: {} calls", pool.name, report.network_interface.unwrap_or_default(), calls.len()));
        calls.iter().for_each(|planned| told(format!("  {}: {}", planned.call, planned.reason)));
        let wrong = report.conditions.iter().filter(|(_, condition)| condition.reason > Reason::Pending);
        wrong.for_each(|(aspect, condition)| told(format!("  {aspect} {}: {}", condition.reason, condition.message)));
    }
    Ok(())
}
