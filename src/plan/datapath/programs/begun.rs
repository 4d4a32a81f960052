//! First packets between `output` and source NAT. What tells their exit is the packet mark, and in between there are others' chains: one that
//! marks packets for tc takes it away. So it is kept beside the packet for that moment, by the flow.

use super::super::names;
use super::super::rules::ours;
use crate::nft::build::{ct_id, iif, map, rule};
use crate::nft::{Datatype, Rule, Set, Table};

/// Milliseconds that it is kept. The packet is through in less than one.
const KEPT: u64 = 100;
/// Flows that may begin in that time.
const MOST: u32 = 65_536;

/// Keeps the mark of a first packet.
pub fn keep() -> Rule {
    ours().keep_mark(names::BEGUN, [ct_id()], KEPT).done()
}

/// Gives a packet of the host its mark again.
pub fn again() -> Rule {
    rule().is(iif(), 0).set_mark(map(names::BEGUN, [ct_id()])).done()
}

/// Adds the map.
pub fn add(table: &mut Table) {
    table.sets.insert(names::BEGUN.to_owned(), Set::map([Datatype::Mark], Datatype::Mark).filled_by_rules(MOST));
}
