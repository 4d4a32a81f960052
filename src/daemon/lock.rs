//! One daemon for each network namespace, and one for each state folder.
//!
//! Two daemons in one network namespace undo each other's work, whatever their state folders are. An abstract Unix socket belongs to the
//! network namespace, so the kernel gives its name to one process only, and takes it back when that process ends.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use nix::unistd::getuid;
use tracing::warn;

use super::Error;
use super::control;

/// Name of the abstract socket; tools show it as `@egressd`.
const NAME: &str = "egressd";

/// How long after a failure the next caller is taken.
const PAUSE: Duration = Duration::from_secs(1);

/// Holds the network namespace for this process alone, as long as it lives.
pub struct NamespaceLock(Option<UnixListener>);

impl NamespaceLock {
    /// Keeps it until the process ends, and hangs up on everybody who calls: a full queue would hide that we are here.
    pub(super) fn keep(self) -> io::Result<()> {
        let Some(listener) = self.0 else { return Ok(()) };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(async move {
            loop {
                if listener.accept().await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Ok(())
    }
}

/// Takes the network namespace and the state folder, making the folder if need be.
///
/// # Errors
/// [`Error::Running`] when another process has the network namespace, [`Error::StateInUse`] when one of another namespace has the folder.
pub fn hold(state: &Path) -> Result<NamespaceLock, Error> {
    std::fs::create_dir_all(state).map_err(|source| Error::State { path: state.to_owned(), source })?;
    let held = hold_namespace(NAME)?;
    // The daemon of another network namespace may share our file system.
    let socket = control::path(state);
    if UnixAddr::new(&socket).and_then(|address| call(&address)).is_ok() {
        return Err(Error::StateInUse(state.to_owned()));
    }
    Ok(held)
}

fn hold_namespace(name: &str) -> Result<NamespaceLock, Error> {
    let address = SocketAddr::from_abstract_name(name).map_err(Error::Lock)?;
    // Twice: the holder may have ended between our look at the name and our look at the holder.
    for _ in 0..2 {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(NamespaceLock(Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(Error::Lock(error)),
        }
        match holder(name) {
            Holder::Gone => {}
            Holder::Egressd(process) => return Err(Error::Running(process)),
            // Any user may take the name. Nobody but root can be an egressd that we would disturb, or may keep us from running.
            Holder::Stranger(who) => {
                warn!("{who} holds the abstract socket @{name}, so a second egressd in this network namespace would go unnoticed; stop it");
                return Ok(NamespaceLock(None));
            }
        }
    }
    Err(Error::Running("its process is not known".to_owned()))
}

/// Who has the name.
enum Holder {
    Gone,
    Egressd(String),
    Stranger(String),
}

fn holder(name: &str) -> Holder {
    let Ok(address) = UnixAddr::new_abstract(name.as_bytes()) else { return Holder::Gone };
    let socket = match call(&address) {
        Ok(socket) => socket,
        Err(Errno::ECONNREFUSED) => return Holder::Gone,
        // Its queue is full, which a daemon of ours never lets happen.
        Err(_) => return Holder::Stranger("a process that does not answer".to_owned()),
    };
    match getsockopt(&socket, sockopt::PeerCredentials) {
        Ok(peer) if peer.uid() != 0 && peer.uid() != getuid().as_raw() => {
            Holder::Stranger(format!("{} of user {}", process(peer.pid()), peer.uid()))
        }
        Ok(peer) => Holder::Egressd(process(peer.pid())),
        Err(_) => Holder::Egressd(process(0)),
    }
}

/// 0: it is in a PID namespace that is not below ours.
fn process(id: i32) -> String {
    if id == 0 { "a process of another container".to_owned() } else { format!("process {id}") }
}

/// Connects without waiting: the queue may be full.
fn call(address: &UnixAddr) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testing::alone;

    #[test]
    fn the_second_of_one_network_namespace_is_refused_whatever_its_state_folder_is() {
        alone(|| {
            let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let first = hold(one.path()).unwrap();
            let refused = hold(two.path()).map(drop).unwrap_err().to_string();
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
            assert!(!refused.contains("--state-dir"), "{refused}");
            drop(first);
            assert!(hold(two.path()).is_ok(), "the first has ended");
        });
    }

    #[test]
    fn another_network_namespace_has_a_lock_of_its_own_but_not_the_same_state_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        alone(move || {
            let _held = hold(&path).unwrap();
            let socket = UnixListener::bind(control::path(&path)).unwrap();
            let other = path.clone();
            alone(move || {
                let refused = hold(&other).map(drop).unwrap_err().to_string();
                assert!(refused.contains("give this one its own --state-dir"), "{refused}");
                assert!(hold(tempfile::tempdir().unwrap().path()).is_ok());
            });
            drop(socket);
            alone(move || assert!(hold(&path).is_ok(), "a socket that nobody listens on is a dead daemon's"));
        });
    }

    #[test]
    fn what_hangs_up_on_callers_is_still_there_after_more_calls_than_a_queue_takes() {
        alone(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                hold_namespace("egressd").unwrap().keep().unwrap();
                for _ in 0..5000 {
                    assert!(matches!(holder("egressd"), Holder::Egressd(_)));
                    tokio::task::yield_now().await;
                }
            });
        });
    }
}
