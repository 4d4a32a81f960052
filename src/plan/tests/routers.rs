//! Which router an exit has, where its NIC has several.

use super::*;

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
    assert_eq!(gateway(&facts, &mut past), ("172.31.0.1".to_owned(), vec!["172.31.0.1".to_owned()]));
    let dead = (ETH1, "172.31.0.1".parse().expect("an address"));
    facts.answers.note(dead, true);
    let both = vec!["172.31.0.1".to_owned(), "172.31.0.2".to_owned()];
    assert_eq!(gateway(&facts, &mut past), ("172.31.0.2".to_owned(), both));
    facts.answers.note(dead, false);
    assert_eq!(gateway(&facts, &mut past).0, "172.31.0.1");
}
