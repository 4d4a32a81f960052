//! Calls that a virtual service of IPVS brings to its servers.
//!
//! IPVS takes a call in `input` and sends it from there to `output`, so `forward` sees its answers alone. With `vs/conntrack` the flow is one of
//! conntrack's: it was called at the service's address, and answers come from the server, but no bit says that its destination was translated.

use super::flow::{CONFIRMED, ORIGINAL, REPLY};
use super::names;
use super::published::{CALL_TRANSLATED, called, calls, let_through, port_key, put, unmark, unmarked};
use super::rules::{Chains, ours};
use super::shape::Shape;
use crate::contract::{NEIGHBOUR_MASK, PRIORITY_BEFORE_FORWARD, PRIORITY_BEHIND_FORWARD};
use crate::model::inbound::ClientSource;
use crate::model::ports::{Called, Ports};
use crate::model::services::Service;
use crate::nft::build::{
    RuleBuilder, SetName, ct_direction, ct_original_daddr, ct_status, dport, iif, l4proto, mark, oif, ranges, rule, saddr,
};
use crate::nft::{Bytes, Chain, ChainKind, Data, Hook, Key, Rule, Set, Table};

/// The sets of this concern, empty. Virtual services stand in theirs before the kernel has them, and as long as it does: so it says which are ours,
/// after a restart, too.
pub fn sets(v6: bool) -> [(&'static str, Set); 2] {
    [names::VIRTUAL, names::ROUTED_BACK].map(|name| (name, Set::of(called(v6))))
}

/// Keeps one that could not be deleted ours.
pub fn add_left(table: &mut Table, (address, ports): Called) {
    put(table, names::VIRTUAL, port_key(address, ports.protocol.number(), ports.first), Data::None);
}

/// Adds a virtual service.
pub fn add_service(table: &mut Table, service: &Service) {
    let Ports { protocol, first, .. } = service.ports;
    put(table, names::PUBLISHED, Key::one(Bytes::default().address(service.address)), Data::None);
    put(table, names::VIRTUAL, port_key(service.address, protocol.number(), first), Data::None);
    for server in service.servers.iter().filter(|_| service.client_source == ClientSource::RouteBack) {
        let port = server.port.unwrap_or(first);
        put(table, names::ROUTED_BACK, port_key(server.address, protocol.number(), port), Data::None);
    }
}

/// A flow that was called at a published address, and that no rule of NAT has brought elsewhere.
fn untranslated(v6: bool) -> RuleBuilder {
    rule().is(ct_status().and(CALL_TRANSLATED), 0).found(names::PUBLISHED, [ct_original_daddr(v6)])
}

/// Servers that route their answers back see every client's address, but for their own: one that called itself would take the call for its
/// own packet.
pub fn routed_back(shape: Shape) -> [Rule; 2] {
    let v6 = shape.v6;
    [
        untranslated(v6).found(names::ROUTED_BACK, [saddr(v6), l4proto(), dport()]).masquerade(),
        untranslated(v6).found(names::ROUTED_BACK, calls(v6)).accept(),
    ]
}

/// Source NAT of the first packet, towards these servers: see the same for destination NAT.
pub fn source_nat(shape: Shape, serving: &SetName, masqueraded: &SetName) -> [Rule; 2] {
    let v6 = shape.v6;
    let beside = untranslated(v6).found(ranges(names::HAIRPINS), [iif(), oif(), saddr(v6)]);
    [untranslated(v6).found(masqueraded.clone(), calls(v6)).masquerade(), beside.found(serving.clone(), calls(v6)).masquerade()]
}

/// Answers, on their way through `forward`: their calls did not come by there.
pub fn answers(shape: Shape) -> Rule {
    let_through(unmarked(untranslated(shape.v6)).is(ct_direction(), REPLY))
}

/// What lets calls through others' filters on the way that IPVS takes: a call by its address and port in `input`, and by its server in `output`.
pub fn chains(shape: Shape) -> Chains {
    if !shape.ipvs {
        return Vec::new();
    }
    let v6 = shape.v6;
    let calls_in = [let_through(unmarked(rule()).found(names::VIRTUAL, calls(v6)))];
    let request = || unmarked(untranslated(v6)).is(ct_direction(), ORIGINAL);
    // A server that drains may serve nobody else any more.
    let mut requests = vec![let_through(request().is(ct_status().and(CONFIRMED), CONFIRMED))];
    requests.extend(shape.serving().map(|(serving, _)| let_through(request().found(serving, calls(v6)))));
    // The NAT of `output` routes the request anew, since its flow leads elsewhere than it was called: a bound client's way is not the server's.
    let without_way = ours().found(names::VIRTUAL, calls(v6)).set_mark(mark().and(NEIGHBOUR_MASK)).done();
    let chain = |hook, priority, rules: Vec<Rule>| Chain::base(ChainKind::Filter, hook, priority, rules);
    vec![
        ("ipvs_before_input", chain(Hook::Input, PRIORITY_BEFORE_FORWARD, calls_in.into())),
        ("ipvs_behind_input", chain(Hook::Input, PRIORITY_BEHIND_FORWARD, vec![unmark(), without_way])),
        ("ipvs_before_output", chain(Hook::Output, PRIORITY_BEFORE_FORWARD, requests)),
        ("ipvs_behind_output", chain(Hook::Output, PRIORITY_BEHIND_FORWARD, vec![unmark()])),
    ]
}
