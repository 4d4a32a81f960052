//! The datapath: chains and sets, composed of one fragment for each concern.
//!
//! Rules are the same for every outcome, but for those that an empty set would make pointless; everything that changes with a workload is an
//! element of a set. The flow's own addresses say its way: in the original direction the address that it was translated to, in the reply
//! direction the address that was called. So nothing of ours stands in the conntrack mark, and the packet mark is ours only from
//! `prerouting` (behind everybody's mangle rules) to the end of `postrouting`. ARCHITECTURE.md follows a packet through all of it.

pub mod admission;
pub mod drops;
mod egress;
mod flow;
pub mod gate;
mod guard;
mod identity;
pub mod inbound;
mod ipvs;
pub mod names;
mod output;
pub mod programs;
mod published;
pub mod rate;
mod rules;
mod seal;
pub mod sets;
mod shape;
pub mod sockets;
pub mod source_ports;
pub mod spill;
pub mod spread;
pub mod traffic;

use std::collections::BTreeMap;

use crate::nft::Chain;

pub use flow::{ASSURED, ORIGINAL, REDIRECTED, REPLY, TRANSLATED};
pub use identity::{add_drops as add_identity_drops, table as identity};
pub use rules::{ETHERTYPE, ours};
pub use sets::sets;
pub use shape::Shape;

/// The chains of a table of an ip family.
pub fn chains(shape: Shape) -> BTreeMap<String, Chain> {
    let fragments = [
        inbound::chains(shape),
        gate::chains(shape),
        egress::chains(shape),
        output::chains(shape),
        guard::chains(shape),
        seal::chains(shape),
        sockets::chains(shape),
    ];
    let mut all: BTreeMap<String, Chain> = drops::chains(shape).collect();
    for (name, chain) in fragments.into_iter().flatten() {
        let before = all.insert(name.to_owned(), chain);
        debug_assert!(before.is_none(), "two fragments have a chain {name}");
    }
    all
}
