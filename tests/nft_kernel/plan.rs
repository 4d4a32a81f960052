//! The rules of the datapath, as the plan has them: the kernel takes them, and `nft` lists them.

use std::sync::Arc;

use egressd::effects::nft::Nft;
use egressd::model::binding::Traffic;
use egressd::model::ground::Uplink;
use egressd::model::resolve::{Guard, Outcome};
use egressd::nft::Family;
use egressd::plan::{chains, tables};

use crate::lab::*;

#[test]
fn the_datapaths_rules_are_taken_by_the_kernel_and_listed_by_nft() {
    in_namespace(|| {
        let mut outcome = Outcome::default();
        let uplink = Uplink {
            index: 3,
            name: "eth1".into(),
            number: 1,
            up: true,
            group: 0,
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            gateways: Default::default(),
            holds_exit: true,
        };
        outcome.ground.uplinks.insert(3, uplink);
        outcome.guards.insert(5, Guard::Closed);
        outcome.guards.insert(6, Guard::Open);
        // Some lie within others, and two are neighbours.
        let inside = ["10.244.0.0/24", "10.244.1.0/24", "10.96.0.0/12", "10.96.0.1/32", "fd00::/48", "fd00::1/128"];
        outcome.inside = Arc::new(inside.iter().map(|net| net.parse().unwrap()).collect());
        let mut wanted = tables::ruleset(&outcome);
        for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
            let table = wanted.tables.get_mut(&family).unwrap();
            table.chains.insert("arrival-routed".into(), chains::arrival(2, true));
            table.chains.insert("exit".into(), chains::exit(0x0100_1001));
            table.chains.extend(chains::traffic(&Traffic::default(), v6));
        }
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        let listing = listing();
        assert!(listing.contains("snat to oif . ct mark & 0xff00107f map @exits"), "{listing}");
    });
}
