//! How a thread enters another network namespace, and comes back.
//!
//! Nobody may go on in a wrong namespace: a thread that does not find its way back ends the process.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::facts::kernel;

/// Which namespace a file stands for: device and inode of nsfs, the same as long as anything holds the namespace (ioctl_nsfs(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl From<Metadata> for NamespaceId {
    fn from(about: Metadata) -> Self {
        Self { device: about.dev(), inode: about.ino() }
    }
}

/// `4-4026532001`: device and inode.
impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.device, self.inode)
    }
}

/// What [`fmt::Display`] writes.
impl FromStr for NamespaceId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (device, inode) = text.split_once('-').ok_or(())?;
        Ok(Self { device: device.parse().map_err(drop)?, inode: inode.parse().map_err(drop)? })
    }
}

impl NamespaceId {
    /// Of what is at this path now; `None` when that is no namespace (yet). If descriptors or memory run out, the former answer is kept.
    pub fn at(path: &Path, before: Option<Self>) -> Option<Self> {
        if before.is_some() && fs::metadata(path).ok().map(Self::from) == before {
            return before;
        }
        Self::read(path).unwrap_or(before)
    }

    /// The same of what is at this path now.
    ///
    /// # Errors
    /// When descriptors or memory run out, which says nothing of the path.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let look = || {
            let file = kernel::open(path)?;
            Ok(if kernel::is_namespace(&file) { Some(Self::from(file.metadata()?)) } else { None })
        };
        look().or_else(|error: io::Error| if is_shortage(&error) { Err(error) } else { Ok(None) })
    }

    /// Of the calling thread. It takes no descriptor: there may be none.
    pub fn own() -> io::Result<Self> {
        fs::metadata(kernel::OWN).map(Self::from)
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw(code)))
}

/// Where a thread belongs.
pub struct Home {
    file: File,
    id: NamespaceId,
}

impl Home {
    /// Of the calling thread.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn new() -> io::Result<Self> {
        let file = kernel::own_namespace()?;
        let id = file.metadata()?.into();
        Ok(Self { file, id })
    }

    /// Calls `work` in the namespace `id`, which has to be the one at `path` still, and comes back to the thread's own.
    ///
    /// # Errors
    /// When the namespace is not there, or cannot be entered (this needs `CAP_SYS_ADMIN`), or `work` fails.
    pub fn visit<T>(&self, path: &Path, id: NamespaceId, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the network namespace is gone");
        let file = kernel::open(path).map_err(|error| if is_shortage(&error) { error } else { gone() })?;
        if !kernel::is_namespace(&file) || NamespaceId::from(file.metadata()?) != id {
            return Err(gone());
        }
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            Errno::EINVAL => io::Error::new(io::ErrorKind::InvalidInput, "this is a namespace of another kind; name a network namespace"),
            errno => errno.into(),
        })?;
        // From here on the thread comes back, whatever happens.
        let _back = Back(self);
        // The open file would keep the namespace.
        drop(file);
        work()
    }

    fn come_back(&self) -> io::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        if NamespaceId::own()? == self.id { Ok(()) } else { Err(io::Error::other("this is another network namespace")) }
    }
}

struct Back<'a>(&'a Home);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.come_back() {
            // Written by hand: nothing that could fail or panic comes between.
            let last = format!("egressd: failed to leave a network namespace: {error}; ending, as nothing may be served in a wrong one\n");
            drop(io::stderr().write_all(last.as_bytes()));
            std::process::abort();
        }
    }
}

#[cfg(test)]
pub mod tests;
