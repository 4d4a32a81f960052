//! The one thread that enters other network namespaces: in, make sockets, out. A socket keeps the namespace that it was made in (socket(2)), so
//! any thread may serve it afterwards.
//!
//! Nobody may go on in a wrong namespace: a thread that does not find its way back ends the process.

use std::any::Any;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

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

impl NamespaceId {
    /// Of what is at this path now; `None` when that is no namespace (yet). Want of descriptors or memory says nothing: it is what it was before.
    pub fn at(path: &Path, before: Option<Self>) -> Option<Self> {
        let look = || {
            let now = Self::from(fs::metadata(path)?);
            if before == Some(now) {
                return Ok(before);
            }
            let file = kernel::open(path)?;
            Ok(if kernel::is_namespace(&file) { Some(Self::from(file.metadata()?)) } else { None })
        };
        look().unwrap_or_else(|error: io::Error| if is_shortage(&error) { before } else { None })
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

/// Gives work to the thread.
#[derive(Clone)]
pub struct Opener(mpsc::Sender<Job>);

type Job = Box<dyn FnOnce(&Home) + Send>;

impl Opener {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had, or `/proc` does not tell its namespace.
    pub fn start() -> io::Result<Self> {
        let (give, jobs) = mpsc::channel::<Job>();
        let (began, begun) = mpsc::channel();
        thread::Builder::new().name("opener".to_owned()).spawn(move || match Home::new() {
            Ok(home) => {
                let _ = began.send(Ok(()));
                jobs.iter().for_each(|job| job(&home));
            }
            Err(error) => drop(began.send(Err(error))),
        })?;
        begun.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        Ok(Self(give))
    }

    /// Calls `work` on the thread while it is in the namespace `id`, which has to be the one at `path` still.
    ///
    /// # Errors
    /// When the namespace is not there, or cannot be entered (this needs `CAP_SYS_ADMIN`), or `work` fails.
    pub async fn enter<T: Send + 'static>(
        &self,
        path: PathBuf,
        id: NamespaceId,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = oneshot::channel();
        let job = move |home: &Home| {
            let done = panic::catch_unwind(AssertUnwindSafe(|| home.visit(&path, id, work)));
            let done = done.unwrap_or_else(|panic| Err(io::Error::other(format!("work in a namespace panicked: {}", message(&*panic)))));
            // Who asked may have gone.
            let _ = tell.send(done);
        };
        self.0.send(Box::new(job)).map_err(|_| io::Error::other("the opener has ended"))?;
        told.await.map_err(|_| io::Error::other("the opener has ended"))?
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Where the thread belongs.
struct Home {
    file: File,
    id: NamespaceId,
}

impl Home {
    fn new() -> io::Result<Self> {
        let file = kernel::own_namespace()?;
        let id = file.metadata()?.into();
        Ok(Self { file, id })
    }

    fn visit<T>(&self, path: &Path, id: NamespaceId, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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
            eprintln!("egressd: failed to leave a network namespace: {error}; ending, as nothing may be served in a wrong one");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests;
