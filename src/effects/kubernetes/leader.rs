//! The controller that is the leader: hears of all nodes, folds, writes. At most once a second, however much is said, and nothing once its time
//! as the leader is over: what is on its way then is given up.
//!
//! It runs in a thread of its own: reading the reports of a thousand nodes must not keep a probe from its answer.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::failing::Failing;
use super::lease::{CONTROLLERS, Candidate, Standing};
use super::write_queue::{Key, WriteQueue, WriteResult};
use super::{Identity, follow, write};
use crate::report::fold::{Clock, Past, World, Writes, fold};

/// Between two folds.
const FOLD: Duration = Duration::from_secs(1);
/// So many bindings and pools are written at a time...
const OBJECTS: usize = 16;
/// ...and so many Events.
const EVENTS: usize = 4;
/// How long the Lease may take to be released.
const PATIENCE: Duration = Duration::from_secs(2);

/// This process as one that may hold the Lease, for as long as this is kept.
pub struct Leader {
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
    standing: watch::Receiver<Standing>,
}

/// Starts to ask for the Lease. `raw_exits`: bindings may name exits themselves.
///
/// # Errors
/// When no thread, or no runtime for it, can be had.
pub fn start(client: Client, identity: Identity, raw_exits: bool) -> std::io::Result<Leader> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, told) = oneshot::channel::<()>();
    let (done, stopped) = oneshot::channel();
    let (tell, standing) = watch::channel(Standing::default());
    std::thread::Builder::new().name("leader".to_owned()).spawn(move || {
        runtime.block_on(run(client, identity, raw_exits, told, tell));
        // Nobody may be waiting.
        let _ = done.send(());
    })?;
    Ok(Leader { stop: Some(stop), stopped, standing })
}

impl Leader {
    /// What this process is, as of any moment. Closed once its thread has ended.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Lets go of the Lease if this process holds it, and waits for that a little.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = timeout(PATIENCE, &mut self.stopped).await;
    }
}

/// Until told to stop, or until the other end is dropped.
async fn run(client: Client, identity: Identity, raw_exits: bool, mut stop: oneshot::Receiver<()>, standing: watch::Sender<Standing>) {
    let mut candidate = Candidate::new(client.clone(), &identity.namespace, CONTROLLERS, &identity.pod, standing.clone());
    loop {
        tokio::select! {
            _ = &mut stop => return,
            () = candidate.acquire() => {}
        }
        let (until, deadline) = watch::channel(candidate.until());
        let queues = WriteQueues::new(&client, &identity, deadline);
        tokio::select! {
            _ = &mut stop => return candidate.release().await,
            () = candidate.keep(&until) => {}
            () = lead(&client, &identity, raw_exits, queues, &standing) => {}
        }
        standing.send_modify(|standing| *standing = Standing { heard: standing.heard, ..Standing::default() });
    }
}

/// Hears, folds and writes.
async fn lead(client: &Client, identity: &Identity, raw_exits: bool, mut queues: WriteQueues, standing: &watch::Sender<Standing>) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let _followers = follow::start(client, &identity.namespace, &tell);
    let (mut world, mut past) = (World::new(raw_exits), Past::default());
    let (began, began_wall) = (Instant::now(), Timestamp::now());
    let mut failing = Failing::default();
    let (mut due, mut earliest) = (None::<Instant>, Instant::now());
    loop {
        tokio::select! {
            Some(change) = told.recv() => {
                world.apply(change);
                due = Some(due.map_or(earliest, |due| due.min(earliest)));
                continue;
            }
            (key, result) = queues.done() => {
                if let Key::Object(uid) = &key {
                    past.answered(uid);
                }
                failing.note(key, &result);
                standing.send_modify(|standing| standing.failing = failing.count());
                // As if it had been heard already, or the next fold would decide the same again.
                result.into_iter().flatten().for_each(|change| world.apply(change));
                due = Some(due.map_or(earliest, |due| due.min(earliest)));
                continue;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        while let Ok(change) = told.try_recv() {
            world.apply(change);
        }
        let steady = began_wall + SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        let writes = fold(&world, &mut past, Clock { steady, wall: Timestamp::now() });
        failing.look(&writes);
        standing.send_modify(|standing| standing.failing = failing.count());
        let again = writes.again.map(|again| Instant::now() + again.duration_since(steady).unsigned_abs());
        debug!(bindings = writes.bindings.len(), pools = writes.pools.len(), events = writes.events.len(), "folded");
        let later = queues.send(writes, &mut past);
        earliest = Instant::now() + FOLD;
        due = again.into_iter().chain(later).min().map(|again| again.max(earliest));
    }
}

/// What this process writes while it is the leader.
struct WriteQueues {
    client: Client,
    identity: Identity,
    /// Until when it is the leader.
    until: watch::Receiver<Instant>,
    objects: WriteQueue,
    events: WriteQueue,
    count: u64,
}

impl WriteQueues {
    fn new(client: &Client, identity: &Identity, until: watch::Receiver<Instant>) -> Self {
        let (objects, events) = (WriteQueue::new(OBJECTS), WriteQueue::new(EVENTS));
        Self { client: client.clone(), identity: identity.clone(), until, objects, events, count: 0 }
    }

    /// Begins those writes whose objects may be written now, and says when the next of the others may.
    fn send(&mut self, writes: Writes, past: &mut Past) -> Option<Instant> {
        let Writes { bindings, pools, events, inside, record, unrecorded: _, again: _ } = writes;
        let now = Instant::now();
        // A fold takes time, and the thread that makes it renews the Lease.
        if now >= *self.until.borrow() {
            return Some(now);
        }
        let mut later = None;
        let mut may = |queue: &WriteQueue, key: &Key| match queue.is_free(key, now) {
            Ok(()) => true,
            Err(next) => {
                later = later.into_iter().chain(next).min();
                false
            }
        };
        for write in bindings {
            let key = Key::Object(write.of.uid.clone());
            if may(&self.objects, &key) {
                past.sent(&write);
                self.objects.send(key, write::binding(self.client.clone(), write));
            }
        }
        for write in pools {
            let key = Key::Object(write.of.uid.clone());
            if may(&self.objects, &key) {
                self.objects.send(key, write::pool(self.client.clone(), write));
            }
        }
        if let Some(text) = inside.filter(|_| may(&self.objects, &Key::Inside)) {
            self.objects.send(Key::Inside, write::tell_inside(self.client.clone(), self.identity.clone(), text));
        }
        if let Some(data) = record.filter(|_| may(&self.objects, &Key::Record)) {
            self.objects.send(Key::Record, write::record(self.client.clone(), self.identity.clone(), data));
        }
        for event in events {
            // One that is refused is not told again: it is news only once.
            self.count += 1;
            self.events.send(Key::Event(self.count), write::publish(self.client.clone(), self.identity.clone(), event));
        }
        later
    }

    async fn done(&mut self) -> (Key, WriteResult) {
        tokio::select! {
            done = self.objects.done() => done,
            done = self.events.done() => done,
        }
    }
}
