//! Whose flows may be in the fast path, and what makes it.

use super::*;
use crate::model::facts::Mac;
use crate::nft::Expr;
use crate::plan::fast_path::{Forwarding, MOST_DEVICES, Wanted, are_pinned, trial, wanted};

const EXIT: (&str, &str) = ("egress.ip", "172.31.0.14");

fn of(facts: &Facts) -> Wanted {
    wanted(&resolve(facts, &mut Past::default()), &facts.kernel)
}

fn ports(facts: &Facts) -> Vec<IfIndex> {
    of(facts).ports.into_keys().collect()
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn at(mac: Mac, port: IfIndex) -> Forwarding {
    Forwarding { mac, port, local: false, pinned: false }
}

#[test]
fn a_plain_binding_s_port_is_in_it_and_nobody_else_s() {
    let mut facts = host();
    start(&mut facts, 1, &[EXIT]);
    start(&mut facts, 2, &[]);
    start(&mut facts, 3, &[EXIT, ("egress.rate", "20Mbit")]);
    start(&mut facts, 4, &[("egress.ip", "172.31.0.14,172.31.0.8"), ("egress.spread", "round-robin")]);
    start(&mut facts, 5, &[EXIT, ("egress.to", "10.0.0.0/8")]);
    start(&mut facts, 6, &[EXIT, ("egress.publish", "80:8080/tcp")]);
    start(&mut facts, 7, &[("egress.ip", "172.31.0.99")]);
    assert_eq!(ports(&facts), [101]);
}

#[test]
fn a_link_that_cannot_be_a_device_keeps_its_flows_out() {
    let changes: [fn(&mut Facts); 4] = [
        |facts| facts.kernel.links.get_mut(&101).unwrap().up = false,
        |facts| facts.kernel.links.get_mut(&101).unwrap().peer_nsid = None,
        |facts| facts.kernel.links.get_mut(&ETH1).unwrap().no_arp = true,
        |facts| facts.kernel.links.get_mut(&ETH1).unwrap().kind = LinkKind::Wireguard,
    ];
    for change in changes {
        let mut facts = host();
        start(&mut facts, 1, &[EXIT]);
        assert_eq!(ports(&facts), [101]);
        change(&mut facts);
        assert_eq!(ports(&facts), [0; 0]);
    }
}

#[test]
fn no_more_devices_than_fit_into_a_message() {
    let mut facts = host();
    (1..=200).for_each(|n| start(&mut facts, n, &[EXIT]));
    let wanted = of(&facts);
    assert_eq!(wanted.ports.len(), MOST_DEVICES - 1, "and the NIC");
    let all: BTreeMap<IfIndex, Mac> = wanted.ports.keys().map(|port| (*port, mac(*port as u8))).collect();
    let devices = wanted.table(&all).into_iter().find_map(|change| match change {
        Change::AddFlowtable(_, _, flowtable) => Some(flowtable.devices.len()),
        _ => None,
    });
    assert_eq!(devices, Some(MOST_DEVICES));
}

#[test]
fn a_hardware_address_is_pinned_only_where_nobody_is_cut_off_by_that() {
    let mut facts = host();
    (1..=4).for_each(|n| start(&mut facts, n, &[EXIT]));
    let wanted = of(&facts);
    let far: BTreeMap<IfIndex, Mac> = (1..=4).map(|n| (100 + IfIndex::from(n), mac(n))).collect();
    let pinned = |far: &BTreeMap<IfIndex, Mac>, database: &[Forwarding]| wanted.pins(far, database).into_keys().collect::<Vec<_>>();
    assert_eq!(pinned(&far, &[]), [101, 102, 103, 104]);
    assert_eq!(pinned(&far, &[at(mac(1), 101), at(mac(9), 7)]), [101, 102, 103, 104], "where it is");
    assert_eq!(pinned(&far, &[at(mac(1), 7)]), [102, 103, 104], "somebody has sent from it elsewhere");
    assert_eq!(pinned(&far, &[Forwarding { local: true, ..at(mac(2), 102) }]), [101, 103, 104], "the host's own");
    let twice = [far.clone(), [(7, mac(3))].into()].into_iter().flatten().collect();
    assert_eq!(pinned(&twice, &[]), [101, 102, 104], "two ends have it");
    let group = [far.clone(), [(104, Mac([1, 0, 0, 0, 0, 4]))].into()].into_iter().flatten().collect();
    assert_eq!(pinned(&group, &[]), [101, 102, 103], "nobody's own");
    let (one, there) = ([(101, mac(1))].into(), at(mac(1), 101));
    assert!(!are_pinned(&one, &[there]) && are_pinned(&one, &[Forwarding { pinned: true, ..there }]));
}

#[test]
fn it_is_one_table_with_ports_and_nics_as_devices_and_never_a_bridge() {
    let mut facts = host();
    (1..=2).for_each(|n| start(&mut facts, n, &[EXIT]));
    let table = of(&facts).table(&[(101, mac(1))].into());
    let words: Vec<String> = table.iter().filter(|change| !matches!(change, Change::AddRule(..))).map(ToString::to_string).collect();
    let expected = [
        "add table inet egressd",
        "add flowtable inet flows of 2 devices",
        "add chain inet forward",
        "add set inet frames",
        "add set inet sources4",
        "add set inet exits4",
        "add set inet sources6",
        "add set inet exits6",
        "add 1 elements to set inet frames",
        "add 1 elements to set inet sources4",
        "add 1 elements to set inet exits4",
    ];
    assert_eq!(words, expected);
    assert!(table.iter().any(|change| matches!(change, Change::AddFlowtable(_, _, flows) if flows.devices == ["veth1", "eth1"])));
    let adds = |change: &&Change| matches!(change, Change::AddRule(_, _, rule) if matches!(rule.exprs.last(), Some(Expr::Offload(_))));
    assert_eq!((table.iter().filter(adds).count(), trial().iter().filter(adds).count()), (2, 2));
    assert!(of(&facts).table(&BTreeMap::new()).is_empty(), "nothing is pinned");
}
