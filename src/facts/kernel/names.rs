//! The named network namespaces: files under `/run/netns`, and the number that each has here.
//!
//! A name appears as an empty file and becomes a namespace when one is mounted on it, so both the folder (inotify)
//! and the mount table (`EPOLLPRI` on mountinfo) are watched. Only names that are new or were not a namespace yet are
//! looked at again; a mount elsewhere costs nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::inotify::AddWatchFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ask::Asker;
use super::ready::{Watches, watch, watches};

/// The namespace of the thread that asks.
pub const OWN: &str = "/proc/thread-self/ns/net";

/// Watches the names.
pub struct NamedNamespaces {
    folder: PathBuf,
    /// Each name that is there; without a number while it is no namespace (yet), or this very one.
    known: BTreeMap<String, Option<i32>>,
    mounts: AsyncFd<File>,
    inotify: AsyncFd<Watches>,
    watching: bool,
}

impl NamedNamespaces {
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mounts = File::open("/proc/thread-self/mountinfo")?;
        Ok(Self {
            folder: folder.to_owned(),
            known: BTreeMap::new(),
            mounts: watch(mounts, Interest::PRIORITY)?,
            inotify: watches()?,
            watching: false,
        })
    }

    /// Waits until a name may have come, gone or become a namespace; then [`NamedNamespaces::look`] has to be called.
    pub async fn changed(&self) -> io::Result<()> {
        tokio::select! {
            ready = self.inotify.readable() => ready?.retain_ready(),
            ready = self.mounts.ready(Interest::PRIORITY) => ready?.clear_ready(),
        }
        Ok(())
    }

    /// Looks at what changed. `Some` with all names when something did.
    pub fn look(&mut self, ask: &mut Asker) -> io::Result<Option<BTreeMap<String, i32>>> {
        let before = self.numbers();
        if self.watch()? || self.read_events()? {
            self.list()?;
        }
        self.resolve(ask);
        let now = self.numbers();
        Ok((now != before).then_some(now))
    }

    /// All names, looked at anew.
    pub fn all(&mut self, ask: &mut Asker) -> io::Result<BTreeMap<String, i32>> {
        self.known.clear();
        self.watch()?;
        self.list()?;
        self.resolve(ask);
        Ok(self.numbers())
    }

    /// A number is no longer given: its name, should it still be there, means something else.
    pub fn forget_number(&mut self, nsid: i32) -> bool {
        let mut found = false;
        for number in self.known.values_mut().filter(|number| **number == Some(nsid)) {
            (*number, found) = (None, true);
        }
        found
    }

    pub fn numbers(&self) -> BTreeMap<String, i32> {
        self.known.iter().filter_map(|(name, nsid)| Some((name.clone(), (*nsid)?))).collect()
    }

    /// Starts to watch the folder once it exists; true when it just did.
    fn watch(&mut self) -> io::Result<bool> {
        if self.watching {
            return Ok(false);
        }
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DELETE_SELF;
        match self.inotify.get_ref().0.add_watch(&self.folder, flags) {
            Ok(_) => self.watching = true,
            Err(nix::Error::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.watching)
    }

    /// Takes the folder's events; a name that an event names is looked at again. True when there were any.
    fn read_events(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            let read = self.inotify.try_io(Interest::READABLE, |watch| Ok(watch.0.read_events()?));
            let events = match read {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error),
            };
            for event in events {
                any = true;
                if let Some(name) = event.name {
                    self.known.remove(name.to_string_lossy().as_ref());
                } else {
                    // Lost events, a folder that is gone or was mounted over.
                    self.known.clear();
                    self.watching &= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                }
            }
        }
    }

    fn list(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.known.clear();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut known = BTreeMap::new();
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string() {
                let nsid = self.known.remove(&name).flatten();
                known.insert(name, nsid);
            }
        }
        self.known = known;
        Ok(())
    }

    fn resolve(&mut self, ask: &mut Asker) {
        for (name, nsid) in self.known.iter_mut().filter(|(_, nsid)| nsid.is_none()) {
            let Ok(file) = open(&self.folder.join(name)) else {
                continue;
            };
            if is_namespace(&file) && !is_own(&file) {
                match ask.nsid_or_new(&file) {
                    Ok(number) => *nsid = number,
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::debug!(namespace = %name, error, "no number for a named namespace");
                    }
                }
            }
        }
    }
}

/// Opens a file that may be anything, a pipe too, without waiting.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

/// Whether this is a file of nsfs; asking the kernel about any other would be an error each time.
pub fn is_namespace(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn is_own(file: &File) -> bool {
    match (file.metadata(), fs::metadata(OWN)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The open file of this thread's own network namespace.
pub fn own_namespace() -> io::Result<File> {
    File::open(OWN)
}
