//! The way out of bound sources: chosen on the first packet, found again by the flow's own addresses on all others, and source NAT.

use super::drops::{drop_for, no_way};
use super::flow::{CONFIRMED, EXPECTED, REPLY, TRANSLATED};
use super::rules::{Chains, ours, present, to_inside};
use super::shape::Shape;
use super::{drops, names, programs};
use crate::contract::{FLAG, FLAG_MASK, MARK_MASK, NEIGHBOUR_MASK, PRIORITY_PREROUTING, PRIORITY_SNAT};
use crate::nft::build::{
    Operand, RuleBuilder, ct_direction, ct_original_daddr, ct_reply_daddr, ct_status, daddr, fib_oif, iif, map, mark, oif, ranges, rule,
    saddr,
};
use crate::nft::{Chain, ChainKind, Family, Hook, Rule};

/// What neighbours' bits may be, all of them together.
const BESIDE: [(u32, &str); 7] = [
    (0x2000, "beside_2000"),
    (0x4000, "beside_4000"),
    (0x6000, "beside_6000"),
    (0x8000, "beside_8000"),
    (0xa000, "beside_a000"),
    (0xc000, "beside_c000"),
    (0xe000, "beside_e000"),
];

/// The chains of this concern.
pub fn chains(shape: Shape) -> Chains {
    let v6 = shape.v6;
    let key = || [iif(), saddr(v6)];
    let translated = || rule().is(ct_status().and(TRANSLATED), TRANSLATED);
    let mut chains = vec![
        (
            "prerouting",
            Chain::base(
                ChainKind::Filter,
                Hook::Prerouting,
                PRIORITY_PREROUTING,
                present([
                    Some(rule().is(ct_status().and(CONFIRMED), CONFIRMED).goto("established")),
                    Some(is_bound(v6).goto("bound")),
                    shape.nets.then(|| is_bound_net(v6).goto("bound_net")),
                ]),
            ),
        ),
        (
            "established",
            Chain::regular(present([
                Some(rule().is(ct_direction(), REPLY).goto("answer")),
                shape.departed.then(|| drop_for(rule().found(names::DEPARTED, [iif(), saddr(v6)]), drops::DEPARTED)),
                Some(is_bound(v6).goto("workload_flow")),
                shape.nets.then(|| is_bound_net(v6).goto("workload_flow")),
                shape.fell_back.then(|| translated().found(names::FELL_BACK, key()).goto("bound_flow")),
                shape.fell_back_nets.then(|| translated().found(ranges(names::FELL_BACK_NETS), key()).goto("bound_flow")),
            ])),
        ),
        (
            "answer",
            Chain::regular(present([
                shape.tunnelled.then(|| rule().found(ranges(names::TUNNELLED), [fib_oif(), daddr(v6)]).accept()),
                shape.answered.then(|| rule().set_mark(map(names::ANSWERED, [ct_original_daddr(v6)])).accept()),
                Some(rule().set_mark(map(names::CALLED, [ct_original_daddr(v6)])).accept()),
                Some(rule().accept()),
            ])),
        ),
        ("bound_flow", Chain::regular([rule().set_mark(map(names::WAYS, [ct_reply_daddr(v6)])).accept()])),
        (
            "workload_flow",
            // Another program may have translated it ahead of us, to an address of the NIC: it stays there.
            Chain::regular([names::WAYS, names::CALLED].map(|set| rule().set_mark(map(set, [ct_reply_daddr(v6)])).accept())),
        ),
        ("bound", Chain::regular(bound(shape, false))),
        ("source_nat", Chain::base(ChainKind::Nat, Hook::Postrouting, PRIORITY_SNAT, source_nat(shape))),
        ("remarked", Chain::regular(remarked(shape))),
    ];
    if shape.nets {
        chains.push(("bound_net", Chain::regular(bound(shape, true))));
    }
    for (bits, name) in BESIDE {
        chains.push((name, Chain::regular(beside(shape, bits))));
    }
    chains
}

/// A lookup for its value, which is never 0: kernels before 6.5 refuse to ask a map only whether a key is there.
pub fn is_bound(v6: bool) -> RuleBuilder {
    rule().is_not(map(names::POLICIES, [iif(), saddr(v6)]), 0)
}

/// The same of a subnet.
pub fn is_bound_net(v6: bool) -> RuleBuilder {
    rule().is_not(map(ranges(names::POLICIES_NETS), [iif(), saddr(v6)]), 0)
}

/// Ends a walk through the rules for what a binding is not for.
pub fn limits(shape: Shape) -> [Option<Rule>; 2] {
    let key = || [iif(), saddr(shape.v6)];
    [shape.limited.then(|| rule().vmap(names::LIMITED, key())), shape.limited_nets.then(|| rule().vmap(ranges(names::LIMITED_NETS), key()))]
}

