//! What `ip` writes of links, addresses, routes and rules is read completely.

use super::*;
use crate::model::facts::{Family, NextHop, Route, Rule, RuleAction};

/// Two NICs with addresses.
fn nics() {
    run("ip link add eth1 type veth peer name wire1
         ip link add eth2 type veth peer name wire2
         ip address add 10.1.0.14/24 dev eth1
         ip address add 10.2.0.14/24 dev eth2
         ip address add fd00:1::14/64 nodad dev eth1
         ip address add fd00:2::14/64 nodad dev eth2
         ip link set wire1 up
         ip link set wire2 up
         ip link set eth1 up
         ip link set eth2 up");
}

fn index(facts: &KernelFacts, name: &str) -> Option<u32> {
    Some(named(facts, name).unwrap().index)
}

fn to<'a>(facts: &'a KernelFacts, destination: &str) -> Option<&'a Route> {
    let destination = destination.parse().unwrap();
    facts.routes.iter().find(|route| route.destination == destination && route.table == 77)
}

#[test]
fn every_next_hop_of_a_route_is_read() {
    alone_async(async || {
        nics();
        run("ip route add default table 77 nexthop via 10.1.0.1 dev eth1 weight 3 nexthop via 192.0.2.1 dev eth2 onlink
             ip -6 route add default table 77 nexthop via fd00:1::1 dev eth1 nexthop via fd00:2::1 dev eth2 weight 2
             ip route add 10.8.0.0/16 table 77 nexthop dev eth1 nexthop via inet6 fe80::1 dev eth2");
        let facts = Heard::start().await.facts;
        let hop = |gateway: &str, name, weight| NextHop {
            gateway: Some(ip(gateway)),
            interface: index(&facts, name),
            weight,
            onlink: gateway == "192.0.2.1",
        };
        let v4 = to(&facts, "0.0.0.0/0").unwrap();
        assert_eq!(v4.next_hops, [hop("10.1.0.1", "eth1", 3), hop("192.0.2.1", "eth2", 1)]);
        assert_eq!((v4.gateway, v4.interface, v4.onlink), (None, None, false));
        assert_eq!(to(&facts, "::/0").unwrap().next_hops, [hop("fd00:1::1", "eth1", 1), hop("fd00:2::1", "eth2", 2)]);
        let hops: Vec<_> = to(&facts, "10.8.0.0/16").unwrap().hops().collect();
        assert_eq!(hops, [(None, index(&facts, "eth1"), false), (Some(ip("fe80::1")), index(&facts, "eth2"), false)]);
    });
}

/// With `nexthop_compat_mode` on, as it is by default, the kernel spells such routes out; off, it tells ids alone.
async fn routes_by_objects(compatible: u8) {
    nics();
    run(&format!("echo {compatible} > /proc/sys/net/ipv4/nexthop_compat_mode"));
    run("ip nexthop add id 1 via 10.1.0.1 dev eth1
         ip nexthop add id 2 via 192.0.2.1 dev eth2 onlink
         ip nexthop add id 3 group 1,4/2
         ip nexthop add id 11 via fd00:1::1 dev eth1
         ip nexthop add id 12 via fd00:2::1 dev eth2
         ip nexthop add id 13 group 11/12
         ip nexthop add id 20 blackhole
         ip route add 10.6.0.0/16 nhid 1 table 77
         ip route add default nhid 3 table 77
         ip route add 10.7.0.0/16 nhid 20 table 77
         ip -6 route add default nhid 13 table 77");
    let mut heard = Heard::start().await;
    let (eth1, eth2) = (index(&heard.facts, "eth1"), index(&heard.facts, "eth2"));
    let hops = |facts: &KernelFacts, destination| to(facts, destination).unwrap().hops().collect::<Vec<_>>();
    assert_eq!(hops(&heard.facts, "10.6.0.0/16"), [(Some(ip("10.1.0.1")), eth1, false)]);
    assert_eq!(hops(&heard.facts, "0.0.0.0/0"), [(Some(ip("10.1.0.1")), eth1, false), (Some(ip("192.0.2.1")), eth2, true)]);
    let weights: Vec<u16> = to(&heard.facts, "0.0.0.0/0").unwrap().next_hops.iter().map(|hop| hop.weight).collect();
    assert_eq!(weights, [4, 1]);
    assert_eq!(hops(&heard.facts, "::/0"), [(Some(ip("fd00:1::1")), eth1, false), (Some(ip("fd00:2::1")), eth2, false)]);
    assert_eq!(to(&heard.facts, "10.7.0.0/16").unwrap().kind, RouteKind::Blackhole);

    run("ip nexthop replace id 1 via 10.1.0.9 dev eth1");
    heard.until("the object's new gateway", |facts| hops(facts, "10.6.0.0/16")[0].0 == Some(ip("10.1.0.9"))).await;
    assert_eq!(hops(&heard.facts, "0.0.0.0/0")[0].0, Some(ip("10.1.0.9")));
    run("ip nexthop del id 11");
    heard.until("the group's new members", |facts| hops(facts, "::/0") == [(Some(ip("fd00:2::1")), eth2, false)]).await;
}

#[test]
fn a_route_by_a_nexthop_object_leads_where_the_object_leads() {
    alone_async(|| routes_by_objects(1));
}

#[test]
fn a_route_that_tells_only_its_nexthop_object_leads_where_that_leads() {
    alone_async(|| routes_by_objects(0));
}

#[test]
fn what_a_route_is_for_and_its_numbers_are_read() {
    alone_async(async || {
        nics();
        run("ip route add 10.5.0.0/16 via 10.1.0.1 table 77 mtu lock 1400 advmss 1300 window 9000 congctl reno tos 0x10
             ip -6 route add default from fd00:9::/48 via fd00:1::1 dev eth1 table 77
             ip route add throw 10.6.0.0/16 table 77
             ip route add prohibit 10.7.0.0/16 table 77");
        let facts = Heard::start().await.facts;
        let told = to(&facts, "10.5.0.0/16").unwrap();
        // The kinds are RTAX_LOCK, RTAX_MTU, RTAX_WINDOW and RTAX_ADVMSS.
        assert_eq!(told.metrics, [(1, 1 << 2), (2, 1400), (3, 9000), (8, 1300)]);
        assert_eq!((told.mtu(), told.tos, told.encap), (Some(1400), 0x10, false));
        assert_eq!(to(&facts, "::/0").unwrap().from, "fd00:9::/48".parse().ok());
        assert_eq!(to(&facts, "10.6.0.0/16").unwrap().kind, RouteKind::Throw);
        assert_eq!(to(&facts, "10.7.0.0/16").unwrap().kind, RouteKind::Prohibit);
    });
}

#[test]
fn every_selector_and_action_of_a_rule_is_read() {
    alone_async(async || {
        run("ip rule add pref 10 not from 10.1.0.0/16 to 10.2.0.0/16 iif eth1 fwmark 5/7 lookup 77 suppress_prefixlength 0
             ip rule add pref 11 oif eth2 lookup 77
             ip rule add pref 12 l3mdev
             ip rule add pref 13 uidrange 1000-1001 lookup 77
             ip rule add pref 14 ipproto tcp dport 80 lookup 77
             ip rule add pref 15 tos 0x10 lookup 77
             ip rule add pref 16 goto 32766
             ip rule add pref 17 nop
             ip rule add pref 18 blackhole
             ip rule add pref 19 unreachable
             ip -6 rule add pref 10 prohibit from fd00::/16
             ip -6 rule add pref 11 sport 53 lookup 77");
        let facts = Heard::start().await.facts;
        let rule = |family, preference| {
            let found = facts.rules.iter().find(|rule| rule.family == family && rule.preference == preference).unwrap();
            Rule { protocol: 0, ..found.clone() }
        };
        let v4 = |preference| rule(Family::V4, preference);
        let plain = |preference| Rule::new(Family::V4, preference, 77);
        let acts = |preference, action| Rule { action, table: 0, ..plain(preference) };
        let full = Rule {
            not: true,
            from: "10.1.0.0/16".parse().ok(),
            to: "10.2.0.0/16".parse().ok(),
            iif: Some("eth1".to_owned()),
            mark: Some(5),
            mask: Some(7),
            suppress_prefix_length: Some(0),
            ..plain(10)
        };
        assert_eq!(v4(10), full);
        assert_eq!(v4(11), Rule { oif: Some("eth2".to_owned()), ..plain(11) });
        assert_eq!(v4(12), Rule { l3mdev: true, table: 0, ..plain(12) });
        assert_eq!(v4(14), Rule { other: true, ip_protocol: Some(6), ..plain(14) });
        for preference in [13, 15] {
            assert_eq!(v4(preference), Rule { other: true, ..plain(preference) });
        }
        assert_eq!(v4(16), acts(16, RuleAction::Goto(32766)));
        assert_eq!(v4(17), acts(17, RuleAction::Nop));
        assert_eq!(v4(18), acts(18, RuleAction::Blackhole));
        assert_eq!(v4(19), acts(19, RuleAction::Unreachable));
        let prohibited = Rule { from: "fd00::/16".parse().ok(), ..acts(10, RuleAction::Prohibit) };
        assert_eq!(rule(Family::V6, 10), Rule { family: Family::V6, ..prohibited });
        let by_port = rule(Family::V6, 11);
        assert_eq!((by_port.other, by_port.source_ports), (true, Some((53, 53))));
    });
}

#[test]
fn a_setting_that_another_program_changes_is_told_at_once() {
    alone_async(async || {
        nics();
        let mut heard = Heard::start().await;
        for setting in ["ipv4/conf/eth1/rp_filter", "ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"] {
            heard.all().await;
            run(&format!("echo 1 > /proc/sys/net/{setting}"));
            let changes = timeout(Duration::from_secs(5), heard.source.next()).await.expect(setting).unwrap();
            assert_eq!(changes, [KernelChange::Settings], "{setting}");
        }
    });
}

#[test]
fn a_new_link_and_settings_that_nobody_here_needs_are_no_change_of_settings() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        run("ip link add br9 type bridge
             echo 1 > /proc/sys/net/ipv4/conf/br9/proxy_arp");
        let mut told = Vec::new();
        while let Ok(changes) = timeout(Duration::from_millis(200), heard.source.next()).await {
            told.extend(changes.unwrap());
        }
        assert!(told.iter().any(|change| matches!(change, KernelChange::Link(_))), "{told:?}");
        assert!(!told.contains(&KernelChange::Settings), "{told:?}");
    });
}
