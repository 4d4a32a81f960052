//! The folder of manifests, watched. It may come later, go, or be swapped as a whole by a symbolic link (as Kubernetes does with ConfigMaps).
//!
//! A file that cannot be read as a whole (half written, emptied, a slip in its YAML, no permission) leaves in force what it said before:
//! a slip of the pen must not turn bound workloads into masqueraded ones.

mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tokio::sync::watch as latest;
use tracing::{info, warn};

use self::watch::{Signal, Watch};
use crate::api::manifest::{self, Content, File, MAX_FILE};
use crate::model::binding::{FieldError, ManifestError, Manifests};

/// The folder, read by a thread of its own: thousands of files must not hold up the daemon's loop.
pub struct Source {
    manifests: latest::Receiver<Manifests>,
    stop: Sender<Signal>,
}

impl Source {
    /// Begins to read and watch. The folder need not exist yet. `apart`: a file that is no manifest, should it be in the folder. Fails only when
    /// no thread can be had.
    pub fn new(folder: impl Into<PathBuf>, apart: &Path) -> io::Result<Self> {
        let mut folder = Folder::new(folder.into(), apart.to_owned());
        let (out, manifests) = latest::channel(Manifests::default());
        let (stop, signals) = mpsc::channel();
        let signal = stop.clone();
        thread::Builder::new().name("manifests".to_owned()).spawn(move || {
            let mut first = true;
            loop {
                // Made anew before every reading: folders may have been replaced under their names. What happens
                // from here on is noticed.
                let watch = Watch::new(&folder.path, &signal);
                let read = folder.read();
                out.send_if_modified(|last| {
                    let news = first || *last != read;
                    *last = read;
                    news
                });
                first = false;
                if !watch.wait(&signals) {
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
    /// By file name: what was readable as a whole last. A file that has not changed is not read again.
    whole: BTreeMap<String, Whole>,
    was_there: Option<bool>,
}

/// A file's bytes, and when they were written, with what they say.
struct Whole {
    bytes: Vec<u8>,
    created: u64,
    content: Arc<Content>,
}

/// One file as found now.
struct Found {
    name: String,
    content: Arc<Content>,
    unread: Option<Content>,
}

impl Folder {
    fn new(path: PathBuf, apart: PathBuf) -> Self {
        Self { path, apart, whole: BTreeMap::new(), was_there: None }
    }

    fn read(&mut self) -> Manifests {
        let (names, trouble) = match names(&self.path) {
            Ok(names) => (names, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
            // Not an empty folder, but one that cannot be looked into: all of it stays.
            Err(error) => (self.whole.keys().cloned().collect(), Some(error)),
        };
        self.tell_presence();
        let names = names.into_iter().filter(|name| self.apart != self.path.join(name)).collect::<Vec<_>>();
        let files: Vec<Found> = names.into_iter().filter_map(|name| self.file(name)).collect();
        self.whole.retain(|name, _| files.binary_search_by(|file| file.name.cmp(name)).is_ok());
        let mut manifests = manifest::assemble(files.iter().map(|found| File {
            name: &found.name,
            content: &found.content,
            unread: found.unread.as_ref(),
        }));
        if let Some(error) = trouble {
            let message = format!("cannot be listed: {error}; name a folder that root can read (what it said before stays in force)");
            let error = FieldError { field: "folder".to_owned(), message };
            manifests.errors.push(ManifestError { object: self.path.display().to_string(), error });
        }
        manifests
    }

    /// `None` when there is no such file any more.
    fn file(&mut self, name: String) -> Option<Found> {
        let before = self.whole.get(&name);
        let content = match load(&self.path.join(&name)) {
            // Who writes a file in place begins by emptying it.
            Ok(Some((bytes, _))) if bytes.trim_ascii().is_empty() && before.is_some() => {
                Content::unread("is empty; write it, or remove it".to_owned())
            }
            Ok(Some((bytes, created))) => {
                if let Some(before) = before.filter(|before| before.created == created && before.bytes == bytes) {
                    return Some(Found { name, content: Arc::clone(&before.content), unread: None });
                }
                let content = Content::read(&bytes, created);
                if content.is_whole() {
                    let content = Arc::new(content);
                    self.whole.insert(name.clone(), Whole { bytes, created, content: Arc::clone(&content) });
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
            warn!(folder = %self.path.display(), "the folder of manifests does not exist; it is read as soon as it does");
        }
    }
}

/// Names of files that are manifests by their ending, sorted.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        // A name that is not UTF-8 cannot be shown, nor written by accident.
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        if !name.starts_with('.') && matches!(ending, Some("yaml" | "yml" | "json")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A file's bytes (one more than allowed at most, so that the size can be judged) and the seconds of its modification time.
///
/// The modification time is the binding's age: unlike the time of first sight it is the same after a restart.
fn load(path: &Path) -> io::Result<Option<(Vec<u8>, u64)>> {
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
    Ok(Some((bytes, about.mtime().try_into().unwrap_or(0))))
}

#[cfg(test)]
mod tests;
