//! The folder of manifests, watched. It may come later, go, or be swapped as a whole by a symbolic link (as Kubernetes does with ConfigMaps).
//!
//! A file that cannot be read as a whole (half written, emptied, an error in its YAML, no permission) leaves its last version in force, and so
//! does a folder that is not there: a typing error, or a file system that is not mounted, must not turn bound workloads into masqueraded ones.

mod memory;
mod watch;
mod writers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tokio::sync::watch as latest;
use tracing::{info, warn};

use self::memory::Memory;
use self::watch::{Signal, Watch};
use self::writers::Writers;
use crate::api::manifest::{self, Content, File, LastRight, MAX_FILE};
use crate::model::field_error::{FieldError, ManifestError};
use crate::model::manifests::Manifests;

/// The folder, read by a thread of its own: thousands of files must not hold up the daemon's loop.
pub struct Source {
    manifests: latest::Receiver<Manifests>,
    stop: Sender<Signal>,
}

impl Source {
    /// Begins to read and watch. The folder need not exist yet. `apart`: a file that is no manifest, should it be in the folder. Fails only when
    /// no thread can be had. `memory`: a folder for what the next start has to know; `None`: nothing is kept.
    pub fn new(folder: impl Into<PathBuf>, apart: &Path, memory: Option<PathBuf>) -> io::Result<Self> {
        let mut folder = Folder::new(folder.into(), apart.to_owned(), memory);
        let (out, manifests) = latest::channel(Manifests::default());
        let (stop, signals) = mpsc::channel();
        let signal = stop.clone();
        thread::Builder::new().name("manifests".to_owned()).spawn(move || {
            let mut first = true;
            // The old watch stays until the new one exists.
            let mut watch;
            loop {
                // Made anew before every reading: folders may have been replaced under their names. What happens
                // from here on is noticed.
                watch = Watch::new(&folder.path, &signal, &folder.writers);
                let read = folder.read();
                out.send_if_modified(|last| {
                    let news = first || *last != read;
                    *last = read;
                    news
                });
                first = false;
                if !watch.wait(&signals, &folder.writers, folder.memory.behind().is_some()) {
                    break;
                }
            }
        })?;
        Ok(Self { manifests, stop })
    }

    /// What the folder says: as a whole, first as soon as it is read, then whenever it says something else. May be dropped while it waits.
    pub async fn next(&mut self) -> Manifests {
        if self.manifests.changed().await.is_err() {
            // The thread ends only with this source.
            std::future::pending::<()>().await;
        }
        self.manifests.borrow_and_update().clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // An error says that the thread has ended already.
        let _ = self.stop.send(Signal::Stop);
    }
}

/// What is kept of the folder between two readings.
struct Folder {
    path: PathBuf,
    apart: PathBuf,
    memory: Memory,
    /// What bindings said when nothing was wrong with them last.
    right: LastRight,
    /// By file name: what was readable as a whole last. A file that has not changed is not read again.
    whole: BTreeMap<String, Whole>,
    was_there: Option<bool>,
    writers: Writers,
    /// The device of its file system when it was read last; `None`: it was not yet.
    device: Option<u64>,
}

/// A file's bytes, with what they say.
struct Whole {
    bytes: Vec<u8>,
    content: Arc<Content>,
}

/// One file as found now.
struct Found {
    name: String,
    content: Arc<Content>,
    unread: Option<Content>,
}

impl Found {
    fn as_file(&self) -> File<'_> {
        File { name: &self.name, content: &self.content, unread: self.unread.as_ref() }
    }
}

impl Folder {
    fn new(path: PathBuf, apart: PathBuf, memory: Option<PathBuf>) -> Self {
        let (memory, recalled) = Memory::open(memory);
        let whole = recalled.files.into_iter().filter_map(|(name, bytes)| {
            let content = Content::read(&bytes);
            content.is_whole().then(|| (name, Whole { bytes, content: Arc::new(content) }))
        });
        let whole: BTreeMap<String, Whole> = whole.collect();
        let before = LastRight::recall(recalled.needed.iter().map(String::as_str));
        let files = whole.iter().map(|(name, whole)| File { name, content: &whole.content, unread: None });
        let (_, right) = manifest::assemble(files, &before);
        Self { path, apart, memory, right, whole, was_there: None, writers: Writers::default(), device: None }
    }

