//! Steps on a real kernel, in namespaces of the test's own, read back by the source and by `ip`.

use std::net::IpAddr;

use super::*;
use crate::contract;
use crate::facts::kernel::Source;
use crate::model::facts::{Family, KernelChange, Link, NextHop, Route, RouteKind, Rule, RuleAction};
use crate::netlink::testing::{alone, alone_async, run};

/// What the source reads from the kernel.
async fn read() -> (Vec<Link>, Vec<Route>, Vec<Rule>) {
    let (mut links, mut read) = (Vec::new(), None);
    for change in Source::open().unwrap().next().await.unwrap() {
        match change {
            KernelChange::Link(link) => links.push(link),
            KernelChange::Routing { routes, rules } => read = Some((routes, rules)),
            _ => {}
        }
    }
    let (routes, rules) = read.unwrap();
    (links, routes, rules)
}

/// Two ends of a veth, both up, with addresses: enough for gateways.
fn nic() -> u32 {
    run("ip link add eth1 type veth peer name wire
         ip address add 10.1.0.14/24 dev eth1
         ip -6 address add fd00:1::14/64 nodad dev eth1
         ip link set wire up
         ip link set eth1 up");
    run("cat /sys/class/net/eth1/ifindex 2>/dev/null || ip -o link show eth1 | cut -d: -f1").trim().parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(destination: &str, interface: Option<u32>) -> Route {
    let destination: ipnet::IpNet = destination.parse().unwrap();
    Route { interface, metric: 100, protocol: contract::PROTOCOL, ..Route::new(contract::TABLE_BASE + 1, destination) }
}

fn last(destination: &str) -> Route {
    Route { kind: RouteKind::Unreachable, metric: contract::METRIC_LAST, ..route(destination, None) }
}

fn rule(family: Family, preference: u32) -> Rule {
    Rule { protocol: contract::PROTOCOL, ..Rule::new(family, preference, contract::TABLE_BASE + 1) }
}

#[test]
fn every_route_reads_back_as_it_was_written() {
    alone_async(async || {
        let eth1 = Some(nic());
        let via = |destination: &str, gateway: &str| Route { gateway: Some(ip(gateway)), ..route(destination, eth1) };
        let hop = |gateway: &str, weight| NextHop { gateway: Some(ip(gateway)), interface: eth1, weight, onlink: false };
        let mut written = vec![
            Route { scope: 253, source: Some(ip("10.1.0.14")), ..route("10.1.0.0/24", eth1) },
            via("0.0.0.0/0", "10.1.0.1"),
            Route { metrics: Route::mtu_only(Some(1400)), source: Some(ip("10.1.0.14")), ..via("10.2.0.0/16", "10.1.0.1") },
            Route { onlink: true, ..via("10.3.0.0/16", "192.0.2.1") },
            Route { tos: 0x10, ..via("10.2.0.0/16", "10.1.0.3") },
            Route { metrics: vec![(2, 1400), (3, 65536), (8, 1200), (11, 20)], ..via("10.5.0.0/16", "10.1.0.1") },
            Route { next_hops: vec![hop("10.1.0.1", 1), hop("10.1.0.2", 3)], ..route("10.6.0.0/16", None) },
            Route { next_hops: vec![hop("10.1.0.1", 256), hop("fe80::1", 1)], ..route("10.7.0.0/16", None) },
            Route { next_hops: vec![NextHop { onlink: true, ..hop("192.0.2.1", 1) }, hop("10.1.0.2", 1)], ..route("10.8.0.0/16", None) },
            Route { kind: RouteKind::Blackhole, ..route("10.9.0.0/16", None) },
            Route { kind: RouteKind::Prohibit, ..route("10.10.0.0/16", None) },
            Route { kind: RouteKind::Throw, ..route("10.11.0.0/16", None) },
            Route { metric: 200, ..via("10.2.0.0/16", "10.1.0.2") },
            via("10.4.0.0/16", "fe80::1"),
            last("0.0.0.0/0"),
            route("fd00:1::/64", eth1),
            via("::/0", "fe80::1"),
            Route { metrics: Route::mtu_only(Some(1400)), source: Some(ip("fd00:1::14")), ..via("fd00:2::/48", "fd00:1::1") },
            Route { onlink: true, ..via("fd00:3::/48", "fd00:77::1") },
            Route { from: "fd00:9::/64".parse().ok(), ..via("::/0", "fe80::2") },
            Route { next_hops: vec![hop("fd00:1::1", 1), hop("fd00:1::2", 3)], ..route("fd00:6::/48", None) },
            Route { next_hops: vec![NextHop { onlink: true, ..hop("fd00:77::1", 1) }, hop("fe80::2", 1)], ..route("fd00:8::/48", None) },
            Route { kind: RouteKind::Blackhole, ..route("fd00:9::/48", None) },
            Route { kind: RouteKind::Throw, ..route("fd00:a::/48", None) },
            last("::/0"),
        ];
        let mut routing = Routing::open().unwrap();
        for _ in 0..2 {
            written.iter().for_each(|r| routing.apply(&RouteStep::AddRoute(r.clone())).unwrap());
        }
        let ours = |routes: Vec<Route>| -> Vec<Route> { routes.into_iter().filter(|route| route.protocol == contract::PROTOCOL).collect() };
        let mut found = ours(read().await.1);
        written.sort();
        found.sort();
        assert_eq!(found, written);
        for _ in 0..2 {
            written.iter().for_each(|r| routing.apply(&RouteStep::DeleteRoute(r.clone())).unwrap());
        }
        assert_eq!(ours(read().await.1), []);
    });
}

#[test]
fn a_lifetime_is_kept_and_counts_down() {
    alone_async(async || {
        let short = Route { gateway: Some(ip("fe80::1")), expires: Some(600), ..route("::/0", Some(nic())) };
        Routing::open().unwrap().apply(&RouteStep::AddRoute(short)).unwrap();
        let routes = read().await.1;
        let found = routes.iter().find(|r| r.protocol == contract::PROTOCOL).unwrap();
        assert!((590..=600).contains(&found.expires.unwrap()), "{found:?}");
    });
}

#[test]
fn a_route_takes_the_place_of_one_with_another_gateway() {
    alone_async(async || {
        let eth1 = Some(nic());
        let mut routing = Routing::open().unwrap();
        for (net, gateways) in [("0.0.0.0/0", ["10.1.0.1", "10.1.0.2"]), ("::/0", ["fd00:1::1", "fd00:1::2"])] {
            for gateway in gateways {
                let route = Route { gateway: Some(ip(gateway)), ..route(net, eth1) };
                routing.apply(&RouteStep::AddRoute(route)).unwrap();
            }
        }
        let routes = read().await.1;
        let ours = routes.iter().filter(|r| r.protocol == contract::PROTOCOL);
        let gateways: Vec<_> = ours.filter_map(|r| r.gateway).collect();
        assert_eq!(gateways, [ip("10.1.0.2"), ip("fd00:1::2")]);
    });
}

#[test]
fn every_rule_reads_back_as_it_was_written() {
    alone_async(async || {
        let mut written = Vec::new();
        for (family, exit) in [(Family::V4, "10.1.0.14/32"), (Family::V6, "fd00:1::14/128")] {
            written.extend([
                Rule {
                    mark: Some(contract::FLAG),
                    mask: Some(contract::FLAG_MASK),
                    table: 254,
                    suppress_prefix_length: Some(0),
                    suppress_group: Some(contract::UPLINK_GROUP),
                    ..rule(family, contract::PREFERENCE_INSIDE)
                },
                Rule { mark: Some(contract::FLAG | 1), mask: Some(contract::MARK_MASK), ..rule(family, contract::PREFERENCE_WAY) },
                Rule { to: exit.parse().ok(), not: true, iif: Some("eth1".to_owned()), oif: Some("eth2".to_owned()), ..rule(family, 2000) },
                Rule { l3mdev: true, table: 0, ..rule(family, 2001) },
                Rule { action: RuleAction::Goto(3000), table: 0, ..rule(family, 2002) },
                Rule { action: RuleAction::Nop, table: 0, ..rule(family, 2003) },
                Rule { action: RuleAction::Blackhole, table: 0, ..rule(family, 2004) },
                Rule { action: RuleAction::Unreachable, table: 0, ..rule(family, 2005) },
                Rule { action: RuleAction::Prohibit, table: 0, ..rule(family, 2006) },
                Rule { from: exit.parse().ok(), table: contract::TABLE_NODES, ..rule(family, contract::PREFERENCE_FROM_NODES) },
                Rule { from: exit.parse().ok(), ..rule(family, contract::PREFERENCE_FROM_WAY) },
            ]);
        }
        let mut routing = Routing::open().unwrap();
        for _ in 0..2 {
            written.iter().for_each(|r| routing.apply(&RouteStep::AddRule(r.clone())).unwrap());
        }
        let ours = |rules: Vec<Rule>| -> Vec<Rule> { rules.into_iter().filter(|rule| rule.protocol == contract::PROTOCOL).collect() };
        assert_eq!(ours(read().await.2), written);
        for _ in 0..2 {
            written.iter().for_each(|r| routing.apply(&RouteStep::DeleteRule(r.clone())).unwrap());
        }
        assert_eq!(ours(read().await.2), []);
    });
}

#[test]
fn a_nic_is_put_into_a_group() {
    alone_async(async || {
        let index = nic();
        let step = RouteStep::SetGroup { index, group: contract::UPLINK_GROUP };
        Routing::open().unwrap().apply(&step).unwrap();
        let links = read().await.0;
        let group = links.iter().find(|link| link.index == index).map(|link| link.group);
        assert_eq!(group, Some(contract::UPLINK_GROUP));
    });
}

#[test]
fn a_bridges_port_is_put_into_hairpin_mode_and_the_kernel_tells_of_it() {
    alone_async(async || {
        let index = nic();
        run("ip link add br0 type bridge");
        run("ip link set eth1 master br0");
        for on in [true, false] {
            Routing::open().unwrap().apply(&RouteStep::SetHairpin { index, on }).unwrap();
            let links = read().await.0;
            assert_eq!(links.iter().find(|link| link.index == index).map(|link| link.hairpin), Some(on));
        }
        run("ip link set eth1 nomaster");
        Routing::open().unwrap().apply(&RouteStep::SetHairpin { index, on: true }).expect("it is no port any more");
    });
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_reason() {
    alone(|| {
        let far = Route { gateway: Some(ip("198.51.100.1")), ..route("0.0.0.0/0", Some(nic())) };
        let error = Routing::open().unwrap().apply(&RouteStep::AddRoute(far)).unwrap_err();
        assert_eq!(error.to_string(), "the kernel refused it: Nexthop has invalid gateway");
        assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    });
}
