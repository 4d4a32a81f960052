//! What a container's story adds up to, whatever order events and answers come in.

use std::collections::BTreeMap;

use super::*;
use crate::facts::docker::wire::Broken;

fn state() -> EngineState {
    EngineState::new(Arc::new(|_| None))
}

fn known(containers: Vec<Listed>) -> EngineState {
    let mut state = state();
    state.begin();
    state.restart(everything(containers));
    state
}

fn everything(containers: Vec<Listed>) -> Everything {
    Everything {
        containers: List { entries: containers, broken: vec![] },
        networks: List { entries: vec![network("n1", "shop")], broken: vec![] },
    }
}

fn network(id: &str, name: &str) -> Network {
    Network {
        id: id.to_owned(),
        name: name.to_owned(),
        driver: "bridge".to_owned(),
        bridge: Some(format!("br-{id}")),
        subnets: vec![],
        internal: false,
        managed: false,
        guard: None,
        problems: vec![],
    }
}

fn listed(running: bool, address: Option<&str>) -> Listed {
    Listed {
        id: "c1".to_owned(),
        name: "web".to_owned(),
        labels: BTreeMap::from([("tier".to_owned(), "web".to_owned())]),
        network_mode: "shop".to_owned(),
        created: 1,
        running,
        published: vec![],
        attachments: vec![Attachment {
            network_id: String::new(),
            network: "shop".to_owned(),
            addresses: address.into_iter().map(ip).collect(),
            gateway_priority: 0,
        }],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn died() -> Event {
    Event::Died("c1".to_owned())
}

fn connect(state: &mut EngineState) -> Endpoint {
    let event =
        Event::Connected { container: "c1".to_owned(), network: "n1".to_owned(), name: "shop".to_owned(), driver: "bridge".to_owned() };
    match state.event(event).asks.into_iter().next() {
        Some(Ask::Addresses(endpoint)) => endpoint,
        other => panic!("not asked for addresses: {other:?}"),
    }
}

fn relisted(state: &mut EngineState, era: u32, settled: bool, one: Listed) -> Followup {
    state.relisted(vec![Asked { id: "c1".to_owned(), era, settled }], List { entries: vec![one], broken: vec![] })
}

/// What is told of the container, if it is.
fn told(followup: &Followup) -> Option<(bool, Vec<IpAddr>)> {
    followup.changes.iter().find_map(|change| match change {
        EngineChange::Container(one) => Some((one.running, one.attachments.iter().flat_map(|a| a.addresses.clone()).collect())),
        _ => None,
    })
}

fn doubted(followup: &Followup) -> Endpoint {
    match followup.asks.as_slice() {
        [Ask::Addresses(endpoint)] if endpoint.doubted => endpoint.clone(),
        other => panic!("the network is not asked: {other:?}"),
    }
}

#[test]
fn an_address_that_an_event_brought_outlives_a_list_that_lags() {
    let mut state = known(vec![listed(false, None)]);
    let endpoint = connect(&mut state);
    let followup = state.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!((told(&followup), followup.asks), (Some((true, vec![ip("10.0.0.2")])), vec![]));
    let era = state.era("c1");
    assert_eq!(relisted(&mut state, era, false, listed(false, None)), Followup::default());
}

#[test]
fn an_answer_that_is_older_than_the_end_says_nothing() {
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    let (endpoint, era) = (connect(&mut state), state.era("c1"));
    assert_eq!(told(&state.event(died())), Some((false, vec![])));
    let late = state.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(late, Followup::ask(Ask::ContainerLater("c1".to_owned())));
    assert_eq!(relisted(&mut state, era, false, listed(true, Some("10.0.0.2"))), Followup::default());
}

#[test]
fn whoever_leaves_one_of_two_networks_keeps_the_addresses_on_the_other() {
    let mut one = listed(true, Some("10.0.0.2"));
    one.attachments[0].network_id = "n1".to_owned();
    let other = ("n2".to_owned(), "other".to_owned(), vec![ip("10.1.0.2")]);
    one.attachments.push(Attachment { network_id: other.0, network: other.1, addresses: other.2, gateway_priority: 0 });
    let mut state = known(vec![one]);
    let left = state.event(Event::Disconnected { container: "c1".to_owned(), network: "n1".to_owned() });
    assert_eq!(told(&left), Some((true, vec![ip("10.1.0.2")])));
}

#[test]
fn a_container_whose_address_comes_before_its_labels_is_told_once_with_both() {
    let mut state = known(vec![]);
    let endpoint = connect(&mut state);
    let early = state.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(early, Followup::ask(Ask::Container("c1".to_owned())));
    assert_eq!(told(&relisted(&mut state, 0, false, listed(false, None))), Some((true, vec![ip("10.0.0.2")])));
}

#[test]
fn labels_are_parsed_once_for_a_name() {
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = calls.clone();
    let mut state = EngineState::new(Arc::new(move |container| {
        assert_eq!(container.labels["tier"], "web");
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    }));
    state.restart(everything(vec![listed(false, None)]));
    relisted(&mut state, 0, false, listed(true, Some("10.0.0.2")));
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    let renamed = Listed { name: "shop".to_owned(), ..listed(true, Some("10.0.0.2")) };
    assert!(told(&relisted(&mut state, 0, false, renamed)).is_some());
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn only_a_container_that_was_told_of_is_said_to_be_gone() {
    let mut state = known(vec![]);
    let endpoint = connect(&mut state);
    state.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    let is_gone = |state: &mut EngineState| {
        let asked = vec![Asked { id: "c1".to_owned(), era: state.era("c1"), settled: false }];
        state.relisted(asked, List { entries: vec![], broken: vec![] }).changes
    };
    assert_eq!(is_gone(&mut state), []);
    relisted(&mut state, 0, false, listed(false, None));
    assert_eq!(is_gone(&mut state), [EngineChange::ContainerGone("c1".to_owned())]);
}

#[test]
fn an_end_is_believed_once_the_engine_has_been_asked() {
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    assert_eq!(state.event(Event::Destroyed("c1".to_owned())), Followup::ask(Ask::Container("c1".to_owned())));
    assert_eq!(state.event(Event::NetworkDestroyed("n1".to_owned())), Followup::ask(Ask::Network("n1".to_owned())));
    assert_eq!(state.network_found("n1", None), Some(EngineChange::NetworkGone("n1".to_owned())));
}

#[test]
fn a_start_that_was_under_way_before_anybody_listened_is_found_on_the_network() {
    let mut state = state();
    state.begin();
    let endpoint = doubted(&state.restart(everything(vec![listed(false, None)])));
    let followup = state.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(told(&followup), Some((true, vec![ip("10.0.0.2")])));
    let mut state = known(vec![listed(false, None)]);
    assert_eq!(state.addresses(&endpoint, None), Followup::default(), "it was not");
}

#[test]
fn an_event_from_before_the_first_list_is_a_question_and_changes_nothing() {
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    assert_eq!(state.doubt(died()), Some(Ask::ContainerLater("c1".to_owned())));
    assert_eq!(state.doubt(Event::Destroyed("c1".to_owned())), Some(Ask::Container("c1".to_owned())));
    assert_eq!(state.doubt(Event::NetworkDestroyed("n1".to_owned())), Some(Ask::Network("n1".to_owned())));
    assert_eq!(relisted(&mut state, 0, true, listed(true, Some("10.0.0.2"))), Followup::default());
}

#[test]
fn an_end_that_nobody_told_of_is_found_by_the_next_list_and_the_network() {
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    state.begin();
    let followup = state.everything(everything(vec![listed(false, None)]));
    let endpoint = doubted(&followup);
    assert_eq!(told(&followup), None, "the list may lag behind a start");
    assert_eq!(told(&state.addresses(&endpoint, None)), Some((false, vec![])));
    state.begin();
    assert_eq!(state.everything(everything(vec![])).changes, [EngineChange::ContainerGone("c1".to_owned())]);
}

#[test]
fn what_is_heard_while_everything_is_listed_is_newer_than_the_list() {
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    state.begin();
    state.event(died());
    state.event(Event::NetworkDestroyed("n1".to_owned()));
    assert_eq!(state.everything(everything(vec![listed(true, Some("10.0.0.2"))])), Followup::default());
    state.begin();
    state.event(Event::Created { id: "c2".to_owned(), name: "new".to_owned(), labels: BTreeMap::new() });
    state.relisted(
        vec![Asked { id: "c2".to_owned(), era: 0, settled: false }],
        List { entries: vec![Listed { id: "c2".to_owned(), ..listed(false, None) }], broken: vec![] },
    );
    let gone = state.everything(everything(vec![])).changes;
    assert!(gone.contains(&EngineChange::ContainerGone("c1".to_owned())), "{gone:?}");
    assert!(!gone.contains(&EngineChange::ContainerGone("c2".to_owned())), "it was made after the list was asked for: {gone:?}");
}

#[test]
fn a_network_that_is_not_known_is_asked_for_once() {
    let mut state = known(vec![]);
    let on = |network: &str| {
        let mut one = listed(true, Some("10.0.0.2"));
        one.attachments[0].network_id = network.to_owned();
        one
    };
    assert_eq!(relisted(&mut state, 0, false, on("n2")).asks, [Ask::Network("n2".to_owned())]);
    assert_eq!(relisted(&mut state, 0, false, on("n2")).asks, []);
    assert!(matches!(state.network_found("n2", Some(network("n2", "new"))), Some(EngineChange::Network(_))));
}

#[test]
fn an_entry_that_cannot_be_read_is_told_by_name_and_what_was_known_of_it_stays() {
    let broken = || vec![Broken { id: "c1".to_owned(), name: "web".to_owned(), error: "no string".to_owned() }];
    let mut state = known(vec![listed(true, Some("10.0.0.2"))]);
    state.begin();
    let mut odd = everything(vec![]);
    odd.containers.broken = broken();
    let followup = state.everything(odd);
    let [EngineChange::Problems(problems)] = followup.changes.as_slice() else { panic!("{:?}", followup.changes) };
    assert!(problems["container web"].contains("no string"), "{problems:?}");
    let followup = relisted(&mut state, 0, false, listed(true, Some("10.0.0.2")));
    assert_eq!(followup.changes, [EngineChange::Problems(BTreeMap::new())], "it can be read again");
}

#[test]
fn a_network_that_does_not_answer_is_a_problem_until_it_does() {
    let mut state = known(vec![]);
    let said = state.network_answers("n1", Some("slow".to_owned()));
    assert!(matches!(&said, Some(EngineChange::Problems(problems)) if problems["network shop"].contains("slow")), "{said:?}");
    assert_eq!(state.network_answers("n1", None), Some(EngineChange::Problems(BTreeMap::new())));
    assert_eq!(state.network_answers("n1", None), None);
}
