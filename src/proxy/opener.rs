//! The one thread that enters other network namespaces: in, make sockets, out. A socket keeps the namespace that it was made in (socket(2)), so
//! any thread may serve it afterwards.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use crate::effects::enter::{Home, NamespaceId};

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

#[cfg(test)]
mod tests;
