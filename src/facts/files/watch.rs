//! Waits for a change in a folder, wherever its parts are: the folder's parents, what links point to, and the folder itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::writers::Writers;

/// A change is read after this long without another one, and after [`PATIENCE`] in any case.
const QUIET: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the folder is read where it cannot be watched, or something failed, and how often it is looked whether it is the same one.
const POLL: Duration = Duration::from_secs(5);

/// What the reading thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Change,
    Stop,
}

/// Watches until it is dropped.
pub struct Watch {
    /// `None` when the kernel gives no watch.
    watcher: Option<RecommendedWatcher>,
    folder: PathBuf,
    /// Which folder the path led to: of a mount over it, or of an end of one, nobody tells.
    led_to: Option<(u64, u64)>,
}

impl Watch {
    /// Sends [`Signal::Change`] for what happens to `folder` from now on.
    pub fn new(folder: &Path, signal: &Sender<Signal>, writers: &Writers) -> Self {
        let led_to = leads_to(folder);
        let watcher = start(folder, signal.clone(), writers.clone()).inspect_err(|error| {
            warn!(folder = %folder.display(), %error, "failed to watch the folder of manifests; reading it every {} s", POLL.as_secs());
        });
        Self { watcher: watcher.ok(), folder: folder.to_owned(), led_to }
    }

    /// Waits for a change and the quiet after it, or for the end of a write of which nobody tells, or not for long when something is to be tried
    /// `again`. False when it is time to stop.
    pub fn wait(&self, signals: &Receiver<Signal>, writers: &Writers, again: bool) -> bool {
        let written = writers.until().map(|until| until.saturating_duration_since(Instant::now()));
        let limit = written.or((again || self.watcher.is_none()).then_some(POLL));
        let first = loop {
            match signals.recv_timeout(limit.unwrap_or(POLL)) {
                Ok(signal) => break signal,
                Err(RecvTimeoutError::Timeout) if limit.is_some() || leads_to(&self.folder) != self.led_to => return true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Signal::Stop,
            }
        };
        if first == Signal::Stop {
            return false;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match signals.recv_timeout(QUIET.min(end.saturating_duration_since(Instant::now()))) {
                Ok(Signal::Change) => {}
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }
}

/// Device and number of the folder that a path leads to.
fn leads_to(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

fn start(folder: &Path, signal: Sender<Signal>, writers: Writers) -> notify::Result<RecommendedWatcher> {
    let Places { folders, entries, whole } = places(folder);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns = |path: &PathBuf| entries.contains(path) || path.parent().is_some_and(|parent| whole.contains(parent));
        let change = match &event {
            Ok(event) => event.need_rescan() || (changes(event.kind) && event.paths.iter().any(concerns)),
            Err(_) => true,
        };
        event.iter().for_each(|event| writers.note(event));
        if change {
            // An error says that nobody waits any more.
            let _ = signal.send(Signal::Change);
        }
    })?;
    for folder in &folders {
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            // Gone since it was looked up: its parent is watched and tells.
            Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. }) => {}
            Err(notify::Error { kind: notify::ErrorKind::Io(error), .. }) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(watcher)
}

/// Reading a file is an event as well, and would make us read for ever.
fn changes(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Where changes can come from.
#[derive(Debug, Default)]
struct Places {
    folders: BTreeSet<PathBuf>,
    /// Single entries of those folders that matter.
    entries: BTreeSet<PathBuf>,
    /// Folders all of whose entries matter.
    whole: BTreeSet<PathBuf>,
}

impl Places {
    fn entry(&mut self, path: &Path) {
        if let (Some(folder), Some(name)) = (path.parent().and_then(|p| p.canonicalize().ok()), path.file_name()) {
            self.entries.insert(folder.join(name));
            self.folders.insert(folder);
        }
    }
}

fn places(folder: &Path) -> Places {
    let mut places = Places::default();
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // Every part of the path may be made, removed or (a link) turned elsewhere.
    for part in folder.ancestors() {
        places.entry(part);
    }
    let Ok(real) = folder.canonicalize() else {
        return places;
    };
    for part in real.ancestors() {
        places.entry(part);
    }
    for entry in fs::read_dir(&real).into_iter().flatten().flatten() {
        let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if let Some(target) = linked.then(|| entry.path().canonicalize().ok()).flatten() {
            places.entry(&target);
        }
    }
    places.folders.insert(real.clone());
    places.whole.insert(real);
    places
}
