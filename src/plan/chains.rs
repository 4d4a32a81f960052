//! The rules: the same for every outcome, but for a chain or two for each uplink, exit and kind of traffic.
//!
//! Once for each flow the claim of its source goes into the conntrack mark; every packet then gets its NIC from there, as a packet mark that
//! the policy rules read. ARCHITECTURE.md follows a packet through all of it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::contract::{
    CLAIM_FREE, CLAIM_NO_EXIT, EXIT, FLAG, FLOW_MASK, NEIGHBOUR_MASK, PACKET_MASK, PRIORITY_BRIDGE, PRIORITY_OUTPUT, PRIORITY_PREROUTING,
    PRIORITY_SEAL, PRIORITY_SNAT,
};
use crate::model::binding::{Protocol, Traffic};
use crate::nft::build::{
    ct_direction, ct_mark, ct_status, daddr, dport, fib_oif, fingerprint, iif, l4proto, map, mark, oif, protocol, ranges, rule, saddr,
};
use crate::nft::{Chain, ChainKind, Family, Hook, Rule};

/// Chain of a guarded bridge.
pub const CLOSED: &str = "from_bridge";
/// `ct direction` of answers.
pub const REPLY: u32 = 1;
/// `IPS_CONFIRMED`: the flow's first packet has left. (`ct state new` also matches later packets of an unanswered UDP flow.)
const CONFIRMED: u32 = 1 << 3;
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
/// Bits of a packet mark that are neither ours nor a known neighbour's.
const STRANGE: u32 = !(FLOW_MASK | NEIGHBOUR_MASK);

type Chains = BTreeMap<String, Chain>;

/// The bridge family: a frame's port and source address say whose it is.
pub fn bridge() -> Chains {
    let claim = |ethertype, set, v6| rule().is(protocol(), ethertype).set_mark(map(set, [iif(), saddr(v6)])).done();
    let rules = [claim(ETHERTYPE_IPV4, "claims4", false), claim(ETHERTYPE_IPV6, "claims6", true)];
    Chains::from([("prerouting".to_owned(), Chain::base(ChainKind::Filter, Hook::Prerouting, PRIORITY_BRIDGE, rules))])
}

