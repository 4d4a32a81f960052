//! What follows from one fact for the others.

use super::*;

fn veth(index: IfIndex, far: Place) -> Link {
    let made = Link::new(index, format!("veth{index}"), LinkKind::Veth);
    Link { peer_nsid: far.nsid, peer_index: Some(far.index), up: true, carrier: true, ..made }
}

#[test]
fn a_link_that_goes_late_does_not_take_its_successor_s_address_along() {
    let far = Place { nsid: Some(0), index: 2 };
    let address = Address::new("10.9.0.5/24".parse().unwrap());
    let mut facts = KernelFacts::default();
    facts.apply(KernelChange::Link(veth(4, far)));
    facts.apply(KernelChange::Link(veth(5, far)));
    facts.apply(KernelChange::Address(far, address));
    facts.apply(KernelChange::LinkGone(4));
    let near: Vec<_> = facts.near_ends_of(address.net.addr()).map(|link| link.index).collect();
    assert_eq!(near, [5]);
    facts.apply(KernelChange::LinkGone(5));
    assert!(facts.addresses.is_empty());
}

#[test]
fn an_address_that_is_there_with_two_prefix_lengths_stays_until_both_are_gone() {
    let place = Place { nsid: None, index: 2 };
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    let mut facts = KernelFacts::default();
    facts.apply(KernelChange::Link(Link::new(2, "eth1", LinkKind::Other(String::new()))));
    for prefix in ["10.1.0.14/24", "10.1.0.14/32"] {
        assert!(facts.apply(KernelChange::Address(place, Address::new(net(prefix)))));
    }
    assert!(facts.apply(KernelChange::AddressGone(place, net("10.1.0.14/32"))));
    let held = |facts: &KernelFacts| facts.own_links_with(net("10.1.0.14/32").addr()).count();
    assert_eq!(held(&facts), 1);
    assert_eq!(facts.addresses_at(place).map(|a| a.net).collect::<Vec<_>>(), [net("10.1.0.14/24")]);
    assert!(!facts.apply(KernelChange::AddressGone(place, net("10.1.0.14/32"))));
    assert!(facts.apply(KernelChange::AddressGone(place, net("10.1.0.14/24"))));
    assert_eq!(held(&facts), 0);
    assert!(facts.addresses.is_empty());
}

#[test]
fn what_is_said_again_is_not_new() {
    let far = Place { nsid: Some(0), index: 2 };
    let address = |net: &str, usable| KernelChange::Address(far, Address { usable, ..Address::new(net.parse().unwrap()) });
    let named = |number| KernelChange::Namespaces([("pod".to_owned(), number)].into());
    let mut facts = KernelFacts::default();
    let mut new = |change: KernelChange| {
        let before = facts.clone();
        let new = facts.apply(change);
        assert_eq!(new, before != facts, "{facts:?}");
        new
    };
    let down = Link { up: false, ..veth(4, far) };
    for change in [KernelChange::Link(veth(4, far)), address("10.9.0.5/24", false), address("10.9.0.5/24", true), named(0), named(1)] {
        assert!(new(change.clone()), "{change:?}");
        assert!(!new(change.clone()), "{change:?}");
    }
    assert!(new(KernelChange::Link(down)));
    assert!(new(KernelChange::AddressGone(far, "10.9.0.5/24".parse().unwrap())));
    assert!(!new(KernelChange::AddressGone(far, "10.9.0.5/24".parse().unwrap())));
    assert!(new(address("10.9.0.6/24", true)));
    assert!(new(KernelChange::LinkGone(4)));
    assert!(!new(KernelChange::LinkGone(4)));
}
