//! The way to what is inside behind other nodes, from the addresses that are exits.

use super::*;
use crate::contract::{OWN_MARK, PREFERENCE_FROM_INSIDE, PREFERENCE_FROM_WAY, PREFERENCE_WAY, TABLE_NODES};
use crate::model::cluster::ClusterChange;

const PODS: &str = "10.244.2.0/24";

/// A node whose eth1 is an exit, in a cluster of which this is inside.
fn node(inside: &[&str], routes: Vec<Route>) -> Facts {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    facts.cluster.apply(ClusterChange::Inside(inside.iter().map(|net| net.parse().expect("a net")).collect()));
    facts.kernel.routes.extend(routes);
    facts
}

fn to_pods() -> Route {
    route(PODS, Some("172.31.0.9"), ETH0)
}

fn desired(facts: &Facts) -> Routing {
    Routing::desired(&resolve(facts, &mut Past::default()), &facts.kernel)
}

/// Destinations, gateways and metrics of the table's routes.
fn ways(facts: &Facts) -> Vec<(String, String, u32)> {
    let routing = desired(facts);
    let of_nodes = routing.routes.iter().filter(|r| r.table == TABLE_NODES);
    of_nodes.map(|r| (r.destination.to_string(), r.gateway.map_or_else(String::new, |g| g.to_string()), r.metric)).collect()
}

fn by_nodes(routing: &Routing) -> Vec<&Rule> {
    routing.rules.iter().filter(|r| r.table == TABLE_NODES).collect()
}

#[test]
fn from_an_exit_the_pods_of_another_node_are_reached_as_main_has_it_whatever_nic_the_exit_is_on() {
    let facts = node(&["10.244.0.0/16"], vec![to_pods()]);
    let routing = desired(&facts);
    assert_eq!(ways(&facts), [(PODS.to_owned(), "172.31.0.9".to_owned(), 0)]);
    let rules = by_nodes(&routing);
    assert_eq!(rules.iter().map(|r| r.from).collect::<Vec<_>>(), ["172.31.0.14/32".parse().ok()]);
    let at = rules[0].preference;
    // Bridges and overlays may have something more specific. What bears a mark never gets there: an answer leaves as its call came in.
    assert!([PREFERENCE_WAY, PREFERENCE_FROM_INSIDE, at, PREFERENCE_FROM_WAY].is_sorted_by(|a, b| a < b), "{at}");
}

#[test]
fn a_nic_s_own_table_leads_out_by_that_nic_only() {
    let facts = node(&["10.244.0.0/16", "172.31.0.0/16"], vec![to_pods()]);
    let outcome = resolve(&facts, &mut Past::default());
    let routing = Routing::desired(&outcome, &facts.kernel);
    for way in outcome.uplinks.ways.values() {
        let mut by = routing.routes.iter().filter(|r| r.table == way.table()).filter_map(|r| r.interface);
        assert!(by.all(|nic| nic == way.key.nic), "{:?}: {:#?}", way.key, routing.routes);
    }
}

#[test]
fn what_is_on_the_link_a_single_host_or_outside_goes_by_the_exit_s_nic() {
    let others = vec![
        route("10.50.0.0/16", Some("172.31.0.1"), ETH0),
        route("172.31.0.9/32", Some("172.31.0.1"), ETH0),
        route("10.244.3.0/24", None, ETH0),
        route("10.244.4.0/24", Some("172.19.0.7"), BRIDGE),
    ];
    // Nodes with neighbouring addresses are told as one subnet.
    let facts = node(&["10.244.0.0/16", "172.31.0.0/16", "172.31.0.8/31"], others);
    assert_eq!(ways(&facts), []);
    assert_eq!(by_nodes(&desired(&facts)), [] as [&Rule; 0]);
}

#[test]
fn of_two_routes_that_cannot_stand_side_by_side_the_first_is_taken_once() {
    let detour = |metric| Route { metric, ..route(PODS, Some("172.31.0.77"), ETH1) };
    let mut facts = node(&[PODS], vec![to_pods(), detour(0), detour(50)]);
    let way = |gateway: &str, metric| (PODS.to_owned(), gateway.to_owned(), metric);
    assert_eq!(ways(&facts), [way("172.31.0.9", 0), way("172.31.0.77", 50)]);
    let mut past = Past::default();
    let done = plan(&facts, &mut past, &Ruleset::default());
    apply(&mut facts, &done.before);
    let rest = plan(&facts, &mut past, tables_of(&done));
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn ipv6_has_its_ways_through_link_local_routers_and_rules_of_its_own() {
    let through = Route { metric: 1024, ..route("fd10:244:0:2::/64", Some("fe80::9"), ETH0) };
    let mut facts = node(&["fd10:244::/48"], vec![through]);
    assert_eq!(by_nodes(&desired(&facts)), [] as [&Rule; 0], "no exit is of that family");
    facts.kernel.apply(address(ETH1, "fd31::14/64"));
    facts.kernel.routes.push(Route { metric: 1024, ..route("::/0", Some("fe80::1"), ETH1) });
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14,fd31::14")]);
    assert_eq!(ways(&facts), [("fd10:244:0:2::/64".to_owned(), "fe80::9".to_owned(), 1024)]);
    let from: Vec<_> = by_nodes(&desired(&facts)).into_iter().map(|r| r.from).collect();
    assert_eq!(from, ["fd31::14/128".parse().ok()]);
}

#[test]
fn the_ways_come_and_go_with_main_s_and_a_restart_plans_nothing() {
    let mut facts = node(&["10.244.0.0/16"], vec![to_pods()]);
    let mut past = Past::default();
    let done = plan(&facts, &mut past, &Ruleset::default());
    apply(&mut facts, &done.before);
    let mut next = Past::default();
    read_back(tables_of(&done), &facts.kernel, &mut next);
    let again = plan(&facts, &mut next, tables_of(&done));
    assert!(again.is_empty(), "{again:?}");

    let link = facts.kernel.links[&ETH0].clone();
    facts.kernel.apply(KernelChange::Link(Link { carrier: false, ..link.clone() }));
    assert_eq!(ways(&facts), [], "the kernel takes no route by a NIC that is down");
    facts.kernel.apply(KernelChange::Link(link));

    facts.kernel.routes.retain(|r| r.table != MAIN || r.destination.to_string() != PODS);
    let gone = plan(&facts, &mut past, tables_of(&done));
    assert!(gone.before.is_empty(), "{gone:?}");
    assert!(matches!(gone.after.as_slice(), [RouteStep::DeleteRule(_), RouteStep::DeleteRoute(_), ..]), "{gone:?}");
    apply(&mut facts, &gone.after);
    assert!(facts.kernel.routes.iter().all(|r| r.destination.to_string() != PODS));
}

#[test]
fn what_the_daemon_itself_sends_from_no_exit_goes_by_main_in_the_end() {
    let routing = desired(&node(&[], Vec::new()));
    let marked: Vec<&Rule> = routing.rules.iter().filter(|rule| rule.mark == Some(OWN_MARK)).collect();
    let [led, main, default] = marked.as_slice() else { panic!("{marked:?}") };
    assert_eq!(led.action, RuleAction::Goto(PREFERENCE_FROM_INSIDE));
    assert_eq!([main.table, default.table], [MAIN, 253]);
    let last = routing.rules.iter().filter(|rule| rule.mark.is_none()).map(|rule| rule.preference).max();
    assert!(Some(main.preference) > last && main.preference < default.preference, "behind all that has an exit");
}
