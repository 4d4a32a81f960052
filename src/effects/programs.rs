//! Control groups of programs that `egressd exec` starts.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::facts::programs::{below, hierarchy};
use crate::model::started::EXEC;

/// Groups that stay when no program is in them any more: the next one finds its exit programmed, and what closed sockets have still to send
/// goes on. Above that they go, since each exit of theirs is one of 127 ways.
const KEPT: usize = 32;

/// A control group in which a program is about to start. Nobody removes it as long as this is kept (`flock(2)` on its folder).
pub struct Group {
    folder: PathBuf,
    held: File,
}

impl Group {
    /// Makes a control group, and those above it, unless it is there.
    ///
    /// # Errors
    /// When there is no hierarchy of version 2, or it cannot be written to.
    pub fn make(cgroup: &str) -> io::Result<Self> {
        let root = hierarchy()?;
        let (all, folder) = (below(&root, EXEC), below(&root, cgroup));
        sweep(&all);
        loop {
            fs::create_dir_all(&folder)?;
            // Who could open a group could lock it, and keep root waiting.
            fs::set_permissions(&all, Permissions::from_mode(0o700))?;
            match hold(&folder) {
                Ok(Some(held)) => return Ok(Self { folder, held }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves this process into it.
    ///
    /// # Errors
    /// When it may not.
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), "0")
    }

    /// Removes one that was made in vain. It stays if a program is in it, or is about to be.
    pub fn leave(self) {
        drop(self.held);
        remove(&self.folder);
    }
}

/// Holds a folder against being removed; nothing when it has been meanwhile.
fn hold(folder: &Path) -> io::Result<Option<File>> {
    let held = File::open(folder)?;
    held.lock_shared()?;
    Ok((fs::metadata(folder)?.ino() == held.metadata()?.ino()).then_some(held))
}

/// Removes groups that no program is in, when there are many.
fn sweep(all: &Path) {
    let groups = children(all);
    if groups.len() > KEPT {
        groups.iter().for_each(|group| remove(group));
    }
}

/// The kernel keeps one that a program is in. Of such a one its own groups stay, too: it may be about to use them.
fn remove(group: &Path) {
    let removed = File::open(group).and_then(|held| {
        held.try_lock()?;
        if is_populated(group) { Err(io::ErrorKind::ResourceBusy.into()) } else { remove_all(group) }
    });
    if let Err(error) = removed {
        debug!(group = %group.display(), %error, "the control group stays");
    }
}

/// Whether a program is in a group, or below it (`cgroup.events` of cgroups(7)).
fn is_populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events")).is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Removes a group with those that programs have made in it.
fn remove_all(group: &Path) -> io::Result<()> {
    children(group).iter().try_for_each(|child| remove_all(child))?;
    fs::remove_dir(group)
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes all of them; returns which stay, and why.
pub fn clean() -> Vec<String> {
    let Ok(folder) = hierarchy().map(|root| below(&root, EXEC)) else { return Vec::new() };
    clean_below(&folder)
}

fn clean_below(folder: &Path) -> Vec<String> {
    let groups = children(folder);
    let stays = |group: &PathBuf| {
        let removed = if is_populated(group) { Err(io::ErrorKind::ResourceBusy.into()) } else { remove_all(group) };
        let error = removed.err().filter(|error| error.kind() != io::ErrorKind::NotFound)?;
        Some(format!("control group {}: {error}; it can be removed once no program is in it", group.display()))
    };
    let left: Vec<String> = groups.iter().filter_map(stays).collect();
    let root = left.is_empty().then(|| folder.to_owned());
    left.into_iter().chain(root.as_ref().and_then(stays)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_nobody_is_in_go_when_there_are_many_but_none_that_is_held() {
        let all = tempfile::tempdir().unwrap();
        let make = |number: usize| {
            let folder = all.path().join(number.to_string());
            // Programs make groups in theirs.
            fs::create_dir_all(folder.join("own/deeper")).unwrap();
            folder
        };
        let held = hold(&make(0)).unwrap().expect("it is there");
        (1..KEPT).for_each(|number| drop(make(number)));
        sweep(all.path());
        assert_eq!(children(all.path()).len(), KEPT, "these are not many");
        make(KEPT);
        sweep(all.path());
        assert_eq!(children(all.path()), [all.path().join("0")]);
        drop(held);
        remove(&all.path().join("0"));
        assert!(children(all.path()).is_empty());
    }

    #[test]
    fn all_groups_go_with_those_in_them_but_for_one_that_a_program_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("egressd");
        let (one, two) = (all.join("one"), all.join("two"));
        [&one, &two].into_iter().for_each(|group| fs::create_dir_all(group.join("own/deeper")).unwrap());
        fs::write(two.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let left = clean_below(&all);
        assert!(left.len() == 1 && left[0].contains("two"), "{left:?}");
        assert!(!one.exists() && two.join("own/deeper").exists(), "it may be about to use its own");
        fs::remove_file(two.join("cgroup.events")).unwrap();
        assert_eq!(clean_below(&all), [""; 0]);
        assert!(!all.exists());
        assert_eq!(clean_below(&all), [""; 0], "none is there");
    }
}
