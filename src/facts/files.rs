//! The folder of manifests, watched. It may come later, go, or be swapped as a whole by a symbolic link (as Kubernetes does with ConfigMaps).
//!
//! A file that cannot be read as a whole (half written, a slip in its YAML, no permission) leaves in force what it said before:
//! a slip of the pen must not turn bound workloads into masqueraded ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::api::manifest::{self, Content, File, MAX_FILE};
use crate::model::binding::{FieldError, ManifestError, Manifests};

/// A change is read after this long without another one, and after [`PATIENCE`] in any case.
const QUIET: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the folder is read where it cannot be watched.
const POLL: Duration = Duration::from_secs(5);
/// Files of the folder that are read; the rest is reported.
const MAX_FILES: usize = 20_000;

/// The folder and what was last read of it.
pub struct Source {
    folder: PathBuf,
    /// By file name.
    read: BTreeMap<String, Kept>,
    /// What was handed out last.
    last: Option<Manifests>,
    watch: Option<Watch>,
}

/// One file as last read.
struct Kept {
    stamp: Stamp,
    created: u64,
    /// The newest content that was whole; when there was none yet, what could be read.
    content: Content,
    /// A newer content that is not whole.
    unread: Option<Content>,
}

/// Tells a file that may have changed. Inode and change time see what a modification time alone does not.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Source {
    /// Reads nothing yet. The folder need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), read: BTreeMap::new(), last: None, watch: None }
    }

    /// What the folder says: at once the first time, then whenever it says something else. May be dropped while it waits.
    pub async fn next(&mut self) -> Manifests {
        loop {
            if let Some(watch) = &mut self.watch {
                watch.changed().await;
            }
            // Made anew before every reading: folders may have been replaced under their names, and nothing that
            // happens from here on goes unnoticed.
            self.watch = Some(Watch::new(&self.folder));
            let manifests = self.read();
            if self.last.as_ref() != Some(&manifests) {
                self.last = Some(manifests.clone());
                return manifests;
            }
        }
    }
}
