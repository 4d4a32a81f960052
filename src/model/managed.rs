//! Addresses that egressd puts on NICs itself: what was found of them on the NIC's link before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{Family, IfIndex, Mac};
use super::put;

/// An address on a NIC's link.
pub type At = (IfIndex, IpAddr);

/// A NIC's link, and a family: what is asked and told together.
pub type LinkFamily = (IfIndex, Family);

/// The link of an address, and its family.
pub fn link_of(at: &At) -> LinkFamily {
    (at.0, Family::of(at.1))
}

/// These addresses, by link and family.
pub fn by_link<'a>(all: impl IntoIterator<Item = &'a At>) -> BTreeMap<LinkFamily, BTreeSet<IpAddr>> {
    let mut links: BTreeMap<LinkFamily, BTreeSet<IpAddr>> = BTreeMap::new();
    all.into_iter().for_each(|at| _ = links.entry(link_of(at)).or_default().insert(at.1));
    links
}

/// What a probe for an address found (RFC 5227, RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nobody on the link has it.
    Free,
    /// Another machine has it.
    Taken(Mac),
}

/// What probes found, until their links are lost: where a link leads after that has to be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    found: BTreeMap<At, Verdict>,
    /// Addresses that another program takes away as often as they are put back: they are let be for a moment.
    contested: BTreeSet<At>,
}

impl Probes {
    /// Takes note of what a probe found; whether that is new.
    pub fn note(&mut self, at: At, verdict: Verdict) -> bool {
        put(&mut self.found, at, verdict)
    }

    /// What is known of an address.
    pub fn verdict(&self, at: At) -> Option<Verdict> {
        self.found.get(&at).copied()
    }

    /// Takes note of whether an address is let be; whether that is new.
    pub fn contest(&mut self, at: At, contested: bool) -> bool {
        if contested { self.contested.insert(at) } else { self.contested.remove(&at) }
    }

    /// Whether an address is let be.
    pub fn is_contested(&self, at: At) -> bool {
        self.contested.contains(&at)
    }

    /// Forgets what was found on a link that was lost.
    pub fn lost(&mut self, nic: IfIndex) {
        self.retain(|(of, _)| of != nic);
    }

    /// Forgets what nobody asks for any more.
    pub fn retain(&mut self, wanted: impl Fn(At) -> bool) {
        self.found.retain(|at, _| wanted(*at));
        self.contested.retain(|at| wanted(*at));
    }
}
