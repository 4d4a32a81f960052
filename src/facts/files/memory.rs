//! What files said that could be read as a whole, for the next start: a file that is broken by then, or a folder that is not mounted yet, must not
//! unbind who is bound in the kernel. It is kept where the daemon's state is, and goes with it at a reboot, as the kernel's tables do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::api::manifest::LastRight;
use crate::facts::whole;

/// The folder, among the copies, of what single bindings said that their files do not say any more.
const NEEDED: &str = "bindings";

/// A folder of copies.
pub struct Memory {
    folder: Option<PathBuf>,
    /// What is kept of single bindings, by file name.
    needed: BTreeMap<String, String>,
}

impl Memory {
    /// `None`: nothing is kept.
    pub fn new(folder: Option<PathBuf>) -> Self {
        let mut memory = Self { folder, needed: BTreeMap::new() };
        if let Some(folder) = memory.folder.as_deref().map(|folder| folder.join(NEEDED)) {
            for name in super::names(&folder).unwrap_or_default() {
                let text = super::load(&folder.join(&name)).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
                memory.needed.extend(text.map(|text| (name, text)));
            }
        }
        memory
    }

    /// What was kept of single bindings.
    pub fn needed(&self) -> &BTreeMap<String, String> {
        &self.needed
    }

    /// Keeps what the files do not say any more, and nothing else of single bindings.
    pub fn keep_needed(&mut self, right: &LastRight) {
        // Names of objects have no underscore.
        let now: BTreeMap<String, String> =
            right.needed().map(|(name, text)| (format!("{}.yaml", name.replacen('/', "_", 1)), text)).collect();
        for (name, text) in now.iter().filter(|(name, text)| self.needed.get(*name) != Some(*text)) {
            self.tried(name, |folder| {
                fs::create_dir_all(folder.join(NEEDED))?;
                whole::write(&folder.join(NEEDED).join(name), text.as_bytes(), |_| Ok(()))
            });
        }
        for name in self.needed.keys().filter(|name| !now.contains_key(*name)) {
            self.forget(&format!("{NEEDED}/{name}"));
        }
        self.needed = now;
    }

    /// The names of what was kept.
    pub fn names(&self) -> Vec<String> {
        self.folder.as_deref().and_then(|folder| super::names(folder).ok()).unwrap_or_default()
    }

    /// What was kept of a file.
    pub fn recall(&self, name: &str) -> Option<Vec<u8>> {
        super::load(&self.folder.as_ref()?.join(name)).ok()?
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
        if let Some(folder) = &self.folder
            && let Err(error) = write(folder)
        {
            warn!(file = name, folder = %folder.display(), %error, "failed to keep a manifest for the next start");
        }
    }
}