/// What every table of an ip family has.
pub fn fixed(v6: bool) -> Chains {
    let base = |kind, hook, priority, rules: Vec<Rule>| Chain::base(kind, hook, priority, rules);
    let mut chains = Chains::new();
    let mut put = |name: &str, chain| drop(chains.insert(name.to_owned(), chain));
    put(
        "prerouting",
        base(
            ChainKind::Filter,
            Hook::Prerouting,
            PRIORITY_PREROUTING,
            vec![
                rule().vmap("ingress", [iif()]),
                // An answer that another node or an overlay brings, to what came in by an uplink and was passed on there.
                rule().is(ct_direction(), REPLY).is(ct_mark().and(FLAG | EXIT), FLAG).goto("reply"),
                // A flow of ours whose source nobody vouches for any more: its claim is gone, and its end is on the way.
                rule().is_not(ct_mark().and(EXIT), 0).is(ct_mark().and(FLAG), FLAG).is_not(ct_direction(), REPLY).goto("unknown"),
            ],
        ),
    );
    put(
        "output",
        base(
            ChainKind::Route,
            Hook::Output,
            PRIORITY_OUTPUT,
            vec![
                rule()
                    .is(ct_direction(), REPLY)
                    .is(ct_mark().and(FLAG | EXIT), FLAG)
                    .is(mark(), 0)
                    .set_mark(ct_mark().and(PACKET_MASK))
                    .done(),
            ],
        ),
    );
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    put(
        "source_nat",
        base(
            ChainKind::Nat,
            Hook::Postrouting,
            PRIORITY_SNAT,
            vec![
                rule().snat(family, map("exits", [oif(), ct_mark().and(FLOW_MASK)])),
                // Bound, and on its way out by a NIC that its exit is not on.
                rule().is_not(ct_mark().and(EXIT), 0).is(ct_mark().and(FLAG), FLAG).found("uplinks", [oif()]).counter().drop(),
            ],
        ),
    );
    put(
        "seal",
        base(
            ChainKind::Filter,
            Hook::Postrouting,
            PRIORITY_SEAL,
            vec![
                rule().is(mark().and(FLAG), 0).accept(),
                rule().found("own", [oif(), saddr(v6)]).accept(),
                // An answer to what came in by this NIC leaves as it was addressed.
                rule().is(ct_mark().and(FLAG | EXIT), FLAG).accept(),
                rule().found("uplinks", [oif()]).counter().drop(),
            ],
        ),
    );
    put(
        CLOSED,
        Chain::regular([
            rule().is(ct_direction(), REPLY).goto("reply"),
            rule().is(mark().and(FLAG), 0).jump("from_routed"),
            rule().is(mark().and(FLAG), 0).goto("unknown"),
            rule().goto("bound"),
        ]),
    );
    put(
        "from_open_bridge",
        Chain::regular([
            rule().is(ct_direction(), REPLY).goto("reply"),
            rule().is(mark().and(FLAG), 0).jump("from_routed"),
            rule().is(mark().and(FLAG), 0).ret(),
            rule().goto("bound"),
        ]),
    );
    put(
        "from_routed",
        Chain::regular([
            rule().is(ct_direction(), REPLY).goto("reply"),
            rule().is_not(mark(), 0).goto("from_routed_marked"),
            rule().set_mark(map("routed", [iif(), saddr(v6)])).done(),
            rule().is(mark(), 0).set_mark(map(ranges("routed_nets"), [iif(), saddr(v6)])).done(),
            rule().is(mark().and(FLAG), FLAG).goto("bound"),
        ]),
    );
    // A lookup for its value: kernels before 6.5 refuse to ask a map only whether a key is there.
    put(
        "from_routed_marked",
        Chain::regular([
            rule().is_not(map("routed", [iif(), saddr(v6)]), 0).goto("strange"),
            rule().is_not(map(ranges("routed_nets"), [iif(), saddr(v6)]), 0).goto("strange"),
        ]),
    );
    put("bound", Chain::regular(bound(v6)));
    put("take", Chain::regular(take()));
    put(
        "restore",
        Chain::regular([
            rule().is(mark().and(!FLOW_MASK), 0).set_mark(ct_mark().and(PACKET_MASK)).accept(),
            rule().is_not(mark().and(STRANGE), 0).goto("strange"),
            rule().vmap("nic_marks", [ct_mark().and(PACKET_MASK)]),
        ]),
    );
    put(
        "reply",
        Chain::regular([
            rule().is_not(ct_mark().and(FLAG | EXIT), FLAG).goto("free"),
            rule().is(mark().and(!FLOW_MASK), 0).set_mark(ct_mark().and(PACKET_MASK)).accept(),
            rule().is(mark().and(STRANGE), 0).vmap("nic_marks", [ct_mark().and(PACKET_MASK)]),
            rule().goto("free"),
        ]),
    );
    put("free", Chain::regular([rule().set_mark(mark().and(!FLOW_MASK)).accept()]));
    // A transparent proxy or another router has plans for this packet: ours would undo them. Outside it does not get.
    put(
        "strange",
        Chain::regular([
            rule().set_mark(mark().and(!FLOW_MASK)).done(),
            rule().found("uplinks", [fib_oif()]).counter().drop(),
            rule().counter().accept(),
        ]),
    );
    put("unknown", Chain::regular(unknown(v6)));
    chains
}

fn bound(v6: bool) -> Vec<Rule> {
    vec![
        rule().is_not(ct_mark().and(EXIT), 0).is(ct_mark().and(FLAG), FLAG).goto("restore"),
        rule().is(mark().and(FLOW_MASK), CLAIM_FREE).goto("free"),
        // It began before it was bound, and goes on as it began.
        rule().is(ct_status().and(CONFIRMED), CONFIRMED).goto("free"),
        rule().found(ranges("inside"), [iif(), daddr(v6)]).goto("free"),
        rule().is_not(mark().and(STRANGE), 0).goto("strange"),
        rule().is(mark().and(FLOW_MASK), CLAIM_NO_EXIT).set_mark(mark().and(!FLOW_MASK).or(FLAG)).accept(),
        rule().vmap("traffic", [iif(), saddr(v6)]),
        rule().vmap(ranges("traffic_nets"), [iif(), saddr(v6)]),
        rule().goto("take"),
    ]
}

