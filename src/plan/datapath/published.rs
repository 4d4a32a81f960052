//! What the concerns share that deal with published ports: how a call is known, and how packets get and lose the mark for others' filters.

use std::net::IpAddr;

use crate::contract::{FORWARDED_MARK, FORWARDED_MASK};
use crate::model::services::Service;
use crate::nft::build::{Operand, RuleBuilder, daddr, dport, l4proto, mark, rule};
use crate::nft::{Bytes, Data, Datatype, Key, Rule, Table};

/// `IPS_DST_NAT`: the flow's destination was translated.
pub const CALL_TRANSLATED: u32 = 1 << 5;

/// What a packet calls: see [`called`].
pub fn calls(v6: bool) -> [Operand; 3] {
    [daddr(v6), l4proto(), dport()]
}

/// The fields of a key that says what is called.
pub fn called(v6: bool) -> [Datatype; 3] {
    [Datatype::address(v6), Datatype::Protocol, Datatype::Service]
}

/// Such a key, of one port.
pub fn port_key(address: IpAddr, protocol: u8, port: u16) -> Key {
    Key::one(port_bytes(address, protocol, port))
}

/// Such a key, of the ports from the first to the last.
pub fn ports_key(address: IpAddr, protocol: u8, (first, last): (u16, u16)) -> Key {
    Key { first: port_bytes(address, protocol, first), last: Some(port_bytes(address, protocol, last)) }
}

fn port_bytes(address: IpAddr, protocol: u8, port: u16) -> Bytes {
    Bytes::default().address(address).protocol(protocol).port(port)
}

/// Puts an element into a set that the table has.
pub fn put(table: &mut Table, set: &str, key: Key, data: Data) {
    table.sets.entry(set.to_owned()).and_modify(|set| drop(set.elements.insert(key, data)));
}

/// `service-tcp-27017-172.31.0.14`: a name that `nft` can read, without colons and slashes.
pub fn service_name(what: &str, service: &Service) -> String {
    format!("{what}-{}-{}", service.ports, service.address).replace('/', "-").replace(':', "_")
}

/// Ends a rule for packets that others' filters have to let through.
pub fn let_through(rule: RuleBuilder) -> Rule {
    rule.set_mark(mark().or(FORWARDED_MARK)).accept()
}

/// Takes that mark off again.
pub fn unmark() -> Rule {
    rule().is(mark().and(FORWARDED_MASK), FORWARDED_MARK).set_mark(mark().and(!FORWARDED_MARK)).done()
}

/// Without that mark: nobody has let it through yet.
pub fn unmarked(rule: RuleBuilder) -> RuleBuilder {
    rule.is(mark().and(FORWARDED_MASK), 0)
}
