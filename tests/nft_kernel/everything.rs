//! A ruleset with every expression, set and datatype, in the forms of the datapath.

use std::net::IpAddr;

use egressd::nft::build::*;
use egressd::nft::{Bytes, Chain, ChainKind, Data, Datatype, Family, Hook, Key, Ruleset, Set, Table, Verdict};

fn number(value: u32) -> Bytes {
    Bytes::of_number(value)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// In all three families.
pub fn everything() -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
        ruleset.tables.insert(family, routed(family, v6));
    }
    let bridge = Chain::base(
        ChainKind::Filter,
        Hook::Prerouting,
        -300,
        [
            rule().is(protocol(), 0x0800).found("owners4", [iif(), saddr(false)]).accept(),
            rule().is(protocol(), 0x86dd).found("owned6", [saddr(true)]).counter("Spoofed").drop(),
            rule().is(protocol(), 0x8100).is(outer_vlan(), 0).drop(),
            rule().is(protocol(), 0x88a8).is(inner_vlan(), 0).drop(),
        ],
    );
    let mut table = Table::default();
    table.chains.insert("prerouting".into(), bridge);
    let mut owners = Set::of([Datatype::IfIndex, Datatype::Ipv4]);
    owners.elements.insert(Key::one(number(3).address(address("10.0.0.1"))), Data::None);
    let mut owned = Set::of([Datatype::Ipv6]);
    owned.elements.insert(Key::one(Bytes::default().address(address("fd00::1"))), Data::None);
    table.sets.extend([("owners4".into(), owners), ("owned6".into(), owned)]);
    ruleset.tables.insert(Family::Bridge, table);
    ruleset
}

