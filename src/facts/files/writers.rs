//! Files that somebody is writing in place: what they say meanwhile may be a part of what they are to say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind};

/// A file that was not closed is taken for written this long after the last write: a writer may keep it open for ever, and the event of its end
/// may be lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// When files that are open for writing were written last.
#[derive(Clone, Debug, Default)]
pub struct Writers(Arc<Mutex<BTreeMap<PathBuf, Instant>>>);

impl Writers {
    /// Takes note of an event.
    pub fn note(&self, event: &Event) {
        let mut open = self.open();
        for path in &event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => drop(open.insert(path.clone(), Instant::now())),
                EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    open.remove(path);
                }
                _ => {}
            }
        }
    }

    /// Whether a file is being written.
    pub fn write(&self, path: &Path) -> bool {
        self.open().contains_key(path)
    }

    /// When the first of them is taken for written, though nobody closes it.
    pub fn until(&self) -> Option<Instant> {
        self.open().values().min().map(|last| *last + PATIENCE)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Instant>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, last| last.elapsed() < PATIENCE);
        open
    }
}
