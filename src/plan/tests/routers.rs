//! Which router an exit has, where its NIC has several.

use super::*;
use crate::model::reason::Reason;

fn gateway(facts: &Facts, past: &mut Past) -> (String, Vec<String>) {
    let outcome = resolve(facts, past);
    let State::Bound(exit) = &outcome.rows[0].state else { panic!("{:?}", outcome.rows) };
    let gateway = outcome.uplinks.gateway(exit).and_then(|gateway| gateway.address).expect("it has one");
    (gateway.to_string(), outcome.uplinks.gateways.keys().map(|(_, asked)| asked.to_string()).collect())
}

/// As a lease of DHCP makes it, the first route says whose it is.
#[test]
fn another_router_of_the_link_stands_in_for_a_dead_one_and_both_are_asked() {
    let (mut facts, mut past) = (host(), Past::default());
    let by = |router: &str, metric| Route { metric, ..route("0.0.0.0/0", Some(router), ETH1) };
    let first = Route { source: "172.31.0.14".parse().ok(), ..by("172.31.0.1", 10) };
    facts.kernel.routes.extend([first, by("172.31.0.2", 20), by("10.9.9.9", 15)]);
    start(&mut facts, 4, &[("egress.ip", "172.31.0.14")]);
    let both = vec!["172.31.0.1".to_owned(), "172.31.0.2".to_owned()];
    assert_eq!(gateway(&facts, &mut past), ("172.31.0.1".to_owned(), both.clone()));
    let [one, other] = ["172.31.0.1", "172.31.0.2"].map(|router| (ETH1, router.parse().expect("an address")));
    let is_dead = |facts: &Facts, past: &mut Past| {
        let outcome = resolve(facts, past);
        assert_eq!(outcome.uplinks.gateways.len(), 2, "who is not asked would be forgotten");
        matches!(&outcome.rows[0].state, State::Dropped(Reason::GatewayDead { .. }))
    };
    facts.answers.note(one, true);
    assert!(is_dead(&facts, &mut past), "who has never answered stands in for nobody");
    facts.answers.note(other, false);
    assert_eq!(gateway(&facts, &mut past), ("172.31.0.2".to_owned(), both));
    facts.answers.note(other, true);
    assert!(is_dead(&facts, &mut past), "it is as dead as the first one");
    facts.answers.note(one, false);
    assert_eq!(gateway(&facts, &mut past).0, "172.31.0.1");
}

/// A route that went with its link does not come back with it; the next run knows it by the table of the one before.
#[test]
fn a_remembered_gateway_outlives_a_restart_and_a_deleted_one_does_not() {
    let (mut facts, mut past) = (host(), Past::default());
    facts.kernel.routes.push(Route { metric: 10, ..route("0.0.0.0/0", Some("172.31.0.1"), ETH1) });
    start(&mut facts, 4, &[("egress.ip", "172.31.0.14")]);
    let ours = |facts: &Facts, past: &mut Past| {
        let outcome = resolve(facts, past);
        Routing::desired(&outcome, &facts.kernel).routes
    };
    let with_route = ours(&facts, &mut past);
    facts.kernel.routes.retain(|route| route.destination.prefix_len() > 0);
    let mut gone = facts.clone();
    gone.kernel.routes.extend(with_route);
    let mut next = Past::default();
    read_back(&Ruleset::default(), &gone.kernel, &mut next);
    assert!(matches!(&resolve(&gone, &mut next).rows[0].state, State::Dropped(_)), "it was deleted while nobody looked");
    // The link takes it along while the daemon runs.
    let link = facts.kernel.links[&ETH1].clone();
    facts.kernel.apply(KernelChange::Link(Link { up: false, ..link.clone() }));
    facts.kernel.apply(KernelChange::Link(link));
    let remembered = ours(&facts, &mut past);
    facts.kernel.routes.extend(remembered);
    let mut next = Past::default();
    read_back(&Ruleset::default(), &facts.kernel, &mut next);
    assert_eq!(gateway(&facts, &mut next).0, "172.31.0.1");
}
