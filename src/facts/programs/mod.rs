//! Users and control groups of the host's own programs: looked up for what bindings name, and again whenever one comes, goes or is made anew.

mod cgroups;
mod names;
mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch as latest;
use tracing::warn;

use super::kernel::{Watches, watches};
use crate::model::programs::{ProgramFacts, Wanted};
pub use cgroups::{groups_above, hierarchy};
pub use names::{RESOLVER, servers_in};

/// How often it is looked without an event: a hierarchy may be mounted.
const SELDOM: Duration = Duration::from_secs(60);
/// The same where a folder cannot be watched.
const POLL: Duration = Duration::from_secs(1);

/// Looks up what is wanted, as a whole, first as soon as that is known and then whenever it is something else.
pub struct Source {
    wanted: latest::Receiver<Option<Wanted>>,
    watch: Watch,
    last: Option<ProgramFacts>,
}

impl Source {
    /// Nothing is looked up before something is wanted, be it nothing.
    pub fn new(wanted: latest::Receiver<Option<Wanted>>) -> Self {
        Self { wanted, watch: Watch::new(), last: None }
    }

    /// What the host has now; waits until that is news. `None` when nobody wants anything any more.
    pub async fn next(&mut self) -> Option<ProgramFacts> {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if let Some(wanted) = wanted {
                let facts = look(&wanted, self.last.as_ref(), &mut self.watch);
                if self.last.as_ref() != Some(&facts) {
                    self.last = Some(facts.clone());
                    return Some(facts);
                }
            }
            tokio::select! {
                changed = self.wanted.changed() => changed.ok()?,
                () = self.watch.event() => {}
            }
        }
    }
}

/// Each folder is watched before it is read: what comes after that is an event.
fn look(wanted: &Wanted, before: Option<&ProgramFacts>, watch: &mut Watch) -> ProgramFacts {
    let users = users::users(&wanted.users, before.map(|before| &before.users), watch);
    let stub = names::stub().filter(|_| *wanted != Wanted::default());
    let mut facts = ProgramFacts { users, stub, ..ProgramFacts::default() };
    match hierarchy() {
        Ok(root) => cgroups::look(&root, wanted, watch, &mut facts),
        Err(error) => facts.no_cgroups = Some(error.to_string()),
    }
    facts.with_bindings()
}

/// Folders that are watched; each for good, as the kernel takes one that is there already for the same.
struct Watch {
    inotify: Option<AsyncFd<Watches>>,
    /// Some folder could not be watched.
    partial: bool,
}

impl Watch {
    fn new() -> Self {
        let inotify = watches().inspect_err(|error| {
            warn!(%error, "failed to watch control groups; raise fs.inotify.max_user_instances (reading them every second instead)");
        });
        let inotify = inotify.ok();
        Self { partial: inotify.is_none(), inotify }
    }

    /// Watches what comes into a folder or goes out of it. One that is not there is no error: who waits for it watches the folder above.
    fn add(&mut self, folder: &Path) {
        self.add_for(folder, AddWatchFlags::empty());
    }

    /// The same, and what is written there.
    fn add_for_content(&mut self, folder: &Path) {
        self.add_for(folder, AddWatchFlags::IN_CLOSE_WRITE);
    }

    fn add_for(&mut self, folder: &Path, more: AddWatchFlags) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DELETE_SELF;
        let added = self.inotify.as_ref().map(|inotify| inotify.get_ref().0.add_watch(folder, flags | more));
        if let Some(Err(errno)) = added
            && !matches!(errno, nix::Error::ENOENT | nix::Error::ENOTDIR)
            && !std::mem::replace(&mut self.partial, true)
        {
            warn!(folder = %folder.display(), %errno, "failed to watch a folder; raise fs.inotify.max_user_watches (reading it every second instead)");
        }
    }

    /// Waits for an event, or until it is time to look without one.
    async fn event(&mut self) {
        let pause = tokio::time::sleep(if self.partial { POLL } else { SELDOM });
        let Some(inotify) = &mut self.inotify else { return pause.await };
        tokio::select! {
            () = pause => {}
            ready = inotify.readable() => {
                if let Ok(mut ready) = ready {
                    while let Ok(Ok(_)) = ready.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?)) {}
                }
            }
        }
    }
}

/// Ids by what they are called, where they are there.
type Numbers<T> = BTreeMap<String, T>;

/// The file system's path of a control group.
pub fn below(root: &Path, cgroup: &str) -> PathBuf {
    root.join(cgroup.trim_start_matches('/'))
}
