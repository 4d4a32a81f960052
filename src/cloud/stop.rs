//! What tells this process to stop.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::provider::Error;

/// Shared by all that wait for it.
#[derive(Clone)]
pub struct Stop {
    told: Arc<watch::Sender<bool>>,
    /// It is no more this process that looks after the pools.
    lost: Arc<AtomicBool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { told: Arc::new(watch::Sender::new(false)), lost: Arc::default() }
    }
}

impl Stop {
    /// Tells everybody.
    pub fn tell(&self) {
        self.told.send_replace(true);
    }

    /// Tells everybody that another process may look after the pools by now.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.tell();
    }

    pub fn is_told(&self) -> bool {
        *self.told.borrow()
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until it is told.
    pub async fn wait(&self) {
        // The sender is this one's own.
        let _ = self.told.subscribe().wait_for(|told| *told).await;
    }

    /// A reading, which may be left half done.
    ///
    /// # Errors
    /// That of the reading, or [`Error::Stopped`].
    pub async fn or<T>(&self, reading: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            read = reading => read,
            () = self.wait() => Err(Error::Stopped),
        }
    }
}
