//! The kernel as a source of facts: links, addresses (also those inside containers), routes, rules, named namespaces.
//!
//! For every veth whose other end is in another network namespace, the address at that other end is heard or asked for
//! without entering the namespace: the kernel numbers the namespaces that it tells of (`NETLINK_LISTEN_ALL_NSID`), and
//! answers questions about them (`IFA_TARGET_NETNSID`). So a container's address is known, for every engine, before
//! its first instruction runs. Needs `CAP_NET_ADMIN` and `CAP_NET_BROADCAST`.

mod ask;
mod far_ends;
mod listen;
mod names;
mod ready;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::path::Path;

use crate::model::facts::{KernelChange, Place};
use crate::netlink;
use crate::wire::Received;
pub use ask::Asker;
use far_ends::FarEnds;
use listen::{Drained, Listener};
use names::NamedNamespaces;
pub use names::{OWN, is_namespace, open, own_namespace};
pub use ready::{Watches, watch, watches};
use state::{Batch, State};

/// Where `ip netns` and CNI runtimes keep named namespaces.
const NAMED: &str = "/run/netns";

/// Why the kernel could not be asked or heard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to listen to the kernel (this needs CAP_NET_ADMIN and CAP_NET_BROADCAST)")]
    Listen(#[source] io::Error),
    #[error("failed to ask the kernel for {what}")]
    Ask {
        what: &'static str,
        #[source]
        source: netlink::Error,
    },
    #[error("failed to watch the named network namespaces; when too many files are open, raise fs.inotify.max_user_instances")]
    Names(#[source] io::Error),
}

/// The source: first a snapshot, then what changes.
pub struct Source {
    listener: Listener,
    state: State,
    names: NamedNamespaces,
    /// The next call gives a snapshot.
    stale: bool,
}

impl Source {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the sockets cannot be had, most likely for want of a capability.
    pub fn open() -> Result<Self, Error> {
        Self::with_names(Path::new(NAMED))
    }

    fn with_names(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            listener: Listener::open().map_err(Error::Listen)?,
            state: State::open()?,
            names: NamedNamespaces::open(folder).map_err(Error::Names)?,
            stale: true,
        })
    }

    /// The next changes: a whole snapshot at first (it begins with [`KernelChange::Restart`]), and again when events
    /// were lost; otherwise whatever is queued, as soon as anything is. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the kernel cannot be asked. The next call then starts with a snapshot.
    pub async fn next(&mut self) -> Result<Vec<KernelChange>, Error> {
        loop {
            if self.stale {
                let changes = self.snapshot()?;
                self.stale = false;
                return Ok(changes);
            }
            let named = tokio::select! {
                ready = self.listener.ready() => ready.map(|()| false).map_err(Error::Listen)?,
                ready = self.names.changed() => ready.map(|()| true).map_err(Error::Names)?,
            };
            // Until all that was taken from the queue is handed out, an error must not lose it.
            self.stale = true;
            let changes = if named { self.named()? } else { self.queued()? };
            if let Some(changes) = changes {
                self.stale = false;
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
        }
    }

    fn snapshot(&mut self) -> Result<Vec<KernelChange>, Error> {
        self.listener.discard().map_err(Error::Listen)?;
        let state = &mut self.state;
        state.own_nsid = state.ask_own_nsid();
        let mut changes = vec![KernelChange::Restart];
        state.far_ends = FarEnds::default();
        for link in state.ask.links().map_err(asked("links"))? {
            state.link(link, &mut changes)?;
        }
        for (index, address) in state.ask.own_addresses().map_err(asked("addresses"))? {
            changes.push(KernelChange::Address(Place { nsid: None, index }, address));
        }
        state.routing(&mut changes)?;
        let names = self.names.all(&mut state.ask).map_err(Error::Names)?;
        changes.push(KernelChange::Namespaces(names));
        Ok(changes)
    }

    /// What became of the named namespaces.
    fn named(&mut self) -> Result<Option<Vec<KernelChange>>, Error> {
        let names = self.names.look(&mut self.state.ask).map_err(Error::Names)?;
        Ok(Some(names.map(KernelChange::Namespaces).into_iter().collect()))
    }

    /// All that is queued; `None` when some of it was lost.
    fn queued(&mut self) -> Result<Option<Vec<KernelChange>>, Error> {
        let mut batch = Batch::default();
        let mut failure = None;
        let state = &mut self.state;
        let drained = self.listener.drain(|nsid, message| {
            if let Err(error) = state.event(nsid, message, &mut batch) {
                failure.get_or_insert(error);
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if drained.map_err(Error::Listen)? == Drained::Overrun {
            tracing::warn!("the kernel sent events faster than they were read; reading everything again");
            return Ok(None);
        }
        if batch.routing {
            self.state.routing(&mut batch.changes)?;
        }
        if batch.settings {
            batch.changes.push(KernelChange::Settings);
        }
        let mut renamed = false;
        for nsid in batch.numbers_gone {
            renamed |= self.names.forget_number(nsid);
        }
        if renamed {
            self.names.look(&mut self.state.ask).map_err(Error::Names)?;
            batch.changes.push(KernelChange::Namespaces(self.names.numbers()));
        }
        Ok(Some(batch.changes))
    }
}

fn asked(what: &'static str) -> impl FnOnce(netlink::Error) -> Error {
    move |source| Error::Ask { what, source }
}

/// Reads a message as each kind that the kernel sends of links, addresses and namespaces, whatever it is (see [`crate::fuzzing`]).
pub fn read_any(message: &Received<'_>) {
    let _ = (
        wire::link(message),
        wire::link_left(message),
        wire::interface_address(message),
        wire::nsid(message),
        wire::setting_changed(message),
    );
}
