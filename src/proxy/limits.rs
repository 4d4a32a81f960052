//! File descriptors: as many as the process may have, and counted, so that a new connection is refused before an old one suffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// For what is not counted: epoll, inotify, manifests, metrics, and pipes of what is just being carried.
const RESERVE: usize = 256;

/// Descriptors that may still be opened.
#[derive(Clone)]
pub struct Descriptors(Arc<AtomicUsize>);

/// Some of them, given back when dropped.
pub struct Permit {
    all: Descriptors,
    count: usize,
}

impl Descriptors {
    /// Raises the process's limit to the highest that it may have (`RLIMIT_NOFILE`), and counts from there.
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| {
            let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
            if raised.is_ok() { hard } else { soft }
        });
        let limit = limit.unwrap_or_else(|error| {
            warn!(%error, "failed to read the limit of file descriptors; it is taken for 1024");
            1024
        });
        Self::new(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE))
    }

    fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// So many, if they are there.
    pub fn take(&self, count: usize) -> Option<Permit> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(count));
        taken.ok().map(|_| Permit { all: self.clone(), count })
    }

    /// How many are left.
    pub fn free(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.all.0.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let all = Descriptors::new(3);
        let two = all.take(2).expect("there are three");
        assert!(all.take(2).is_none());
        let one = all.take(1).expect("one is left");
        drop((two, one));
        assert_eq!(all.free(), 3);
    }
}
