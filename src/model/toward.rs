//! Which interface leads to an address beside the default routes.

use std::cmp::Reverse;

use ipnet::IpNet;

use super::facts::{KernelFacts, Link, RouteKind};
use super::uplinks::outside::MAIN;

/// The interface that main's most specific route to a subnet names. The default route does not count.
pub fn toward(kernel: &KernelFacts, net: IpNet) -> Option<&Link> {
    let routes = kernel.routes.iter().filter(|route| route.table == MAIN && route.kind == RouteKind::Unicast);
    let covers = routes.filter(|route| route.destination.prefix_len() > 0 && route.destination.contains(&net));
    let best = covers.max_by_key(|route| (route.destination.prefix_len(), Reverse(route.metric)))?;
    kernel.links.get(&best.interface?)
}
