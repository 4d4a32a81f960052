//! What sources behind a socket have in common: one session after another, in a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backoff::Backoff;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// A session that lived this long ended for a reason of its own: the next attempt is made soon.
const SETTLED: Duration = Duration::from_secs(10);

/// What such a source says.
pub trait Change: Send + 'static {
    /// What is followed is away, and why.
    fn lost(why: String) -> Self;

    /// The whole truth as of now, and the first word of each session.
    fn is_snapshot(&self) -> bool;
}

/// How a session says something.
pub struct Tell<C> {
    changes: mpsc::UnboundedSender<C>,
    told: Arc<AtomicBool>,
}

impl<C> Tell<C> {
    pub fn say(&self, change: C) {
        self.told.store(true, Ordering::Relaxed);
        // Fails only when the source is dropped, and this task with it.
        let _ = self.changes.send(change);
    }
}

/// Something that is followed for as long as this is kept. Docker disconnects slow event readers, so a task of its own reads them.
pub struct Followed<C> {
    changes: mpsc::UnboundedReceiver<C>,
    task: JoinHandle<()>,
}

impl<C: Change> Followed<C> {
    /// Begins a session after the end of each, sooner or later. `what` is its name in the log.
    pub fn start<F, E>(what: String, session: impl Fn(Tell<C>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = E> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let (sender, changes) = mpsc::unbounded_channel();
        Self { changes, task: tokio::spawn(follow(what, session, sender)) }
    }

    /// Waits for changes and gives all that are there, in order. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Vec<C> {
        let mut batch = Vec::new();
        self.changes.recv_many(&mut batch, usize::MAX).await;
        // What was said before a snapshot is of no use any more.
        if let Some(last) = batch.iter().rposition(Change::is_snapshot) {
            batch.drain(..last);
        }
        batch
    }
}

impl<C> Drop for Followed<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow<C, F, E>(what: String, session: impl Fn(Tell<C>) -> F, changes: mpsc::UnboundedSender<C>)
where
    C: Change,
    F: Future<Output = E>,
    E: std::error::Error,
{
    let anew = || Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
    let mut backoff = anew();
    let mut said = None;
    loop {
        let began = Instant::now();
        let told = Arc::new(AtomicBool::new(false));
        let ended = session(Tell { changes: changes.clone(), told: Arc::clone(&told) }).await.to_string();
        if told.load(Ordering::Relaxed) {
            said = None;
        }
        if said.as_ref() != Some(&ended) {
            tracing::warn!(error = ended, "lost {what}; reconnecting");
            let _ = changes.send(C::lost(ended.clone()));
            said = Some(ended);
        }
        if began.elapsed() >= SETTLED {
            backoff = anew();
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}
