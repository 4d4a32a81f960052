//! The agent that holds the Lease: hears of all nodes, folds, writes. At most once a second, however much is said.
//!
//! It runs in a thread of its own: reading the reports of a thousand nodes must not keep the loop from a pod that starts.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::lease::Candidate;
use super::{Names, follow, write};
use crate::report::fold::{Past, World, fold};

/// Between two folds.
const FOLD: Duration = Duration::from_secs(1);
/// How long after the last of several failures all is written anew.
const LATEST: Duration = Duration::from_secs(60);
/// How long the Lease may take to be released.
const PATIENCE: Duration = Duration::from_secs(2);

/// This agent as one that may hold the Lease, for as long as this is kept.
pub struct Leader {
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
}

/// Starts to ask for the Lease. `raw_exits`: bindings may name exits themselves.
///
/// # Errors
/// When no thread, or no runtime for it, can be had.
pub fn start(client: Client, names: Names, raw_exits: bool) -> std::io::Result<Leader> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, told) = oneshot::channel::<()>();
    let (done, stopped) = oneshot::channel();
    std::thread::Builder::new().name("leader".to_owned()).spawn(move || {
        runtime.block_on(run(client, names, raw_exits, told));
        // Nobody may be waiting.
        let _ = done.send(());
    })?;
    Ok(Leader { stop: Some(stop), stopped })
}

impl Leader {
    /// Lets go of the Lease if this agent holds it, and waits for that a little.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = timeout(PATIENCE, &mut self.stopped).await;
    }
}

/// Until told to stop, or until the other end is dropped.
async fn run(client: Client, names: Names, raw_exits: bool, mut stop: oneshot::Receiver<()>) {
    let mut candidate = Candidate::new(client.clone(), &names.namespace, &names.pod);
    loop {
        tokio::select! {
            _ = &mut stop => return,
            () = candidate.acquire() => {}
        }
        let (agents, count) = watch::channel(0);
        tokio::select! {
            _ = &mut stop => return candidate.release().await,
            () = candidate.keep(|| *count.borrow()) => {}
            () = lead(&client, &names, raw_exits, &agents) => {}
        }
    }
}

/// Hears, folds and writes.
async fn lead(client: &Client, names: &Names, raw_exits: bool, agents: &watch::Sender<usize>) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let _followers = follow::start(client, &names.namespace, &tell);
    let (mut world, mut past) = (World::new(raw_exits), Past::default());
    let mut said: BTreeSet<String> = BTreeSet::new();
    let mut failures = 0;
    let (mut due, mut earliest) = (None::<Instant>, Instant::now());
    loop {
        tokio::select! {
            Some(change) = told.recv() => {
                world.apply(change);
                due = Some(due.map_or(earliest, |due| due.min(earliest)));
                continue;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        while let Ok(change) = told.try_recv() {
            world.apply(change);
        }
        agents.send_replace(world.agents());
        let now = Timestamp::now();
        let writes = fold(&world, &mut past, now);
        let again = writes.again.map(|again| Instant::now() + again.duration_since(now).unsigned_abs());
        debug!(bindings = writes.bindings.len(), pools = writes.pools.len(), events = writes.events.len(), "folded");
        let (changes, refused) = write::carry_out(client, names, writes).await;
        // As if it had been heard already, or the next fold would decide the same again.
        changes.into_iter().for_each(|change| world.apply(change));
        let refused: BTreeSet<String> = refused.iter().map(ToString::to_string).collect();
        refused.difference(&said).for_each(|error| warn!(error, "failed to write what follows from the nodes' reports; trying again"));
        failures = if refused.is_empty() { 0 } else { failures + 1 };
        said = refused;
        earliest = Instant::now() + (FOLD * 2_u32.saturating_pow(failures)).min(LATEST);
        due = if failures > 0 { Some(earliest) } else { again.map(|again| again.max(earliest)) };
    }
}
