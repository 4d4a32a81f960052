//! What a service manager is told (sd_notify(3)): that we run, that the loop still goes round, that we stop. Nothing without one.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::debug;

/// Tells the service manager of the loop's life.
pub(crate) struct Manager {
    ready: bool,
    watchdog: Option<Watchdog>,
}

struct Watchdog {
    every: Duration,
    due: Instant,
}

impl Manager {
    pub fn new() -> Self {
        // Half of the time that the manager waits, as sd_watchdog_enabled(3) asks for.
        let watchdog = sd_notify::watchdog_enabled().map(|limit| Watchdog { every: limit / 2, due: Instant::now() });
        Self { ready: false, watchdog }
    }

    /// The kernel is as the manifests say. Engines come later: Docker may wait for us, so we do not wait for it.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            tell(NotifyState::Ready);
        }
    }

    /// When the loop has to come round next.
    pub fn due(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due)
    }

    /// The loop has come round.
    pub fn alive(&mut self) {
        let now = Instant::now();
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.due <= now) {
            watchdog.due = now + watchdog.every;
            tell(NotifyState::Watchdog);
        }
    }
}

/// The loop has ended.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "failed to notify the service manager");
    }
}
