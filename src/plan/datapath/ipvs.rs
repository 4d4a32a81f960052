//! Calls that a virtual service of IPVS brings to its servers.
//!
//! IPVS takes a call in `input` and sends it from there to `output`, so `forward` sees its answers alone. With `vs/conntrack` the flow is one of
//! conntrack's: it was called at the service's address, and answers come from the server, but no bit says that its destination was translated.

use super::inbound::{calls, port_key, put};
use super::{REPLY, Shape, names};
use crate::model::binding::Ports;
use crate::model::services::Service;
use crate::nft::build::{RuleBuilder, SetName, ct_direction, ct_original_daddr, ct_status, iif, oif, ranges, rule, saddr};
use crate::nft::{Bytes, Data, Datatype, Key, Rule, Set, Table};

/// `IPS_DST_NAT`.
const TRANSLATED: u32 = 1 << 5;

/// The set of virtual services. No rule asks it: it says which of the kernel's are ours, also after a restart.
pub fn set(v6: bool) -> (&'static str, Set) {
    (names::VIRTUAL, Set::of([Datatype::address(v6), Datatype::Protocol, Datatype::Service]))
}

/// Adds a virtual service.
pub fn add_service(table: &mut Table, service: &Service) {
    let Ports { protocol, first, last } = service.ports;
    put(table, names::PUBLISHED, Key::one(Bytes::default().address(service.address)), Data::None);
    put(table, names::VIRTUAL, port_key(service.address, protocol.number(), (first, last), true), Data::None);
}

/// A flow that was called at a published address, and that no rule of NAT has brought elsewhere.
fn ours(v6: bool) -> RuleBuilder {
    rule().is(ct_status().and(TRANSLATED), 0).found(names::PUBLISHED, [ct_original_daddr(v6)])
}

/// Source NAT of the first packet, towards these servers: see the same for destination NAT.
pub fn source_nat(shape: Shape, serving: &SetName, masqueraded: &SetName) -> [Rule; 2] {
    let v6 = shape.v6;
    let beside = ours(v6).found(ranges(names::HAIRPINS), [iif(), oif(), saddr(v6)]);
    [ours(v6).found(masqueraded.clone(), calls(v6)).masquerade(), beside.found(serving.clone(), calls(v6)).masquerade()]
}

/// Answers, on their way through `forward`: their calls did not come by there.
pub fn answers(shape: Shape) -> RuleBuilder {
    rule().is(ct_direction(), REPLY).is(ct_status().and(TRANSLATED), 0).found(names::PUBLISHED, [ct_original_daddr(shape.v6)])
}
