//! Which of the namespaces that manifests name are there, and whether they are the same as before.
//!
//! A name appears as an empty file and becomes a namespace when one is mounted on it, so both the folders (inotify) and the mount table
//! (`EPOLLPRI` on mountinfo) are watched. What cannot be watched (`/proc/PID/ns/net`) is looked at each second.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::effects::enter::NamespaceId;
use crate::facts::kernel::{self, Watches};

/// After a change of mounts all are looked at, but not more often than this: there may be thousands, of a host's many containers.
const AFTER_MOUNTS: Duration = Duration::from_millis(200);
/// How often all are looked at while one of them cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(1);

/// Watches them.
pub struct Namespaces {
    known: BTreeMap<PathBuf, Option<NamespaceId>>,
    inotify: AsyncFd<Watches>,
    mounts: AsyncFd<File>,
    /// Names that something happened to, and those of files that are no namespaces yet.
    named: BTreeSet<OsString>,
    /// When all are looked at.
    due: Option<Instant>,
}

impl Namespaces {
    /// Watches none yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            known: BTreeMap::new(),
            inotify: kernel::watches()?,
            mounts: kernel::watch(File::open("/proc/thread-self/mountinfo")?, Interest::PRIORITY)?,
            named: BTreeSet::new(),
            due: None,
        })
    }

    /// Says which are of interest from now on, and looks at new ones.
    pub fn want(&mut self, paths: BTreeSet<PathBuf>) {
        self.known.retain(|path, _| paths.contains(path));
        let new: Vec<PathBuf> = paths.into_iter().filter(|path| !self.known.contains_key(path)).collect();
        if !new.is_empty() {
            self.known.extend(new.into_iter().map(|path| (path, None)));
            self.watch();
            self.look_at(|_, id| id.is_none());
        }
    }

    /// Each, with what it is now.
    pub fn known(&self) -> &BTreeMap<PathBuf, Option<NamespaceId>> {
        &self.known
    }

    /// Waits until one may have come, gone, or become another; then [`Namespaces::look`] has to be called. May be dropped while it waits.
    pub async fn changed(&mut self) -> io::Result<()> {
        let due = self.due;
        tokio::select! {
            ready = self.inotify.readable() => {
                ready?.retain_ready();
                self.read_events()?;
            }
            ready = self.mounts.ready(Interest::PRIORITY) => {
                ready?.clear_ready();
                let soon = Instant::now() + AFTER_MOUNTS;
                self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        Ok(())
    }

    /// Looks at those that something happened to, and at all when it is time.
    pub fn look(&mut self) {
        let named = std::mem::take(&mut self.named);
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            // Folders may have come, or been replaced under their names.
            self.watch();
            self.look_at(|_, _| true);
        } else {
            self.look_at(|path, _| path.file_name().is_some_and(|name| named.contains(name)));
        }
    }

    fn look_at(&mut self, wanted: impl Fn(&Path, Option<NamespaceId>) -> bool) {
        for (path, id) in &mut self.known {
            if !wanted(path, *id) {
                continue;
            }
            *id = NamespaceId::at(path, *id);
            if let (None, true, Some(name)) = (&id, path.exists(), path.file_name()) {
                // A mount on it is told by the mount table, which names nobody.
                self.named.insert(name.to_owned());
            }
        }
    }

    /// Watches the folders of all (one that is watched already is not watched twice).
    fn watch(&mut self) {
        let folders: BTreeSet<&Path> = self.known.keys().filter_map(|path| path.parent()).collect();
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_ONLYDIR;
        let unwatched = folders.into_iter().filter(|folder| {
            // inotify(7) says nothing of pseudo-filesystems.
            folder.starts_with("/proc") || self.inotify.get_ref().0.add_watch(*folder, flags).is_err()
        });
        if unwatched.count() > 0 {
            let due = Instant::now() + UNWATCHED;
            self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    fn read_events(&mut self) -> io::Result<()> {
        loop {
            let events = match self.inotify.try_io(Interest::READABLE, |watch| Ok(watch.0.read_events()?)) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for event in events {
                match event.name {
                    Some(name) => drop(self.named.insert(name)),
                    // Lost events, or a folder that is gone.
                    None => self.due = Some(Instant::now()),
                }
            }
        }
    }
}
