//! Files that the runtime waits on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::inotify::{InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime wait on a file that `owner` holds open for as long as it lives.
#[expect(deprecated, reason = "the successor is unsafe: it wants a promise that the descriptor stays open, which AsFd on an owner gives")]
pub fn watch<T: AsFd + AsRawFd + 'static>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

/// An inotify instance as an owner of its descriptor.
pub struct Watches(pub Inotify);

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A new inotify instance, which watches nothing yet.
///
/// # Errors
/// When there is none left (`fs.inotify.max_user_instances`), or no descriptor.
pub fn watches() -> io::Result<AsyncFd<Watches>> {
    watch(Watches(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?), Interest::READABLE)
}
