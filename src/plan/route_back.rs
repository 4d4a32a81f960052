//! What a server's network namespace needs so that its answers go back through this host: a route in a table of their own, and a rule for each
//! port. All other packets of the namespace go as ever.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::step::RouteStep;
use crate::contract::{PREFERENCE_ROUTE_BACK, PROTOCOL, TABLE_ROUTE_BACK};
use crate::model::facts::{Family, IfIndex, Route, Rule};
use crate::model::route_back::RouteBack;

/// The steps from what there is in a namespace to what is wanted there, each with the interface that has the server's address. The routes are one
/// of each family: all servers of a namespace have one way back.
pub fn steps(wanted: &[(RouteBack, IfIndex)], routes: &[Route], rules: &[Rule]) -> Vec<RouteStep> {
    let wanted_routes: BTreeMap<Family, Route> =
        wanted.iter().map(|(one, interface)| (Family::of(one.via), route(one.via, *interface))).collect();
    let wanted_rules: Vec<Rule> = wanted.iter().map(|(one, _)| rule(one)).collect();
    let own_routes = || routes.iter().filter(|route| route.table == TABLE_ROUTE_BACK && route.protocol == PROTOCOL);
    let own_rules = || rules.iter().filter(|rule| rule.table == TABLE_ROUTE_BACK && rule.protocol == PROTOCOL);
    let (is_route, is_rule) = (
        |one: &Route, other: &Route| (one.destination, one.gateway, one.interface) == (other.destination, other.gateway, other.interface),
        is_alike,
    );
    let mut steps = Vec::new();
    steps.extend(wanted_routes.values().filter(|one| !own_routes().any(|there| is_route(one, there))).cloned().map(RouteStep::AddRoute));
    steps.extend(wanted_rules.iter().filter(|one| !own_rules().any(|there| is_rule(one, there))).cloned().map(RouteStep::AddRule));
    steps.extend(own_rules().filter(|there| !wanted_rules.iter().any(|one| is_rule(one, there))).cloned().map(RouteStep::DeleteRule));
    // Another route of the same family took its place.
    steps.extend(
        own_routes()
            .filter(|there| !wanted_routes.contains_key(&Family::of(there.destination.addr())))
            .cloned()
            .map(RouteStep::DeleteRoute),
    );
    steps
}

/// Whether they are the same rule of ours. (What was read says more of itself.)
fn is_alike(one: &Rule, other: &Rule) -> bool {
    (one.preference, one.from) == (other.preference, other.from)
        && (one.ip_protocol, one.source_ports) == (other.ip_protocol, other.source_ports)
}

fn route(via: IpAddr, interface: IfIndex) -> Route {
    let everywhere = IpNet::new_assert(Family::of(via).unspecified(), 0);
    Route { gateway: Some(via), interface: Some(interface), protocol: PROTOCOL, ..Route::new(TABLE_ROUTE_BACK, everywhere) }
}

fn rule(one: &RouteBack) -> Rule {
    Rule {
        from: Some(IpNet::from(one.address)),
        ip_protocol: Some(one.protocol.number()),
        source_ports: Some((one.port, one.port)),
        protocol: PROTOCOL,
        ..Rule::new(Family::of(one.address), PREFERENCE_ROUTE_BACK, TABLE_ROUTE_BACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ports::Protocol;
    use crate::plan::step::InterfaceNames;

    fn one(port: u16, via: &str) -> (RouteBack, IfIndex) {
        let (address, via) = (IpAddr::from([10, 0, 0, 2]), via.parse().expect("an address"));
        (RouteBack { nsid: 3, address, protocol: Protocol::Tcp, port, via }, 7)
    }

    fn said(steps: &[RouteStep]) -> Vec<String> {
        steps.iter().map(|step| step.words(&InterfaceNames::default()).to_string()).collect()
    }

    /// What a namespace has once the steps are carried out.
    fn carried(steps: &[RouteStep]) -> (Vec<Route>, Vec<Rule>) {
        let routes = steps.iter().filter_map(|step| if let RouteStep::AddRoute(route) = step { Some(route.clone()) } else { None });
        let rules = steps.iter().filter_map(|step| if let RouteStep::AddRule(rule) = step { Some(rule.clone()) } else { None });
        (routes.collect(), rules.collect())
    }

    #[test]
    fn a_namespace_gets_one_route_and_a_rule_for_each_port_and_nothing_else_of_it_is_touched() {
        let wanted = [one(80, "10.0.0.1"), one(81, "10.0.0.1")];
        let foreign = [Rule::new(Family::V4, 32_766, 254), Rule { protocol: 3, ..rule(&one(9, "10.0.0.1").0) }];
        let first = steps(&wanted, &[Route { protocol: 3, ..route([10, 0, 0, 9].into(), 7) }], &foreign);
        assert_eq!(first.len(), 3, "{:?}", said(&first));
        let (routes, rules) = carried(&first);
        assert_eq!(said(&steps(&wanted, &routes, &rules)), [""; 0], "it is there");
        let gone = steps(&[], &routes, &[rules.as_slice(), &foreign].concat());
        assert!(
            matches!(gone.as_slice(), [RouteStep::DeleteRule(_), RouteStep::DeleteRule(_), RouteStep::DeleteRoute(_)]),
            "{:?}",
            said(&gone)
        );
        let moved = steps(&[one(80, "10.0.0.254")], &routes, &rules[..1]);
        assert!(matches!(moved.as_slice(), [RouteStep::AddRoute(_)]), "{:?}", said(&moved));
    }
}