fn routed(family: Family, v6: bool) -> Table {
    let (kind, host, prefix, exit) = if v6 {
        (Datatype::Ipv6, "fd00::1", "fd00:1::/64", "2001:db8::1")
    } else {
        (Datatype::Ipv4, "10.0.0.1", "10.1.0.0/16", "192.0.2.1")
    };
    let mut table = Table::default();
    let mut uplinks = Set::of([Datatype::IfIndex]);
    for interface in [3, 4] {
        uplinks.elements.insert(Key::one(number(interface)), Data::None);
    }
    table.sets.insert("uplinks".into(), uplinks);
    let mut dispatch = Set::map([Datatype::IfIndex], Datatype::Verdict);
    for (interface, verdict) in [
        (3, Verdict::Jump("arrival".into())),
        (4, Verdict::Goto("arrival".into())),
        (5, Verdict::Drop),
        (6, Verdict::Accept),
        (7, Verdict::Return),
    ] {
        dispatch.elements.insert(Key::one(number(interface)), Data::Verdict(verdict));
    }
    table.sets.insert("dispatch".into(), dispatch);
    let mut sources = Set::map([Datatype::IfIndex, kind], Datatype::Mark);
    sources.elements.insert(Key::one(number(5).address(address(host))), Data::mark(0x1001));
    table.sets.insert("sources".into(), sources);
    let mut prefixes = Set::map([Datatype::IfIndex, kind], Datatype::Mark).with_ranges();
    prefixes.elements.insert(Key::prefix(5, prefix.parse().unwrap()), Data::mark(0x1002));
    table.sets.insert("prefixes".into(), prefixes);
    let mut traffic = Set::map([Datatype::IfIndex, kind], Datatype::Verdict).with_ranges();
    let verdict = Data::Verdict(Verdict::Goto("arrival".into()));
    traffic.elements.insert(Key::prefix(5, prefix.parse().unwrap()), verdict);
    table.sets.insert("traffic".into(), traffic);
    let mut called = Set::map([kind], Datatype::Mark);
    called.elements.insert(Key::one(Bytes::default().address(address(exit))), Data::mark(0x1001));
    table.sets.insert("called".into(), called);
    let mut exits = Set::map([Datatype::IfIndex, Datatype::IfIndex, kind], kind);
    exits.elements.insert(Key::one(number(3).number(5).address(address(host))), Data::address(address(exit)));
    table.sets.insert("exits".into(), exits);
    let mut own = Set::of([Datatype::IfIndex, kind]);
    own.elements.insert(Key::one(number(3).address(address(exit))), Data::None);
    table.sets.insert("own".into(), own);

    let prerouting = Chain::base(
        ChainKind::Filter,
        Hook::Prerouting,
        -99,
        [
            rule().is(ct_direction(), 1).set_mark(map("called", [ct_original_daddr(v6)])).accept(),
            rule().is(ct_state().and(4), 4).set_mark(map("called", [ct_reply_daddr(v6)])).accept(),
            rule().is(ct_status().and(8), 0).set_mark(map("sources", [iif(), saddr(v6)])).done(),
            rule().set_mark(map(ranges("prefixes"), [iif(), saddr(v6)])).done(),
            rule().found("uplinks", [fib_oif()]).counter("Spoofed").drop(),
            rule().is(l4proto(), 17).between(dport(), 67, 68).accept(),
            rule().is(l4proto(), 17).outside(dport(), 67, 68).ret(),
            rule().within(daddr(v6), prefix.parse().unwrap()).jump("arrival"),
            rule().not_within(daddr(v6), address(host).into()).goto("arrival"),
            rule().vmap(ranges("traffic"), [iif(), saddr(v6)]),
            rule().vmap("dispatch", [iif()]),
        ],
    );
    let arrival =
        Chain::regular([rule().set_mark(mark().and(0xffff_efff).or(0x1000)).done(), rule().is_not(iif(), 1).set_mark(constant(7)).ret()]);
    let postrouting = Chain::base(
        ChainKind::Nat,
        Hook::Postrouting,
        95,
        [rule().snat(family, map("exits", [oif(), iif(), saddr(v6)])), rule().not_found("uplinks", [oif()]).accept()],
    );
    let seal = Chain::base(
        ChainKind::Filter,
        Hook::Postrouting,
        110,
        [
            rule().found("own", [oif(), saddr(v6)]).accept(),
            rule().is(ct_direction(), 0).count_in("dropped", [iif(), ct_original_saddr(v6)], 86_400_000).done(),
            rule().is(ct_direction(), 1).count_in("dropped", [iif(), ct_reply_saddr(v6)], 86_400_000).done(),
            rule().not_found("own", [oif(), saddr(v6)]).drop(),
        ],
    );
    table.sets.insert("dropped".into(), Set::of([Datatype::IfIndex, kind]).filled_by_rules(4096));
    let output = Chain::base(ChainKind::Route, Hook::Output, -149, []);
    let zones = Chain::base(ChainKind::Filter, Hook::Output, -300, [rule().is(l4proto(), 17).set_zone(4661).accept()]);
    let called = [kind, Datatype::Protocol, Datatype::Service];
    let port = |port: u16| Bytes::default().address(address(exit)).protocol(6).port(port);
    let mut services = Set::map(called, Datatype::Verdict);
    services.elements.insert(Key::one(port(27017)), Data::Verdict(Verdict::Jump("service".into())));
    let mut published = Set::of(called).with_ranges();
    published.elements.insert(Key { first: port(5000), last: Some(port(5010)) }, Data::None);
    let mut servers = Set::map([Datatype::Mark], Datatype::endpoint(v6));
    servers.elements.insert(Key::one(number(0)), Data::Value(Bytes::default().address(address(host)).port(1234)));
    let mut addresses = Set::map([Datatype::Mark], kind);
    addresses.elements.insert(Key::one(number(0)), Data::address(address(host)));
    for (name, set) in [("services", services), ("published", published), ("servers", servers), ("addresses", addresses)] {
        table.sets.insert(name.into(), set);
    }
    let inbound = Chain::base(ChainKind::Nat, Hook::Prerouting, -101, [rule().vmap("services", [daddr(v6), l4proto(), dport()])]);
    let service = Chain::regular([
        rule().is(l4proto(), 6).dnat_endpoint(family, map("servers", [mark()])),
        rule().dnat(family, map("addresses", [mark()])),
    ]);
    let inbound_source = Chain::base(
        ChainKind::Nat,
        Hook::Postrouting,
        94,
        [rule().found(ranges("published"), [daddr(v6), l4proto(), dport()]).masquerade()],
    );
    for (name, chain) in [
        ("prerouting", prerouting),
        ("arrival", arrival),
        ("postrouting", postrouting),
        ("seal", seal),
        ("output", output),
        ("zones", zones),
    ] {
        table.chains.insert(name.into(), chain);
    }
    for (name, chain) in [("inbound", inbound), ("service", service), ("inbound_source", inbound_source)] {
        table.chains.insert(name.into(), chain);
    }
    table
}
