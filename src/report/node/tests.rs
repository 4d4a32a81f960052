//! What a node tells of its workloads.

use std::sync::Arc;

use super::*;
use crate::model::binding::{Asked, Binding, Placement, Selector};
use crate::model::facts::Family;
use crate::model::labels::LabelSelector;
use crate::model::pod::Pod;
use crate::model::select::Held;
use crate::model::uplinks::outside::MAIN;
use crate::model::uplinks::{Exit, Uplink};
use crate::model::ways::{Gateway, Way, WayKey};
use crate::model::workload::Entry;

fn held(source: Source, name: &str) -> Held {
    let selector = Selector::Pods { namespace: "shop".to_owned(), labels: LabelSelector::default() };
    let binding = Binding::plain(source, name, selector);
    Held::Label(Arc::new(Asked { binding: Some(binding), placement: Placement::default() }))
}

fn row(pod: &str, address: &str, binding: &Held, state: State) -> Row {
    let pod = Pod { uid: pod.to_owned(), namespace: "shop".to_owned(), name: pod.to_owned(), ..Pod::default() };
    Row {
        subject: Subject::Pod(Arc::new(pod)),
        network: None,
        default_route: false,
        address: Some(address.parse::<IpAddr>().expect("an address").into()),
        entry: Some(Entry::Port { port: 11, bridge: 10 }),
        binding: Some(binding.clone()),
        losers: Vec::new(),
        beside: Vec::new(),
        state,
    }
}

fn bound() -> State {
    State::Bound(Exit { address: "172.31.0.14".parse().expect("an address"), interface: 3, way: 1, ports: None })
}

fn outcome(rows: Vec<Row>) -> Outcome {
    let uplink = |index, name: &str| Uplink {
        index,
        name: name.to_owned(),
        up: true,
        group: 0,
        addresses: vec!["172.31.0.14".parse().expect("an address")],
        way: Some(1),
        holds_exit: true,
    };
    let gateway = Gateway { address: Some("172.31.0.1".parse().expect("an address")), onlink: false, mtu: None, table: MAIN };
    let way = Way { key: WayKey::own(3), number: 1, up: true, gateways: [(Family::V4, gateway)].into() };
    let mut outcome = Outcome { rows, ..Outcome::default() };
    outcome.uplinks.nics = [(2, uplink(2, "eth2")), (3, uplink(3, "eth1"))].into();
    outcome.uplinks.ways = [(1, way)].into();
    outcome
}

fn report(rows: Vec<Row>) -> EgressNodeSpec {
    spec(&Facts::default(), &outcome(rows), [])
}

#[test]
fn pods_are_counted_and_not_their_addresses() {
    let crawler = held(Source::Api, "shop/crawler");
    let spec = report(vec![row("a", "10.0.0.1", &crawler, bound()), row("a", "fd00::1", &crawler, bound())]);
    assert_eq!((spec.bindings[0].workloads, spec.bindings[0].programmed), (1, 1));
    assert_eq!((spec.bound, spec.failing), (1, 0));
}

#[test]
fn a_family_without_an_exit_fails_only_a_pod_that_has_no_other() {
    let crawler = held(Source::Api, "shop/crawler");
    let without = || State::Dropped(Reason::NoExitInFamily(Family::V6));
    let both = report(vec![row("a", "10.0.0.1", &crawler, bound()), row("a", "fd00::1", &crawler, without())]);
    assert_eq!((both.bound, both.failing), (1, 0));
    let one = report(vec![row("a", "fd00::1", &crawler, without())]);
    assert_eq!((one.bound, one.failing), (0, 1));
    assert_eq!(one.bindings[0].reason.as_deref(), Some("NoExitInFamily"));
}

#[test]
fn a_pod_without_an_address_yet_neither_fails_nor_is_bound() {
    let crawler = held(Source::Api, "shop/crawler");
    let spec = report(vec![row("a", "10.0.0.1", &crawler, State::Waiting(Reason::NoAddressYet))]);
    let binding = &spec.bindings[0];
    assert_eq!((binding.workloads, binding.programmed, binding.failing, &binding.reason), (1, 0, 0, &None));
}

