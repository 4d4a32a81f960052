//! Addresses that egressd puts on NICs itself: what was found of them on the NIC's link before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::facts::{Family, IfIndex, Mac};
use super::put;

/// An address on a NIC's link.
pub type At = (IfIndex, IpAddr);

/// The link of it, and its family: what is asked and told together.
pub fn link_of(at: &At) -> (IfIndex, Family) {
    (at.0, Family::of(at.1))
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
pub struct Probes(BTreeMap<At, Verdict>);

impl Probes {
    /// Takes note of what a probe found; whether that is new.
    pub fn note(&mut self, at: At, verdict: Verdict) -> bool {
        put(&mut self.0, at, verdict)
    }

    /// What is known of an address.
    pub fn verdict(&self, at: At) -> Option<Verdict> {
        self.0.get(&at).copied()
    }

    /// Forgets what was found on a link that was lost.
    pub fn lost(&mut self, nic: IfIndex) {
        self.retain(|(of, _)| of != nic);
    }

    /// Forgets what nobody asks for any more.
    pub fn retain(&mut self, wanted: impl Fn(At) -> bool) {
        self.0.retain(|at, _| wanted(*at));
    }
}
