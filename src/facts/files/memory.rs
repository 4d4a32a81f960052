//! What files said that could be read as a whole, for the next start: a file that is broken by then, or a folder that is not mounted yet, must not
//! unbind who is bound in the kernel. It is kept where the daemon's state is, and goes with it at a reboot, as the kernel's tables do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::facts::whole;

/// A folder of copies.
pub struct Memory(Option<PathBuf>);

impl Memory {
    /// `None`: nothing is kept.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// The names of what was kept.
    pub fn names(&self) -> Vec<String> {
        self.0.as_deref().and_then(|folder| super::names(folder).ok()).unwrap_or_default()
    }

    /// What was kept of a file.
    pub fn recall(&self, name: &str) -> Option<Vec<u8>> {
        super::load(&self.0.as_ref()?.join(name)).ok()?
    }

    /// Keeps what a file says.
    pub fn keep(&self, name: &str, bytes: &[u8]) {
        self.tried(name, |folder| {
            fs::create_dir_all(folder)?;
            whole::write(&folder.join(name), bytes, |_| Ok(()))
        });
    }

    /// Forgets a file.
    pub fn forget(&self, name: &str) {
        self.tried(name, |folder| match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
    }

    /// Without a memory the daemon works on; it is the next start that may miss it.
    fn tried(&self, name: &str, write: impl FnOnce(&Path) -> io::Result<()>) {
        if let Some(folder) = &self.0
            && let Err(error) = write(folder)
        {
            warn!(file = name, folder = %folder.display(), %error, "failed to keep a manifest for the next start");
        }
    }
}