/// The flow is ours from here on. A mark of somebody else's is kept, which takes a rule for each exit: kernels before 6.13 cannot OR a
/// register into a mark.
fn take() -> Vec<Rule> {
    vec![
        rule().is_not(ct_mark(), 0).vmap("exit_marks", [mark().and(FLOW_MASK)]),
        rule().is(ct_mark(), 0).set_ct_mark(mark().and(FLOW_MASK)).done(),
        rule().is(mark().and(NEIGHBOUR_MASK), 0).set_mark(mark().and(PACKET_MASK)).accept(),
        rule().vmap("nic_marks", [mark().and(PACKET_MASK)]),
    ]
}

fn unknown(v6: bool) -> Vec<Rule> {
    let own_link: &[&str] = if v6 { &["ff00::/8", "fe80::/10"] } else { &["224.0.0.0/4", "255.255.255.255/32"] };
    let prefix = |text: &&str| text.parse::<IpNet>().expect("a prefix");
    let mut rules: Vec<Rule> = own_link.iter().map(|p| rule().within(daddr(v6), prefix(p)).accept()).collect();
    rules.push(rule().found(ranges("inside"), [iif(), daddr(v6)]).accept());
    rules.push(rule().found("uplinks", [fib_oif()]).counter().drop());
    rules
}

/// The name of the chain that notes an arrival by an uplink.
pub fn arrival_name(number: u8) -> String {
    format!("arrival-{number}")
}

/// Arrivals by an uplink: answers go back by it. Sources bound on that very NIC come first (a one-armed router's NIC says nothing).
pub fn arrival(number: u8, routed: bool) -> Chain {
    let new = rule().is(ct_status().and(CONFIRMED), 0).is(ct_mark().and(FLAG), 0);
    let note = new.set_ct_mark(ct_mark().and(!FLOW_MASK).or(FLAG | u32::from(number))).done();
    let first = routed.then(|| rule().jump("from_routed"));
    Chain::regular(first.into_iter().chain([note]).collect::<Vec<_>>())
}

/// The name of the chain that puts a NIC beside a neighbour's bits.
pub fn nic_name(number: u8) -> String {
    format!("nic-{number}")
}

pub fn nic(number: u8) -> Chain {
    Chain::regular([rule().set_mark(mark().and(!FLOW_MASK).or(FLAG | u32::from(number))).accept()])
}

/// The name of the chain that puts an exit beside somebody else's bits in the conntrack mark.
pub fn exit_name(claim: u32) -> String {
    format!("exit-{claim:08x}")
}

pub fn exit(claim: u32) -> Chain {
    Chain::regular([rule().set_ct_mark(ct_mark().and(!FLOW_MASK).or(claim)).done(), rule().goto("restore")])
}

/// The name of the chain of a kind of traffic: the same for the same traffic.
pub fn traffic_name(traffic: &Traffic) -> String {
    format!("traffic-{}", fingerprint(format_args!("{traffic:?}")))
}

/// The chains of a kind of traffic: what fits is taken, the rest is free.
pub fn traffic(traffic: &Traffic, v6: bool) -> Chains {
    let name = traffic_name(traffic);
    let ports_name = format!("{name}-ports");
    let fits = if traffic.ports.is_empty() { "take" } else { &ports_name };
    let mut chains = Chains::new();
    let mut rules = Vec::new();
    for (at, destination) in traffic.to.iter().enumerate().filter(|(_, d)| d.cidr.addr().is_ipv6() == v6) {
        let to = format!("{name}-to-{at}");
        let mut inner: Vec<Rule> = destination.except.iter().map(|e| rule().within(daddr(v6), *e).ret()).collect();
        inner.push(rule().goto(fits));
        chains.insert(to.clone(), Chain::regular(inner));
        rules.push(rule().within(daddr(v6), destination.cidr).jump(&to));
    }
    rules.push(rule().goto(if traffic.to.is_empty() { fits } else { "free" }));
    if !traffic.ports.is_empty() {
        let number = |p| match p {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        };
        let one = |p: &crate::model::binding::Ports| {
            rule().is(l4proto(), number(p.protocol)).between(dport(), p.first.into(), p.last.into()).goto("take")
        };
        let rules: Vec<Rule> = traffic.ports.iter().map(one).chain([rule().goto("free")]).collect();
        chains.insert(ports_name.clone(), Chain::regular(rules));
    }
    chains.insert(name, Chain::regular(rules));
    chains
}