#[test]
fn an_address_that_no_interface_shows_yet_is_not_in_force() {
    let unseen = Row { entry: None, ..row("a", "10.0.0.1", &held(Source::Api, "shop/crawler"), bound()) };
    assert_eq!(report(vec![unseen]).bound, 0);
}

#[test]
fn the_report_does_not_depend_on_the_order_of_rows() {
    let (crawler, mail) = (held(Source::Api, "shop/crawler"), held(Source::Api, "shop/mail"));
    let dropped = |reason| State::Dropped(reason);
    let mut rows = vec![
        row("a", "10.0.0.1", &crawler, dropped(Reason::NoExitOnNode)),
        row("b", "10.0.0.2", &crawler, dropped(Reason::InterfaceDown { interface: "eth1".to_owned() })),
        row("c", "10.0.0.3", &mail, bound()),
        row("d", "10.0.0.4", &crawler, bound()),
    ];
    let forward = report(rows.clone());
    rows.reverse();
    assert_eq!(report(rows), forward);
    let names: Vec<&str> = forward.bindings.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["crawler", "mail"]);
    assert_eq!((forward.bindings[0].failing, forward.bindings[0].reason.as_deref()), (2, Some("InterfaceDown")));
}

#[test]
fn bindings_of_files_and_labels_count_for_the_node_and_have_no_entry() {
    let spec = report(vec![row("a", "10.0.0.1", &held(Source::Label, "web"), bound())]);
    assert_eq!((spec.bindings, spec.bound), (Vec::new(), 1));
}

#[test]
fn a_binding_that_comes_second_is_told_who_has_its_workloads() {
    let (crawler, mail) = (held(Source::Api, "shop/crawler"), held(Source::Api, "shop/mail"));
    let lost = |winner: &Held, loser: &Held, pod, state| Row { losers: vec![loser.name.clone()], ..row(pod, "10.0.0.1", winner, state) };
    let spec = report(vec![lost(&crawler, &mail, "a", bound())]);
    let loser = &spec.bindings[1];
    assert_eq!((loser.name.as_str(), loser.workloads, loser.failing, loser.reason.as_deref()), ("mail", 0, 0, Some("Overlap")));
    let message = loser.message.as_deref().expect("it says why");
    assert!(message.contains("is bound by EgressBinding shop/crawler, which takes precedence; raise priority"), "{message}");
    assert_eq!((spec.bound, spec.failing, &spec.bindings[0].reason), (1, 0, &None));
    // What is wrong with those that it has comes first.
    let own = row("b", "10.0.0.2", &mail, State::Dropped(Reason::NoExitOnNode));
    assert_eq!(report(vec![lost(&crawler, &mail, "a", bound()), own]).bindings[1].reason.as_deref(), Some("NoExitOnNode"));
}

#[test]
fn a_nic_is_there_with_the_exits_that_are_in_use_as_long_as_it_is_needed() {
    let spec = report(vec![row("a", "10.0.0.1", &held(Source::Api, "shop/crawler"), bound())]);
    let exits: Vec<(&str, usize)> = spec.nics.iter().map(|nic| (nic.name.as_str(), nic.exits.len())).collect();
    assert_eq!(exits, [("eth1", 1), ("eth2", 0)]);
    assert_eq!(spec.nics[0].gateways, ["172.31.0.1".parse::<IpAddr>().expect("an address")]);
}

#[test]
fn no_more_problems_are_told_than_the_schema_lets_through() {
    let problems = (0..100).map(|at| format!("problem {at:03}"));
    let spec = spec(&Facts::default(), &outcome(Vec::new()), problems);
    assert_eq!(spec.problems.len(), 32);
    assert_eq!(spec.problems[0], "problem 000");
}
