//! The rules of the datapath, as the plan has them: the kernel takes them, and `nft` lists them.

use std::sync::Arc;

use egressd::effects::nft::Nft;
use egressd::model::binding::{Destination, Ports, Protocol, Traffic};
use egressd::model::facts::KernelFacts;
use egressd::model::resolve::{Guard, Outcome};
use egressd::model::uplinks::Uplink;
use egressd::nft::{Family, Ruleset};
use egressd::plan::datapath::{Shape, chains, traffic};
use egressd::plan::tables;

use crate::lab::*;

/// What a host with one uplink needs.
fn wanted() -> Ruleset {
    let mut outcome = Outcome::default();
    let uplink = Uplink {
        index: 3,
        name: "eth1".into(),
        up: true,
        group: 0,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        way: Some(1),
        holds_exit: true,
    };
    outcome.uplinks.nics.insert(3, uplink);
    outcome.uplinks.inside.links.insert(5);
    outcome.uplinks.inside.routes.extend([(5, "172.19.0.0/16".parse().unwrap()), (5, "fd00:19::1/128".parse().unwrap())]);
    for address in ["192.0.2.1", "2001:db8::1"] {
        outcome.uplinks.called.insert(address.parse().unwrap(), 1);
        outcome.uplinks.borne.insert(address.parse().unwrap(), 1);
    }
    outcome.guards.insert(5, Guard::Closed);
    outcome.guards.insert(6, Guard::Open);
    // Some lie within others, and two are neighbours.
    let inside = ["10.244.0.0/24", "10.244.1.0/24", "10.96.0.0/12", "10.96.0.1/32", "fd00::/48", "fd00::1/128"];
    outcome.inside = Arc::new(inside.iter().map(|net| net.parse().unwrap()).collect());
    let mut ruleset = tables::ruleset(&outcome, &KernelFacts::default(), &mut traffic::Made::default());
    tables::hold_back(&mut ruleset, &[(5, "172.19.0.9".parse().unwrap())].into());
    ruleset
}

#[test]
fn the_datapaths_rules_are_taken_by_the_kernel_and_listed_by_nft() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut wanted = wanted();
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        // All rules that there can be, and traffic of a kind.
        let limited = Traffic::new(
            vec![Destination { cidr: "198.51.100.0/24".parse().unwrap(), except: vec!["198.51.100.7/32".parse().unwrap()] }],
            vec![Ports { protocol: Protocol::Tcp, first: 80, last: 443 }],
        );
        for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
            let table = wanted.tables.get_mut(&family).unwrap();
            let all = true;
            let shape = Shape { v6, nets: all, limited: all, limited_nets: all, inside: all, guards: all, claimed: all, departed: all };
            table.chains = chains(shape);
            traffic::add(table, &traffic::name(&limited), &limited, v6, &mut traffic::Made::default());
        }
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        let listing = listing();
        for rule in [
            "snat to oif . iif . ip saddr map @exits",
            "ct direction reply meta mark set ct original ip daddr map @called accept",
            "meta mark set ct reply ip daddr map @ways accept",
            "iif . ip saddr map @policies != 0x0",
        ] {
            assert!(listing.contains(rule), "{rule}\n{listing}");
        }
    });
}