    fn read(&mut self) -> Manifests {
        let mut nameless = Vec::new();
        let (files, trouble) = match self.names() {
            Ok(ManifestFiles { readable, odd }) => {
                nameless = odd;
                (readable.into_iter().filter_map(|name| self.file(name)).collect::<Vec<_>>(), None)
            }
            // Not an empty folder, but one that cannot be looked into: all of it stays.
            Err(trouble) => {
                let as_before =
                    |(name, whole): (&String, &Whole)| Found { name: name.clone(), content: Arc::clone(&whole.content), unread: None };
                (self.whole.iter().map(as_before).collect(), Some(trouble))
            }
        };
        self.tell_presence();
        self.whole.retain(|name, _| files.binary_search_by(|file| file.name.cmp(name)).is_ok());
        let (mut manifests, right) = manifest::assemble(files.iter().map(Found::as_file), &self.right);
        self.memory.keep(self.whole.iter().map(|(name, whole)| (name.as_str(), whole.bytes.as_slice())), right.needed());
        self.right = right;
        let mut tell = |folder: &Path, message: String| {
            let error = FieldError { field: "folder".to_owned(), message };
            manifests.errors.push(ManifestError { object: folder.display().to_string(), error });
        };
        for name in nameless {
            tell(&self.path.join(name), "has a name that is not UTF-8, so it is not read; rename it".to_owned());
        }
        if let Some(trouble) = trouble {
            tell(&self.path, format!("{trouble} (its last valid version stays in force)"));
        }
        if let Some((folder, error)) = self.memory.behind() {
            tell(
                folder,
                format!(
                    "cannot be written: {error}; let egressd write there (is the disk full?), or name another --state-dir: the next start may not know the current manifests"
                ),
            );
        }
        manifests
    }

    /// Names of the files that are manifests, or why they cannot be told, with the cure.
    fn names(&mut self) -> Result<ManifestFiles, String> {
        let listed = fs::metadata(&self.path).and_then(|about| Ok((about.dev(), names(&self.path)?)));
        let (device, mut names) = listed.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "does not exist; create it, and leave it empty if nothing is to be bound".to_owned(),
            _ => format!("cannot be listed: {error}; name a folder that root can read"),
        })?;
        if names.readable.is_empty() && !self.whole.is_empty() && self.device.is_some_and(|before| before != device) {
            return Err("is empty, and on another file system than it was; mount that again, or restart egressd if nothing is to be bound"
                .to_owned());
        }
        self.device = Some(device);
        names.readable.retain(|name| self.apart != self.path.join(name));
        Ok(names)
    }

    /// `None` when there is no such file any more.
    fn file(&mut self, name: String) -> Option<Found> {
        let before = self.whole.get(&name);
        // Its end may be missing still, and be a document of its own.
        if let Some(before) = before.filter(|_| self.path.join(&name).canonicalize().is_ok_and(|path| self.writers.write(&path))) {
            return Some(Found { name, content: Arc::clone(&before.content), unread: None });
        }
        let content = match load(&self.path.join(&name)) {
            // Who writes a file in place begins by emptying it.
            Ok(Some(bytes)) if bytes.trim_ascii().is_empty() && before.is_some() => {
                Content::unread("is empty; write it, or remove it".to_owned())
            }
            Ok(Some(bytes)) => {
                if let Some(before) = before.filter(|before| before.bytes == bytes) {
                    return Some(Found { name, content: Arc::clone(&before.content), unread: None });
                }
                let content = Content::read(&bytes);
                if content.is_whole() {
                    let content = Arc::new(content);
                    self.whole.insert(name.clone(), Whole { bytes, content: Arc::clone(&content) });
                    return Some(Found { name, content, unread: None });
                }
                content
            }
            Ok(None) => return None,
            Err(error) => Content::unread(format!("cannot be read: {error}; make it a regular file that root can read")),
        };
        Some(match before {
            Some(before) => Found { name, content: Arc::clone(&before.content), unread: Some(content) },
            None => Found { name, content: Arc::new(content), unread: None },
        })
    }

    fn tell_presence(&mut self) {
        let there = self.path.exists();
        if self.was_there.replace(there) == Some(there) {
            return;
        }
        if there {
            info!(folder = %self.path.display(), "reading manifests");
        } else {
            warn!(folder = %self.path.display(), "the folder of manifests does not exist yet; it is read once it does");
        }
    }
}

/// Names of files that are manifests by their ending.
#[derive(Default)]
struct ManifestFiles {
    /// Sorted.
    readable: Vec<String>,
    /// Not in UTF-8.
    odd: Vec<OsString>,
}

fn names(folder: &Path) -> io::Result<ManifestFiles> {
    let mut names = ManifestFiles::default();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !is_manifest(&name.to_string_lossy()) {
            continue;
        }
        match name.into_string() {
            Ok(name) => names.readable.push(name),
            Err(name) => names.odd.push(name),
        }
    }
    names.readable.sort();
    Ok(names)
}

fn is_manifest(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    !name.starts_with('.') && matches!(ending.as_deref(), Some("yaml" | "yml" | "json"))
}

/// A file's bytes: one more than allowed at most, so that the size can be judged.
fn load(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A FIFO must not block.
    let file = match fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        // A dangling link is there, and may be repaired; a removed file is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    if about.is_dir() {
        return Ok(None);
    }
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
