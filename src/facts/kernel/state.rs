//! What the source remembers between events, and what each event means to it.

use std::collections::HashSet;

use nix::libc;

use super::ask::Asker;
use super::far_ends::FarEnds;
use super::{Error, asked, names, wire};
use crate::model::facts::{IfIndex, KernelChange, Link, Place, Route};
use crate::netlink::{nexthop, routing};
use crate::wire::Received;

/// What is remembered between events.
pub struct State {
    pub ask: Asker,
    pub far_ends: FarEnds,
    /// Interfaces that some route goes out by: when one goes down, the kernel takes its IPv4 routes without a word.
    routed: HashSet<IfIndex>,
    /// The number that this namespace has in its own eyes, if somebody gave it one.
    pub own_nsid: Option<i32>,
}

/// What a drain of the queue brought.
#[derive(Default)]
pub struct Batch {
    pub changes: Vec<KernelChange>,
    pub routing: bool,
    pub settings: bool,
    pub numbers_gone: Vec<i32>,
}

impl State {
    pub fn open() -> Result<Self, Error> {
        Ok(Self { ask: Asker::open().map_err(asked("anything"))?, far_ends: FarEnds::default(), routed: HashSet::new(), own_nsid: None })
    }

    pub fn event(&mut self, nsid: Option<i32>, message: Received<'_>, batch: &mut Batch) -> Result<(), Error> {
        let nsid = nsid.filter(|nsid| Some(*nsid) != self.own_nsid);
        match (message.kind, nsid) {
            (libc::RTM_NEWADDR | libc::RTM_DELADDR, _) => self.address(nsid, &message, batch),
            // What else happens in other namespaces is theirs.
            (_, Some(_)) => {}
            (libc::RTM_NEWLINK, None) => {
                if let Some(link) = wire::link(&message) {
                    batch.routing |= !link.up && self.routed.contains(&link.index);
                    self.link(link, &mut batch.changes)?;
                } else if let Some((port, on)) = wire::hairpin(&message) {
                    batch.changes.push(KernelChange::Hairpin(port, on));
                }
            }
            (libc::RTM_DELLINK, None) => self.link_left(&message, batch)?,
            (libc::RTM_NEWROUTE | libc::RTM_DELROUTE, None) => {
                batch.routing |= routing::route(&message).is_some();
            }
            (libc::RTM_NEWRULE | libc::RTM_DELRULE, None) => batch.routing = true,
            (nexthop::NEW | nexthop::DELETE, None) => batch.routing = true,
            (libc::RTM_NEWNETCONF, None) => batch.settings |= wire::setting_changed(&message),
            // At once: events of this namespace bear a number too from now on, should the number be its own.
            (libc::RTM_NEWNSID, None) => self.own_nsid = self.ask_own_nsid(),
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
            return self.far_ends.heard(place, address, gone, &mut batch.changes);
        }
        // Routes that prefer this address as their source go with it, silently.
        batch.routing |= gone;
        batch.changes.push(match gone {
            true => KernelChange::AddressGone(place, address.net),
            false => KernelChange::Address(place, address),
        });
    }

    /// Takes in a link, and the addresses at its far end when that is new.
    pub fn link(&mut self, link: Link, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        let (index, place) = (link.index, link.far_end());
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
                    if let Some(place) = link.far_end() {
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

    fn far_addresses(&mut self, place: Place, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        let found = self.ask.addresses_of(place).map_err(asked("a namespace's addresses"))?;
        self.far_ends.asked(place, found, changes);
        Ok(())
    }

    pub fn routing(&mut self, changes: &mut Vec<KernelChange>) -> Result<(), Error> {
        let (routes, rules) = self.ask.routing().map_err(asked("routes and rules"))?;
        self.routed = routes.iter().flat_map(Route::interfaces).collect();
        changes.push(KernelChange::Routing { routes, rules });
        Ok(())
    }

    pub fn ask_own_nsid(&mut self) -> Option<i32> {
        let own = names::own_namespace().ok()?;
        self.ask.nsid(&own).ok().flatten()
    }
}
