//! Networks that are not known, lead nowhere, or have no bridge here: nobody is shown as bound there, and everybody has a row.

use super::*;

const ASKS: [(&str, &str); 1] = [("egress.ip", "172.31.0.14")];

/// The only row's state, as machines read it, and its sentence.
fn only(facts: &Facts) -> (&'static str, String) {
    let rows = resolve(facts, &mut Past::default()).rows;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let reason = row.state.reason().unwrap_or_else(|| panic!("{row:?}"));
    (reason.word(), reason.to_string())
}

fn change(facts: &mut Facts, change: impl FnOnce(&mut Network)) {
    let mut network = Network::clone(&facts.networks["net"]);
    change(&mut network);
    facts.apply(EngineChange::Network(Box::new(network)));
}

#[test]
fn a_container_on_a_network_that_is_not_known_waits_and_says_which() {
    let mut facts = host();
    start(&mut facts, 1, &ASKS);
    assert!(matches!(resolve(&facts, &mut Past::default()).rows[0].state, State::Bound(_)));
    facts.apply(EngineChange::NetworkGone("net".to_owned()));
    let (word, sentence) = only(&facts);
    assert_eq!((word, sentence.contains("eip_bridge")), ("NoSuchNetwork", true), "{sentence}");
}

#[test]
fn a_container_that_runs_on_no_network_at_all_has_a_row() {
    let mut facts = host();
    let lonely = Container { attachments: Vec::new(), ..container(1, &ASKS) };
    facts.apply(EngineChange::Container(Box::new(lonely)));
    assert_eq!(only(&facts).0, "NoAddressYet");
}

#[test]
fn an_internal_network_is_refused_and_another_one_beside_it_is_not() {
    let mut facts = host();
    start(&mut facts, 1, &ASKS);
    let inner = Network { id: "inner".to_owned(), name: "inner".to_owned(), internal: true, ..Network::clone(&facts.networks["net"]) };
    facts.apply(EngineChange::Network(Box::new(inner)));
    let mut both = container(1, &ASKS);
    let address = vec![IpAddr::from([10, 9, 0, 1])];
    both.attachments.push(Attachment {
        network_id: "inner".to_owned(),
        network: "inner".to_owned(),
        addresses: address,
        gateway_priority: 0,
    });
    facts.apply(EngineChange::Container(Box::new(both)));
    let rows = resolve(&facts, &mut Past::default()).rows;
    let states: Vec<_> = rows.iter().map(|row| (row.network.as_deref().unwrap_or_default(), &row.state)).collect();
    assert!(matches!(states.as_slice(), [("eip_bridge", State::Bound(_)), ("inner", State::Refused(_))]), "{states:?}");
    change(&mut facts, |network| network.internal = true);
    let rows = resolve(&facts, &mut Past::default()).rows;
    assert!(rows.iter().all(|row| matches!(row.state, State::Refused(_))), "{rows:?}");
}

#[test]
fn a_network_whose_bridge_is_not_on_this_host_says_so() {
    let mut facts = host();
    start(&mut facts, 1, &ASKS);
    change(&mut facts, |network| network.bridge = Some("podman1".to_owned()));
    let (word, sentence) = only(&facts);
    assert_eq!((word, sentence.contains("podman1")), ("NoSuchBridge", true), "{sentence}");
    change(&mut facts, |network| network.bridge = None);
    let (word, sentence) = only(&facts);
    assert_eq!((word, sentence.contains("does not report the bridge")), ("NoSuchBridge", true), "{sentence}");
}

#[test]
fn a_network_that_a_bound_container_is_being_connected_to_is_guarded_and_who_is_known_there_goes_on() {
    let mut facts = host();
    start(&mut facts, 1, &ASKS);
    const OTHER: IfIndex = 10;
    facts.kernel.apply(KernelChange::Link(link(OTHER, "other_bridge", LinkKind::Bridge)));
    let other = Network {
        id: "other".to_owned(),
        name: "other".to_owned(),
        bridge: Some("other_bridge".to_owned()),
        ..Network::clone(&facts.networks["net"])
    };
    facts.apply(EngineChange::Network(Box::new(other)));
    let mut free = container(2, &[]);
    free.network_mode = "other".to_owned();
    free.attachments[0] = Attachment { network_id: "other".to_owned(), network: "other".to_owned(), ..free.attachments[0].clone() };
    let veth = |port: IfIndex, nsid: i32, at: IfIndex| Link {
        master: Some(OTHER),
        peer_nsid: Some(nsid),
        peer_index: Some(at),
        ..link(port, &format!("veth{port}"), LinkKind::Veth)
    };
    facts.kernel.apply(KernelChange::Link(veth(202, 2, 2)));
    facts.kernel.apply(KernelChange::Address(Place { nsid: Some(2), index: 2 }, Address::new("172.19.0.2/16".parse().unwrap())));
    facts.apply(EngineChange::Container(Box::new(free)));
    assert_eq!(resolve(&facts, &mut Past::default()).guards.get(&OTHER), None, "nobody on it is bound");
    // The engine tells of it later.
    facts.kernel.apply(KernelChange::Link(veth(201, 1, 3)));
    let outcome = resolve(&facts, &mut Past::default());
    assert_eq!(outcome.guards.get(&OTHER), Some(&Guard::Closed));
    let known = outcome.rows.iter().any(|row| row.state == State::Free && row.entry.is_some_and(|entry| entry.link() == 202));
    assert!(known, "{:?}", outcome.rows);
    // A bridge that is no engine's is nobody's to guard.
    facts.apply(EngineChange::NetworkGone("other".to_owned()));
    assert_eq!(resolve(&facts, &mut Past::default()).guards.get(&OTHER), None);
}
