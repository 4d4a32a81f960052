//! Files that the runtime waits on.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime wait on a file that `owner` holds open for as long as it lives.
#[expect(deprecated, reason = "the successor is unsafe: it wants a promise that the descriptor stays open, which AsFd on an owner gives")]
pub fn watch<T: AsFd + AsRawFd + 'static>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}
