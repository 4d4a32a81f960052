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
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;
use std::io;
use std::path::Path;

use nix::libc;

use crate::model::facts::{IfIndex, KernelChange, Link, Place};
use crate::netlink::{self, Received, routing};
use ask::Asker;
use far_ends::FarEnds;
use listen::{Drained, Listener};
use names::Names;

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
    #[error("failed to watch the named network namespaces")]
    Names(#[source] io::Error),
}

/// The source: first a snapshot, then what changes.
pub struct Source {
    listener: Listener,
    state: State,
    names: Names,
    /// The next call gives a snapshot.
    stale: bool,
}

/// What is remembered between events.
struct State {
    ask: Asker,
    far_ends: FarEnds,
    /// Interfaces that some route goes out by: when one goes down, the kernel takes its IPv4 routes without a word.
    routed: HashSet<IfIndex>,
    /// The number that this namespace has in its own eyes, if somebody gave it one.
    own_nsid: Option<i32>,
}

/// What a drain of the queue brought.
#[derive(Default)]
struct Batch {
    changes: Vec<KernelChange>,
    routing: bool,
    numbers_gone: Vec<i32>,
    numbers_new: bool,
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
            state: State {
                ask: Asker::open().map_err(asked("nothing yet"))?,
                far_ends: FarEnds::default(),
                routed: HashSet::new(),
                own_nsid: None,
            },
            names: Names::open(folder).map_err(Error::Names)?,
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
        Ok(Some(
            names.map(KernelChange::Namespaces).into_iter().collect(),
        ))
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
            tracing::warn!("the kernel told more than could be read in time: reading all anew");
            return Ok(None);
        }
        if batch.routing {
            self.state.routing(&mut batch.changes)?;
        }
        if batch.numbers_new {
            self.state.own_nsid = self.state.ask_own_nsid();
        }
        let mut renamed = false;
        for nsid in batch.numbers_gone {
            renamed |= self.names.forget_number(nsid);
        }
        if renamed {
            self.names.look(&mut self.state.ask).map_err(Error::Names)?;
            batch
                .changes
                .push(KernelChange::Namespaces(self.names.numbers()));
        }
        Ok(Some(batch.changes))
    }
}

impl State {
    fn event(
        &mut self,
        nsid: Option<i32>,
        message: Received<'_>,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let nsid = nsid.filter(|nsid| Some(*nsid) != self.own_nsid);
        match (message.kind, nsid) {
            (libc::RTM_NEWADDR | libc::RTM_DELADDR, _) => self.address(nsid, &message, batch),
            // What else happens in other namespaces is theirs.
            (_, Some(_)) => {}
            (libc::RTM_NEWLINK, None) => {
                if let Some(link) = wire::link(&message) {
                    batch.routing |= !link.up && self.routed.contains(&link.index);
                    self.link(link, &mut batch.changes)?;
                }
            }
            (libc::RTM_DELLINK, None) => self.link_left(&message, batch)?,
            (libc::RTM_NEWROUTE | libc::RTM_DELROUTE, None) => {
                batch.routing |= routing::route(&message).is_some();
            }
            (libc::RTM_NEWRULE | libc::RTM_DELRULE, None) => batch.routing = true,
            (libc::RTM_NEWNSID, None) => batch.numbers_new = true,
            (libc::RTM_DELNSID, None) => {
                if let Some(gone) = wire::nsid(&message) {
                    self.number_gone(gone, &mut batch.changes)?;
                    batch.numbers_gone.push(gone);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn address(&mut self, nsid: Option<i32>, message: &Received<'_>, batch: &mut Batch) {
        let Some((index, address)) = wire::interface_address(message) else {
            return;
        };
        let (place, gone) = (Place { nsid, index }, message.kind == libc::RTM_DELADDR);
        if nsid.is_some() {
            return self
                .far_ends
                .heard(place, address, gone, &mut batch.changes);
        }
        // Routes that prefer this address as their source go with it, silently.
        batch.routing |= gone;
        batch.changes.push(match gone {
            true => KernelChange::AddressGone(place, address.net),
            false => KernelChange::Address(place, address),
        });
    }

    /// Takes in a link, and the addresses at its far end when that is new.
    fn link(&mut self, link: Link, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        let (index, place) = (link.index, far_ends::place(&link));
        changes.push(KernelChange::Link(link));
        if let Some(place) = self.far_ends.link(index, place, changes) {
            self.far_addresses(place, changes)?;
        }
        Ok(())
    }

    fn link_left(&mut self, message: &Received<'_>, batch: &mut Batch) -> Result<(), Error> {
        let Some(left) = wire::link_left(message) else {
            return Ok(());
        };
        batch.routing |= self.routed.contains(&left.index);
        batch.changes.push(KernelChange::LinkGone(left.index));
        self.far_ends.link_gone(left.index, &mut batch.changes);
        // An engine moves the far end of a veth into its container and only later touches the near end: read that one
        // now, so that the address is expected when it comes.
        if let Some(near_end) = left.moved_from_peer
            && let Some(link) = self.ask.link(near_end).map_err(asked("a link"))?
        {
            self.link(link, &mut batch.changes)?;
        }
        Ok(())
    }

    /// The kernel frees a namespace's number before it says so: by now the number may be another namespace's, and that
    /// one's veth known. So each far end in it is looked at, not merely forgotten.
    fn number_gone(&mut self, nsid: i32, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        for near_end in self.far_ends.near_ends(nsid) {
            match self.ask.link(near_end).map_err(asked("a link"))? {
                Some(link) => {
                    if let Some(place) = far_ends::place(&link) {
                        self.far_addresses(place, changes)?;
                    }
                    self.link(link, changes)?;
                }
                None => {
                    changes.push(KernelChange::LinkGone(near_end));
                    self.far_ends.link_gone(near_end, changes);
                }
            }
        }
        Ok(())
    }

    fn far_addresses(
        &mut self,
        place: Place,
        changes: &mut Vec<KernelChange>,
    ) -> Result<(), Error> {
        let found = self
            .ask
            .addresses_of(place)
            .map_err(asked("a namespace's addresses"))?;
        self.far_ends.asked(place, found, changes);
        Ok(())
    }

    fn routing(&mut self, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        let (routes, rules) = self.ask.routing().map_err(asked("routes and rules"))?;
        self.routed = routes.iter().filter_map(|route| route.interface).collect();
        changes.push(KernelChange::Routing { routes, rules });
        Ok(())
    }

    fn ask_own_nsid(&mut self) -> Option<i32> {
        let own = names::own_namespace().ok()?;
        self.ask.nsid(&own).ok().flatten()
    }
}

fn asked(what: &'static str) -> impl FnOnce(netlink::Error) -> Error {
    move |source| Error::Ask { what, source }
}
