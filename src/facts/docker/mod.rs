//! A Docker engine as a source of facts: which containers and networks there are, with labels and addresses.
//!
//! Labels are known at a container's `create`, addresses at `network connect`: 10 to 290 ms before its first instruction. See `session` for
//! how they are read, `book` for what is made of them.

mod book;
mod question;
mod read;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::binding::Asked;
use crate::model::facts::{Container, EngineChange};
use book::Parse;

pub use read::{BRIDGE_NAME, MANAGED, address, network};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// A session that lived this long ended for a reason of its own: the next attempt is made soon.
const SETTLED: Duration = Duration::from_secs(10);

/// One engine, followed for as long as this is kept.
pub struct Source {
    socket: PathBuf,
    parse: Parse,
    running: Option<Running>,
}

struct Running {
    changes: mpsc::UnboundedReceiver<EngineChange>,
    task: JoinHandle<()>,
}

impl Source {
    /// `parse` reads what a container's labels ask for (its `asked` is `None` then); it is called once for a container and its name.
    pub fn new(socket: &Path, parse: impl Fn(&Container) -> Option<Arc<Asked>> + Send + Sync + 'static) -> Self {
        Self { socket: socket.to_owned(), parse: Arc::new(parse), running: None }
    }

    /// Waits for changes and gives all that are there, in order. May be dropped and called again without loss.
    ///
    /// Never fails: while the engine is away nothing is said after one [`EngineChange::Lost`], and a batch that begins with a
    /// [`EngineChange::Snapshot`] is the first word of each connection.
    pub async fn next(&mut self) -> Vec<EngineChange> {
        let changes = &mut self.running.get_or_insert_with(|| start(self.socket.clone(), self.parse.clone())).changes;
        let mut batch = Vec::new();
        changes.recv_many(&mut batch, usize::MAX).await;
        // What was said before a snapshot is of no use any more.
        if let Some(last) = batch.iter().rposition(|change| matches!(change, EngineChange::Snapshot { .. })) {
            batch.drain(..last);
        }
        batch
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

/// The engine drops a listener that is slow, so that it is read by a task of its own.
fn start(socket: PathBuf, parse: Parse) -> Running {
    let (sender, changes) = mpsc::unbounded_channel();
    Running { changes, task: tokio::spawn(follow(socket, parse, sender)) }
}

async fn follow(socket: PathBuf, parse: Parse, changes: mpsc::UnboundedSender<EngineChange>) {
    let mut backoff = BACKOFF_FIRST;
    let mut said_lost = false;
    loop {
        let began = Instant::now();
        let mut connected = false;
        let ended = session::run(&socket, parse.clone(), |change| {
            connected = true;
            // Fails only when the source is dropped, and this task with it.
            let _ = changes.send(change);
        })
        .await;
        if connected {
            said_lost = false;
        }
        if !said_lost {
            tracing::warn!(socket = %socket.display(), error = %ended, "docker engine is away");
            let _ = changes.send(EngineChange::Lost);
            said_lost = true;
        }
        if began.elapsed() >= SETTLED {
            backoff = BACKOFF_FIRST;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}
