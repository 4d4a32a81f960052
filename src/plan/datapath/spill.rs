//! Flows to destinations for which some of a policy's exits have hardly a source port left.
//!
//! The kernel cannot be asked how many ports an exit has left: `ct count` walks all flows of a key for each new one, and what source NAT did not
//! find shows only when the packet is dropped. So the daemon counts, and puts the destination into a map that leads to a choice among the other
//! exits. The turn of all other flows is not touched, and what is in the map stays when the daemon dies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::published::{called, calls, port_key};
use crate::model::port_use::Destination;
use crate::model::spread::Shares;
use crate::nft::build::{fingerprint, rule};
use crate::nft::{Data, Datatype, Rule, Set};

/// What the names of maps of destinations begin with.
const PREFIX: &str = "full-";

/// The map of the destinations that exits of a policy are closed to, for one of its choices.
pub fn set_name(what: &str, policy: u32) -> String {
    format!("{PREFIX}{what}-{policy:08x}")
}

/// Whether a set is such a map.
pub fn is_of_full(set: &str) -> bool {
    set.starts_with(PREFIX)
}

/// The destinations that exits of a policy are closed to, and the choices that they need.
pub struct Spill<'a> {
    closed: &'a BTreeMap<Destination, Vec<IpAddr>>,
    /// Names of the choices, by the exits that are not among them.
    names: BTreeMap<&'a [IpAddr], String>,
}

impl<'a> Spill<'a> {
    pub fn of(shares: &'a Shares) -> Self {
        let name = |closed: &'a Vec<IpAddr>| (closed.as_slice(), fingerprint(format_args!("{closed:?}")));
        Self { closed: &shares.closed, names: shares.closed.values().map(name).collect() }
    }

    /// Each choice: the exits that are closed, and its name.
    pub fn choices(&self) -> impl Iterator<Item = (&'a [IpAddr], &str)> {
        self.names.iter().map(|(closed, name)| (*closed, name.as_str()))
    }

    /// The map from destinations to what the name of a choice leads to.
    pub fn set(&self, v6: bool, leads_to: impl Fn(&str) -> Data) -> Set {
        let element = |((protocol, address, port), closed): (&Destination, &Vec<IpAddr>)| {
            Some((port_key(*address, *protocol, *port), leads_to(self.names.get(closed.as_slice())?)))
        };
        Set { elements: self.closed.iter().filter_map(element).collect(), ..Set::map(called(v6), Datatype::Verdict) }
    }
}

/// Looks a packet's destination up.
pub fn look_up(set: &str, v6: bool) -> Rule {
    rule().vmap(set, calls(v6))
}