/// The first packet of a bound source.
fn bound(shape: Shape, net: bool) -> Vec<Rule> {
    let v6 = shape.v6;
    let mut rules = present([
        // Conntrack has given it the address of the flow that announced it, whatever would be chosen now, and what the binding is for.
        Some(rule().is(ct_status().and(EXPECTED), EXPECTED).set_mark(map(names::WAYS, [ct_reply_daddr(v6)])).accept()),
        Some(rule().is(ct_status().and(EXPECTED), EXPECTED).set_mark(map(names::CALLED, [ct_reply_daddr(v6)])).accept()),
        Some(rule().is(ct_status().and(EXPECTED | TRANSLATED), EXPECTED | TRANSLATED).accept()),
        shape.inside.then(|| to_inside(v6).accept()),
    ]);
    rules.extend(limits(shape).into_iter().flatten());
    // A transparent proxy's mark leads to this host itself. It may be any: none is ours yet.
    rules.push(rule().is_not(mark().and(MARK_MASK), 0).is(fib_oif(), 0).accept());
    // Subnets are not asked for by kube-proxy or portmap.
    for (bits, name) in BESIDE.into_iter().filter(|_| !net) {
        rules.push(rule().is(mark().and(NEIGHBOUR_MASK), bits).goto(name));
    }
    rules.extend(choose(shape, net));
    rules.push(rule().is(mark().and(FLAG_MASK), FLAG).accept());
    rules.push(no_way(0));
    rules
}

/// Puts the policy, and then its way, into the packet mark.
fn choose(shape: Shape, net: bool) -> Vec<Rule> {
    let key = [iif(), saddr(shape.v6)];
    by_policy(shape, if net { map(ranges(names::POLICIES_NETS), key) } else { map(names::POLICIES, key) }, names::SPREADS)
}

/// The same for a socket of the host: it has been routed before.
pub fn choose_for_socket(shape: Shape) -> Vec<Rule> {
    by_policy(shape, map(names::POLICIES, [iif(), saddr(shape.v6)]), names::SOCKET_SPREADS)
}

/// The policy's number stands in the mark between two rules only.
fn by_policy(shape: Shape, policy: Operand, spreads: &'static str) -> Vec<Rule> {
    present([
        Some(rule().set_mark(policy).done()),
        // What it makes of the mark is not in the next map.
        shape.spreads.then(|| rule().vmap(spreads, [mark()])),
        Some(rule().set_mark(map(names::POLICY_WAYS, [mark()])).done()),
    ])
}

/// The same for a packet that bears a neighbour's bits, which stay. A rule for each value of them: kernels before 6.13 cannot OR a register
/// into a mark.
fn beside(shape: Shape, bits: u32) -> Vec<Rule> {
    let mut rules: Vec<Rule> = choose(shape, false);
    rules.push(rule().is(mark().and(FLAG_MASK), FLAG).set_mark(mark().or(bits)).accept());
    rules.push(no_way(bits));
    rules
}

/// The first packet of each flow, on its way out: SNAT by output NIC, interface and source. No element for that NIC means drop, unless the
/// destination is inside by that very interface: one that takes more of late, as a VPN does, is not.
fn source_nat(shape: Shape) -> Vec<Rule> {
    let v6 = shape.v6;
    // The host's word that a call is refused, of a flow that ends before it has begun.
    let mut rules = present([shape.refusals.then(|| rule().is(ct_direction(), REPLY).accept())]);
    rules.extend(translations(shape, ours));
    rules.extend(present([
        shape.program_ports.then(programs::source_ports),
        shape.programs.then(|| programs::source_nat(v6)),
        // Another program took the mark away.
        shape.programs.then(programs::again),
        (shape.programs && shape.program_ports).then(programs::source_ports),
        shape.programs.then(|| programs::source_nat(v6)),
        Some(rule().found(names::INSIDE_HOSTS, [oif(), daddr(v6)]).accept()),
        Some(rule().found(ranges(names::INSIDE_ROUTES), [oif(), daddr(v6)]).accept()),
        shape.programs.then(programs::redirected),
        Some(drop_for(ours(), drops::SEAL)),
        shape.inside.then(|| to_inside(v6).accept()),
        Some(is_bound(v6).jump("remarked")),
        shape.nets.then(|| is_bound_net(v6).jump("remarked")),
    ]));
    rules.push(rule().goto("unmarked"));
    rules
}

/// A bound source whose mark another program overwrote behind the routing, for shaping: if it leaves by a NIC of an exit, it bears that.
fn remarked(shape: Shape) -> Vec<Rule> {
    let unmarked = shape.sockets.then(|| rule().is(iif(), 0).jump(names::SOCKETS_LEFT_ALONE));
    unmarked.into_iter().chain(limits(shape).into_iter().flatten()).chain(translations(shape, rule)).collect()
}

/// Source NAT by output NIC, interface and source, in rules that begin like this.
fn translations(shape: Shape, begin: fn() -> RuleBuilder) -> Vec<Rule> {
    let v6 = shape.v6;
    let key = || [oif(), iif(), saddr(v6)];
    present([
        shape.spread_exits.then(|| begin().vmap(names::SPREAD_EXITS, key())),
        shape.spread_exits_nets.then(|| begin().vmap(ranges(names::SPREAD_EXITS_NETS), key())),
        shape.ports.then(|| begin().vmap(names::SOURCE_PORTS, key())),
        shape.ports_nets.then(|| begin().vmap(ranges(names::SOURCE_PORTS_NETS), key())),
        Some(begin().snat(Family::ip(v6), map(names::EXITS, key()))),
        shape.nets.then(|| begin().snat(Family::ip(v6), map(ranges(names::EXITS_NETS), key()))),
    ])
}
