//! The addresses that the kernel gives a socket that asks for none, where it goes by the default route: whoever has another one has chosen it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::facts::{Address, Family, IfIndex, KernelFacts, Place, Route, RouteKind};
use super::uplinks::outside::MAIN;
use crate::contract::PROTOCOL;

/// The interfaces of the main table's best default routes, each with those addresses. Of IPv6 these are all of the interface: which one is
/// picked follows from more than the kernel tells (RFC 6724).
pub fn picked(kernel: &KernelFacts) -> BTreeSet<(IfIndex, IpAddr)> {
    [Family::V4, Family::V6].into_iter().flat_map(|family| of_family(kernel, family)).collect()
}

fn of_family(kernel: &KernelFacts, family: Family) -> BTreeSet<(IfIndex, IpAddr)> {
    let is_default = |route: &&Route| {
        let leads = route.protocol != PROTOCOL && route.kind == RouteKind::Unicast && route.table == MAIN;
        leads && route.destination == family.everything() && route.from.is_none() && route.tos == 0
    };
    let is_up = |index: IfIndex| kernel.links.get(&index).is_some_and(|link| link.up && link.carrier);
    let routes = kernel.routes.iter().filter(is_default);
    let hops = routes.flat_map(|route| route.hops().filter_map(move |(gateway, interface, _)| Some((route, gateway, interface?))));
    let hops: Vec<_> = hops.filter(|(_, _, interface)| is_up(*interface)).collect();
    let best = hops.iter().map(|(route, ..)| route.metric).min();
    let hops = hops.into_iter().filter(|(route, ..)| Some(route.metric) == best);
    hops.flat_map(|(route, gateway, interface)| match route.source {
        Some(source) => vec![(interface, source)],
        None => own(kernel, family, interface, gateway).into_iter().map(|address| (interface, address)).collect(),
    })
    .collect()
}

/// Of IPv4 the first of the gateway's subnet (`inet_select_addr`); where there is none, the first of any.
fn own(kernel: &KernelFacts, family: Family, index: IfIndex, gateway: Option<IpAddr>) -> Vec<IpAddr> {
    let of_family = |address: &&Address| Family::of(address.net.addr()) == family && address.scope == 0 && address.usable;
    let all: Vec<&Address> = kernel.addresses_at(Place { nsid: None, index }).filter(of_family).collect();
    if family == Family::V6 {
        return all.into_iter().map(|address| address.net.addr()).collect();
    }
    let first: Vec<&Address> = all.into_iter().filter(|address| address.primary).collect();
    let beside = first.iter().filter(|address| gateway.is_some_and(|gateway| address.net.contains(&gateway)));
    let beside: Vec<IpAddr> = beside.map(|address| address.net.addr()).collect();
    if beside.is_empty() { first.into_iter().map(|address| address.net.addr()).collect() } else { beside }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{KernelChange, Link, LinkKind};

    fn net(text: &str) -> ipnet::IpNet {
        text.parse().unwrap()
    }

    fn route(index: IfIndex, family: Family, gateway: &str, metric: u32) -> Route {
        Route { gateway: gateway.parse().ok(), interface: Some(index), metric, ..Route::new(MAIN, family.everything()) }
    }

    fn kernel(routes: impl IntoIterator<Item = Route>) -> KernelFacts {
        let mut kernel = KernelFacts::default();
        for index in [1, 2] {
            let link = Link { up: true, carrier: true, ..Link::new(index, format!("eth{index}"), LinkKind::Other(String::new())) };
            kernel.links.insert(index, link);
        }
        let address = |text: &str, primary| Address { primary, ..Address::new(net(text)) };
        let of = |index| Place { nsid: None, index };
        let first = [
            address("10.0.1.5/24", true),
            address("10.0.1.98/24", false),
            address("192.0.2.7/24", true),
            address("2001:db8::5/64", true),
            address("2001:db8::98/64", true),
        ];
        kernel.addresses.insert(of(1), first.into());
        kernel.addresses.insert(of(2), [address("10.0.2.5/24", true)].into());
        kernel.routes = routes.into_iter().collect();
        kernel
    }

    fn shown(kernel: &KernelFacts) -> Vec<String> {
        picked(kernel).into_iter().map(|(index, address)| format!("{index} {address}")).collect()
    }

    #[test]
    fn it_is_the_first_address_of_the_gateway_s_subnet_on_the_best_default_route() {
        let routes = || [route(1, Family::V4, "10.0.1.1", 100), route(2, Family::V4, "10.0.2.1", 200)];
        assert_eq!(shown(&kernel(routes())), ["1 10.0.1.5"]);
        let mut down = kernel(routes());
        down.apply(KernelChange::Link(Link { up: false, carrier: false, ..down.links[&1].clone() }));
        assert_eq!(shown(&down), ["2 10.0.2.5"]);
        let same = [route(1, Family::V4, "10.0.1.1", 100), route(2, Family::V4, "10.0.2.1", 100)];
        assert_eq!(shown(&kernel(same)), ["1 10.0.1.5", "2 10.0.2.5"]);
    }

    #[test]
    fn a_route_may_say_it_and_without_a_subnet_it_may_be_any_first_one() {
        let said = Route { source: "10.0.1.98".parse().ok(), ..route(1, Family::V4, "10.0.1.1", 0) };
        assert_eq!(shown(&kernel([said])), ["1 10.0.1.98"]);
        assert_eq!(shown(&kernel([route(1, Family::V4, "169.254.1.1", 0)])), ["1 10.0.1.5", "1 192.0.2.7"]);
    }

    #[test]
    fn of_ipv6_it_may_be_any_and_what_egressd_or_a_vpn_routes_is_no_default_route() {
        assert_eq!(shown(&kernel([route(1, Family::V6, "fe80::1", 1024)])), ["1 2001:db8::5", "1 2001:db8::98"]);
        let ours = Route { protocol: PROTOCOL, ..route(1, Family::V4, "10.0.1.1", 0) };
        let elsewhere = Route { table: 51_820, ..route(1, Family::V4, "10.0.1.1", 0) };
        let half = Route { destination: net("0.0.0.0/1"), ..route(1, Family::V4, "10.0.1.1", 0) };
        assert_eq!(shown(&kernel([ours, elsewhere, half])), Vec::<String>::new());
    }
}
