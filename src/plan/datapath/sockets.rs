//! Sockets of the host itself that are bound to an address of a binding: a bridge's own, or the loopback's, which leads nowhere by itself. Their
//! source tells the exit, as that of a workload does; what they send comes in by no interface, so that is what they are looked up by.

use std::net::IpAddr;

use super::flow::CONFIRMED;
use super::rules::{Chains, ours};
use super::shape::Shape;
use super::{drops, egress, names, programs};
use crate::model::policy::{Standing, is_held_unknown, standing};
use crate::model::ports::Protocol;
use crate::model::workload::{Row, Subject};
use crate::nft::build::{ct_status, l4proto, rule, saddr};
use crate::nft::{Bytes, Chain, Data, Datatype, Elements, Key, Rule, Set, Table};

/// The chain of first packets.
const CHAIN: &str = "sockets";

/// Adds their set to a table of that family; nothing when there are none.
pub fn add<'a>(table: &mut Table, rows: impl Iterator<Item = &'a Row>, v6: bool) {
    let own = rows.filter_map(own).filter(|address| address.is_ipv6() == v6);
    let elements: Elements = own.map(|address| (Key::one(Bytes::default().address(address)), Data::None)).collect();
    if !elements.is_empty() {
        table.sets.insert(names::SOCKETS.to_owned(), Set { elements, ..Set::of([Datatype::address(v6)]) });
    }
}

/// The chains of this concern.
pub(super) fn chains(shape: Shape) -> Chains {
    if !shape.sockets {
        return Chains::new();
    }
    let mut rules = vec![rule().jump(names::SOCKETS_LEFT_ALONE)];
    rules.extend(egress::limits(shape).into_iter().flatten());
    rules.extend(egress::choose_for_socket(shape));
    rules.push(ours().accept());
    rules.push(rule().is(l4proto(), Protocol::Tcp.number().into()).goto(&drops::chain_of_refused_calls()));
    rules.push(drops::no_way_of_program());
    vec![(names::SOCKETS_LEFT_ALONE, Chain::regular(programs::left_alone(shape.inside, shape.v6))), (CHAIN, Chain::regular(rules))]
}

/// An address that is bound once a socket has it: the host may get it at any moment, and a socket of IPv6 goes on with one that went. As long as the
/// address is not the host's there is no exit for it among the policies.
fn own(row: &Row) -> Option<IpAddr> {
    let Subject::Source(net) = row.subject else { return None };
    let is_bound = matches!(standing(row), Standing::Bound(_)) || is_held_unknown(row);
    (is_bound && net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// In `output`: what is not translated yet.
pub(super) fn output(v6: bool) -> [Rule; 2] {
    let theirs = || rule().found(names::SOCKETS, [saddr(v6)]);
    [theirs().is(ct_status().and(CONFIRMED), CONFIRMED).goto("bound_flow"), theirs().goto(CHAIN)]
}
