//! The few threads that serve all connections, each with an epoll of its own.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

/// More threads than this find no more to do: the kernel carries the bytes.
const MOST: usize = 4;

/// The threads. They end with the process.
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts one for each processor, from two up to [`MOST`].
    pub fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let one = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let served = move || runtime.block_on(std::future::pending::<()>());
            thread::Builder::new().name(format!("worker-{number}")).spawn(served)?;
            io::Result::Ok(handle)
        };
        let handles = (0..processors.clamp(2, MOST)).map(one).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: AtomicUsize::new(0) })
    }

    /// The one whose turn it is.
    pub fn next(&self) -> &Handle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}
