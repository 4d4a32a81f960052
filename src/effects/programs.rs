//! Control groups of programs that `egressd exec` starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::facts::programs::{below, hierarchy};
use crate::model::programs::EXEC;

/// Makes a control group, and those above it, unless it is there; returns its folder.
///
/// # Errors
/// When there is no hierarchy of version 2, or it cannot be written to.
pub fn make(cgroup: &str) -> io::Result<PathBuf> {
    let folder = below(&hierarchy()?, cgroup);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Removes the folder of a control group that was made in vain; one that programs are in stays.
pub fn leave(folder: &Path) {
    if let Err(error) = fs::remove_dir(folder) {
        debug!(folder = %folder.display(), %error, "the control group stays");
    }
}

/// Removes all of them; returns which stay, and why.
pub fn clean() -> Vec<String> {
    let Ok(folder) = hierarchy().map(|root| below(&root, EXEC)) else { return Vec::new() };
    let groups = fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let groups = groups.map(|entry| entry.path()).chain(folder.is_dir().then_some(folder.clone()));
    let stays = |group: PathBuf| {
        let error = fs::remove_dir(&group).err().filter(|error| error.kind() != io::ErrorKind::NotFound)?;
        Some(format!("control group {}: {error}; it can be removed once no program is in it", group.display()))
    };
    groups.filter_map(stays).collect()
}
