//! What is known, for others to read: a file that is replaced as a whole, and the lock of who writes it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use egressd::facts::whole;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::model::report::PoolReport;

/// Name of the file within the state folder.
const FILE: &str = "status.json";

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// By the pool's name.
    pub pools: BTreeMap<String, PoolReport>,
    /// Pools that are not looked after, with why.
    pub errors: Vec<String>,
}

impl Status {
    /// Everything is as the pools ask.
    pub fn is_ready(&self) -> bool {
        self.errors.is_empty() && self.pools.values().all(|pool| pool.ready && pool.problem.is_none())
    }

    /// Replaces the file. Its readers see the old one or the new one.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        whole::write(&folder.join(FILE), &serde_json::to_vec_pretty(self)?, |_| Ok(()))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When there is none, or none that this version can read.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read(&path).with_context(|| format!("failed to read {}: is `egressd-cloud run` running?", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to read {}", path.display()))
    }
}

/// The state folder, held by this process alone as long as it lives: two writers would undo each other's work.
#[derive(Debug)]
pub struct StateLock {
    pub folder: PathBuf,
    _lock: File,
}

impl StateLock {
    /// What the process before has told of each pool. Nothing when it has told nothing that can be read.
    pub fn before(&self) -> BTreeMap<String, PoolReport> {
        if !self.folder.join(FILE).exists() {
            return BTreeMap::new();
        }
        let read = Status::read(&self.folder).inspect_err(|error| warn!("{error:#}; what was known of the cloud is forgotten"));
        read.unwrap_or_default().pools
    }
}

/// Takes the folder, and makes it if need be.
///
/// # Errors
/// When another process has it, or it cannot be made.
pub fn hold(folder: &Path) -> anyhow::Result<StateLock> {
    fs::create_dir_all(folder).with_context(|| format!("failed to make the state folder {}", folder.display()))?;
    let path = folder.join("lock");
    let lock = File::options().create(true).append(true).open(&path).with_context(|| format!("failed to open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(StateLock { folder: folder.to_owned(), _lock: lock }),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another egressd-cloud has {}: stop it, or give this one its own --state-dir (then no pool may be in both folders of manifests)",
            folder.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
    }
}
