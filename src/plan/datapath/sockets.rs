//! Sockets of the host itself that are bound to an address of a binding: a bridge's own, or the loopback's, which leads nowhere by itself. Their
//! source tells the exit, as that of a workload does; what they send comes in by no interface, so that is what they are looked up by.

use super::flow::CONFIRMED;
use super::programs::{left_alone, refuse_calls};
use super::rules::ours;
use super::shape::Shape;
use super::{drops, egress, names};
use crate::model::policy::{Standing, standing};
use crate::model::ports::Protocol;
use crate::model::workload::{Entry, Row};
use crate::nft::build::{ct_status, l4proto, rule, saddr};
use crate::nft::{Bytes, Chain, Data, Datatype, Elements, Key, Rule, Set, Table};

/// The chain of first packets.
const CHAIN: &str = "sockets";

/// Adds their set and chain to a table of that family, whose other sets are there; nothing when there are none.
pub fn add<'a>(table: &mut Table, rows: impl Iterator<Item = &'a Row>, v6: bool) {
    let bound = rows.filter(|row| row.entry == Some(Entry::Socket) && matches!(standing(row), Standing::Bound(_)));
    let own = bound.filter_map(|row| row.address).map(|net| net.addr()).filter(|address| address.is_ipv6() == v6);
    let elements: Elements = own.map(|address| (Key::one(Bytes::default().address(address)), Data::None)).collect();
    if elements.is_empty() {
        return;
    }
    table.sets.insert(names::SOCKETS.to_owned(), Set { elements, ..Set::of([Datatype::address(v6)]) });
    let shape = Shape::of(&table.sets, v6);
    let mut rules = left_alone(shape.inside, v6);
    rules.extend(egress::limits(shape).into_iter().flatten());
    rules.extend(egress::choose(shape, false));
    rules.push(ours().accept());
    rules.push(rule().is(l4proto(), Protocol::Tcp.number().into()).goto(&refuse_calls(table, v6)));
    rules.push(drops::no_way_of_program());
    table.chains.insert(CHAIN.to_owned(), Chain::regular(rules));
}

/// In `output`: what is not translated yet.
pub(super) fn output(v6: bool) -> [Rule; 2] {
    let theirs = || rule().found(names::SOCKETS, [saddr(v6)]);
    [theirs().is(ct_status().and(CONFIRMED), CONFIRMED).goto("bound_flow"), theirs().goto(CHAIN)]
}
