//! What passes others' filters: a packet mark between two chains of ours, which a rule in the filter lets through (`plan::gates`).
//!
//! Whose packets get it is each concern's own: published ports have rules of theirs (`inbound.rs`), and programs in network namespaces are in a
//! set here.

use super::flow::REPLY;
use super::published::{let_through, unmark, unmarked};
use super::rules::Chains;
use super::shape::Shape;
use super::{inbound, names};
use crate::contract::{PRIORITY_BEFORE_FORWARD, PRIORITY_BEHIND_FORWARD};
use crate::model::facts::KernelFacts;
use crate::nft::build::{ct_direction, daddr, iif, oif, rule, saddr};
use crate::nft::{Bytes, Chain, ChainKind, Data, Datatype, Elements, Hook, Key, Rule, Set, Table};

/// The chains of this concern; none while nobody asks for them.
pub fn chains(shape: Shape) -> Chains {
    let mut passing = inbound::forwarded(shape);
    if shape.isolated {
        passing.extend(isolated(shape.v6));
    }
    if passing.is_empty() {
        return Vec::new();
    }
    let chain = |priority, rules: Vec<Rule>| Chain::base(ChainKind::Filter, Hook::Forward, priority, rules);
    vec![("before_forward", chain(PRIORITY_BEFORE_FORWARD, passing)), ("behind_forward", chain(PRIORITY_BEHIND_FORWARD, vec![unmark()]))]
}

/// What a program sends, and the answers to it. Who calls the program at its own address gets no answer through a firewall: the call itself is
/// not let through.
fn isolated(v6: bool) -> [Rule; 2] {
    [
        let_through(unmarked(rule()).found(names::ISOLATED, [iif(), saddr(v6)])),
        let_through(unmarked(rule()).is(ct_direction(), REPLY).found(names::ISOLATED, [oif(), daddr(v6)])),
    ]
}

/// Adds the programs in network namespaces of the table's family.
pub fn add(table: &mut Table, kernel: &KernelFacts, v6: bool) {
    let of_family = kernel.isolated_sources().filter(|(_, address)| address.is_ipv6() == v6);
    let elements: Elements =
        of_family.map(|(link, address)| (Key::one(Bytes::default().number(link).address(address)), Data::None)).collect();
    if !elements.is_empty() {
        let set = Set::of([Datatype::IfIndex, Datatype::address(v6)]);
        table.sets.insert(names::ISOLATED.to_owned(), Set { elements, ..set });
    }
}
