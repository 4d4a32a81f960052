//! Answers for those who look all the time: status and flows are read at most once a second, and only while somebody asks.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use foldhash::fast::FixedState;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

use super::EventSender;
use super::question::{self, Question, Response, put, with_drops};
use super::tally::{self, Reader, Reading};
use crate::effects::kernel::Failure;
use crate::report::drops::Dropped;
use crate::report::flows::{Flows, Owners};
use crate::report::status::{Counted, Status, Workload, unknown};

/// How long a count stays fresh.
const FRESH: Duration = Duration::from_secs(1);
/// Between two reports of a status that changes all the time: a large one takes the loop milliseconds.
const PAUSE: Duration = Duration::from_millis(250);

/// The cache; its clones share one state.
#[derive(Clone)]
pub(super) struct StatusCache(Arc<Inner>);

struct Inner {
    tell: EventSender,
    revisions: watch::Receiver<u64>,
    status: Mutex<Option<Arc<Snapshot>>>,
    counts: Mutex<Counts>,
    /// What metrics tell, and when it began to be counted.
    counters: Mutex<Option<(Instant, Counted)>>,
}

#[derive(Default)]
struct Counts {
    reader: Reader,
    last: Option<(Instant, Arc<Reading>)>,
}

/// A status as the loop reported it.
pub(super) struct Snapshot {
    at: Instant,
    revision: u64,
    /// Goes up when anything but a counter differs from the snapshot before.
    pub number: u64,
    fingerprint: u64,
    pub owners: Owners,
    pub dropped: Vec<Dropped>,
    /// As JSON.
    pub body: Bytes,
}

impl StatusCache {
    pub fn new(tell: EventSender, revisions: watch::Receiver<u64>) -> Self {
        Self(Arc::new(Inner { tell, revisions, status: Mutex::default(), counts: Mutex::default(), counters: Mutex::default() }))
    }

    /// Goes up whenever status may have changed.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.0.revisions.clone()
    }

    /// Puts a question to the loop; `None` when it stops.
    pub async fn put(&self, question: Question) -> Option<Response> {
        put(question, &self.0.tell).await
    }

    /// Status as of now, with counters of the last second; `None` when the loop stops. Whoever asks meanwhile gets the same.
    pub async fn status(&self) -> Option<Arc<Snapshot>> {
        let mut kept = self.0.status.lock().await;
        if let Some(last) = &*kept {
            if last.revision == *self.0.revisions.borrow() && last.at.elapsed() < FRESH {
                return Some(Arc::clone(last));
            }
            tokio::time::sleep(PAUSE.saturating_sub(last.at.elapsed())).await;
        }
        let counted = self.counted().await.counted.clone();
        let revision = *self.0.revisions.borrow();
        let Some(Response::Status(status)) = self.put(Question::Status(with_drops(counted).await)).await else { return None };
        let before = kept.as_ref().map(|last| (last.number, last.fingerprint));
        let snapshot = spawn_blocking(move || Snapshot::of(status, revision, before)).await.ok()?;
        let snapshot = Arc::new(snapshot);
        *kept = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// What the kernel has counted since this was asked: it is read for one client after the other, and for all who wait at once.
    pub async fn counters(&self) -> Counted {
        let asked = Instant::now();
        let mut last = self.0.counters.lock().await;
        match &*last {
            Some((began, counted)) if *began >= asked => counted.clone(),
            _ => {
                let began = Instant::now();
                let counted = question::counted().await;
                *last = Some((began, counted.clone()));
                counted
            }
        }
    }

    /// What leaves and comes in by each exit; `None` when the loop stops.
    pub async fn flows(&self) -> Option<Flows> {
        let snapshot = self.status().await?;
        Some(Flows { exits: self.counted().await.exits(&snapshot.owners), ..Flows::default() })
    }

    /// The same with the open flows of a workload, or of all, at most so many; `None` when the loop stops.
    pub async fn flows_of(&self, workload: Option<String>, most: usize) -> Option<Result<Flows, FlowsError>> {
        let snapshot = self.status().await?;
        let exits = self.counted().await.exits(&snapshot.owners);
        let names = match workload {
            Some(name) => match snapshot.owners.named(&name) {
                names if names.is_empty() => return Some(Err(FlowsError::Unknown(name))),
                names => Some(names),
            },
            None => None,
        };
        let wanted = move |of: Option<&str>| names.as_ref().is_none_or(|names| of.is_some_and(|of| names.contains(of)));
        let listed = spawn_blocking(move || tally::list(&snapshot.owners, most, wanted)).await.ok()?;
        Some(
            listed
                .map(|(flows, more)| Flows { exits, flows, more })
                .map_err(|error| FlowsError::Unread(Failure::of("listing flows", &error))),
        )
    }

    /// What is in conntrack's table, at most a second old.
    async fn counted(&self) -> Arc<Reading> {
        let mut counts = self.0.counts.lock().await;
        if let Some((at, reading)) = &counts.last
            && at.elapsed() < FRESH
        {
            return Arc::clone(reading);
        }
        let mut reader = std::mem::take(&mut counts.reader);
        let read = spawn_blocking(move || {
            let reading = reader.read();
            (reader, reading)
        });
        let (reader, reading) = read.await.unwrap_or_default();
        let reading = Arc::new(reading);
        *counts = Counts { reader, last: Some((Instant::now(), Arc::clone(&reading))) };
        reading
    }
}

/// Why the flows of a workload are not listed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowsError {
    #[error("{}", unknown(.0))]
    Unknown(String),
    #[error("{0}")]
    Unread(Failure),
}

impl Snapshot {
    /// `before`: number and fingerprint of the snapshot before.
    fn of(mut status: Status, revision: u64, before: Option<(u64, u64)>) -> Self {
        let at = Instant::now();
        let dropped = std::mem::take(&mut status.dropped);
        let mut take = |workload: &mut Workload| (std::mem::take(&mut workload.flows), std::mem::take(&mut workload.dropped));
        let counters: Vec<_> = status.workloads.iter_mut().map(&mut take).collect();
        let fingerprint = FixedState::default().hash_one(json(&status));
        status.dropped.clone_from(&dropped);
        for (workload, counters) in status.workloads.iter_mut().zip(counters) {
            (workload.flows, workload.dropped) = counters;
        }
        let number = match before {
            Some((number, same)) if same == fingerprint => number,
            Some((number, _)) => number + 1,
            None => 1,
        };
        Self { at, revision, number, fingerprint, owners: Owners::of(&status), dropped, body: json(&status).into() }
    }
}

fn json(status: &Status) -> Vec<u8> {
    serde_json::to_vec(status).expect("a status is plain data")
}
