//! Addresses that egressd puts on NICs itself: what was found of them on the NIC's link before.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::facts::IfIndex;
use super::put;

/// A link-layer address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address on a NIC's link.
pub type At = (IfIndex, IpAddr);

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
