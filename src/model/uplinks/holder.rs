//! Which NIC an exit is on, or why none.

use std::net::IpAddr;

use super::super::binding::ExitSpec;
use super::super::facts::{Address, Family, IfIndex, KernelFacts, Link, LinkKind, Place};
use super::super::reason::{NotAnUplink, Reason};
use super::Inner;
use super::outside::Default;

/// The addresses that a link holds.
pub fn own(kernel: &KernelFacts, index: IfIndex) -> impl Iterator<Item = &Address> {
    kernel.addresses_at(Place { nsid: None, index })
}

/// The address of an exit on its NIC. An interface's own is what the host's packets to its gateway have: what the route says, or the oldest of the
/// gateway's subnet (`inet_select_addr`); one that is for privacy, about to go, or egressd's comes last. It is followed as it changes.
///
/// # Errors
/// When the interface has none.
pub fn address_of(kernel: &KernelFacts, spec: &ExitSpec, nic: IfIndex, defaults: &[Default]) -> Result<IpAddr, Reason> {
    if !spec.address.is_unspecified() {
        return Ok(spec.address);
    }
    let family = Family::of(spec.address);
    let of_family = own(kernel, nic).filter(|a| Family::of(a.net.addr()) == family && a.scope == 0 && !a.temporary);
    let default = defaults.iter().find(|d| d.interface == nic && d.family == family);
    let gateway = spec.gateway.or(default.and_then(|d| d.gateway.address));
    let said = default.filter(|_| spec.gateway.is_none()).and_then(|d| d.source);
    let is_near = |a: &Address| gateway.is_some_and(|gateway| a.net.contains(&gateway));
    let rank = |a: &&Address| {
        let address = a.net.addr();
        (said != Some(address), a.deprecated, a.ours, !a.primary, !is_near(a), is_unique_local(address), a.added)
    };
    let best = of_family.filter(|a| a.usable).min_by_key(rank);
    // That a line has no IPv6 is usual; that it has no IPv4 is not.
    let speaks_v4 = || own(kernel, nic).any(|a| a.net.addr().is_ipv4() && a.scope == 0);
    best.map(|a| a.net.addr()).ok_or_else(|| match family == Family::V6 && speaks_v4() {
        true => Reason::NoExitInFamily(family),
        false => Reason::NoAddressOnInterface { interface: kernel.links.get(&nic).map_or_else(String::new, |link| link.name.clone()) },
    })
}

/// Of IPv6's addresses for a site (RFC 4193), which the outside does not answer.
fn is_unique_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unique_local())
}

/// The NIC that holds an exit's address. Of several the one that is up and that the host sends by first, then the oldest: the same after a restart.
///
/// # Errors
/// When no interface holds it, or none that leads outside.
pub fn holder(kernel: &KernelFacts, spec: &ExitSpec, defaults: &[Default], inner: &Inner<'_>) -> Result<IfIndex, Reason> {
    let address = spec.address;
    let reason = |link: &Link| not_an_uplink(kernel, link, spec.gateway, defaults, inner);
    if let Some(name) = &spec.interface {
        let link = kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() })?;
        if let Some(why) = reason(link) {
            return Err(Reason::NotAnUplink { interface: name.clone(), why });
        }
        if address.is_unspecified() {
            return Ok(link.index);
        }
        // An address that is routed to this host may be on the loopback device; the binding says by which NIC.
        let routed = kernel.own_links_with(address).any(|l| matches!(l.kind, LinkKind::Loopback | LinkKind::Dummy));
        if routed || own(kernel, link.index).any(|a| a.net.addr() == address) {
            return Ok(link.index);
        }
        // An address of IPv6 goes with its link: that it is down is the better news.
        if !link.up {
            return Err(Reason::InterfaceDown { interface: name.clone() });
        }
        let elsewhere = kernel.own_links_with(address).next().map(|l| l.name.clone());
        return Err(Reason::AddressNotOnInterface { address, interface: name.clone(), elsewhere });
    }
    let mut holders: Vec<&Link> = kernel.own_links_with(address).collect();
    holders.sort_by_key(|link| link.index);
    let rank = |link: &&&Link| {
        let near = spec.gateway.is_none_or(|gateway| own(kernel, link.index).any(|a| a.net.contains(&gateway)));
        let way = defaults.iter().position(|d| d.interface == link.index && d.family == Family::of(address)).unwrap_or(usize::MAX);
        (!near, !(link.up && link.carrier), way, link.index)
    };
    if let Some(link) = holders.iter().filter(|link| reason(link).is_none()).min_by_key(rank) {
        return Ok(link.index);
    }
    let first = holders.first().ok_or(Reason::AddressNotFound { address })?;
    let why = reason(first).expect("those without a reason were looked at before");
    Err(Reason::NotAnUplink { interface: first.name.clone(), why })
}

/// Why a link cannot be a way out.
pub fn not_an_uplink(
    kernel: &KernelFacts,
    link: &Link,
    gateway: Option<IpAddr>,
    defaults: &[Default],
    inner: &Inner<'_>,
) -> Option<NotAnUplink> {
    let vrf = link.master.and_then(|master| kernel.links.get(&master)).filter(|master| master.vrf.is_some());
    if let Some(vrf) = vrf {
        return Some(NotAnUplink::InVrf { vrf: vrf.name.clone() });
    }
    match link.kind {
        LinkKind::Loopback => Some(NotAnUplink::Loopback),
        LinkKind::Dummy => Some(NotAnUplink::Dummy),
        LinkKind::Bridge => (!leads_out(kernel, link, gateway, defaults, inner)).then_some(NotAnUplink::BridgeOfWorkloads),
        _ if inner.links.contains(&link.index) => Some(NotAnUplink::LinkOfWorkload),
        _ => None,
    }
}

/// Whether a bridge is above a NIC: it has a port that leads to no workload.
fn leads_out(kernel: &KernelFacts, bridge: &Link, named: Option<IpAddr>, defaults: &[Default], inner: &Inner<'_>) -> bool {
    let by_default: Vec<IpAddr> = defaults.iter().filter(|d| d.interface == bridge.index).filter_map(|d| d.gateway.address).collect();
    // A container may be the host's own gateway: a VPN's, for instance.
    if by_default.iter().any(|gateway| inner.is_container(*gateway)) {
        return false;
    }
    let is_gateway = |address: IpAddr| by_default.contains(&address) || named == Some(address);
    let mut ports = kernel.links.values().filter(|l| l.master == Some(bridge.index) && !inner.links.contains(&l.index));
    ports.any(|port| match port.far_end() {
        // A veth's far end is a workload's, unless the gateway is there, or nothing is and the default route leads by this bridge.
        Some(far) => {
            let mut there = kernel.addresses_at(far).map(|a| a.net.addr()).peekable();
            if there.peek().is_none() { !by_default.is_empty() } else { there.any(|a| is_gateway(a) && !inner.is_container(a)) }
        }
        // A veth whose peer is in this namespace is the bridge's own gateway, or leads to another bridge.
        None => port.kind != LinkKind::Veth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{Route, RouteKind};
    use crate::model::uplinks::outside::{MAIN, defaults};

    const NIC: IfIndex = 1;

    fn own_address(spec: &ExitSpec, route: Option<Route>, addresses: &[Address]) -> String {
        let mut kernel = KernelFacts::default();
        kernel.addresses.insert(Place { nsid: None, index: NIC }, addresses.iter().copied().collect());
        kernel.routes = route.into_iter().collect();
        address_of(&kernel, spec, NIC, &defaults(&kernel)).expect("it has some").to_string()
    }

    fn spec(family: Family) -> ExitSpec {
        ExitSpec { interface: Some("eth1".to_owned()), ..ExitSpec::new(family.everything().addr()) }
    }

    fn by(gateway: &str) -> Route {
        let gateway: IpAddr = gateway.parse().unwrap();
        let everything = Family::of(gateway).everything();
        Route { gateway: Some(gateway), interface: Some(NIC), kind: RouteKind::Unicast, ..Route::new(MAIN, everything) }
    }

    fn added(net: &str, added: u32) -> Address {
        Address { added, ..Address::new(net.parse().unwrap()) }
    }

    #[test]
    fn an_interface_s_own_address_is_of_its_gateway_s_subnet_or_what_the_route_says() {
        let all = [added("10.9.9.9/24", 1), added("172.31.15.200/32", 4), added("172.31.16.14/20", 2), added("172.31.16.3/24", 3)];
        let v4 = spec(Family::V4);
        assert_eq!(own_address(&v4, Some(by("172.31.16.1")), &all), "172.31.16.14", "the older of two");
        let said = Route { source: "172.31.15.200".parse().ok(), ..by("172.31.16.1") };
        assert_eq!(own_address(&v4, Some(said.clone()), &all), "172.31.15.200");
        let named = ExitSpec { gateway: "10.9.9.1".parse().ok(), ..v4.clone() };
        assert_eq!(own_address(&named, Some(said), &all), "10.9.9.9", "the binding's own gateway is another's subnet");
        assert_eq!(own_address(&v4, None, &all), "10.9.9.9", "the oldest");
        let ours = Address { ours: true, ..added("10.0.0.1/32", 0) };
        assert_eq!(own_address(&v4, None, &[ours, all[1]]), "172.31.15.200", "egressd's are others' exits");
    }

    #[test]
    fn of_ipv6_it_is_one_that_the_outside_answers_and_that_stays() {
        let all = [added("fd00::9/64", 1), added("2001:db8:2::9/64", 3), added("2001:db8:1::9/64", 2)];
        let v6 = spec(Family::V6);
        assert_eq!(own_address(&v6, Some(by("fe80::1")), &all), "2001:db8:1::9", "the older one");
        let going = Address { deprecated: true, ..all[2] };
        assert_eq!(own_address(&v6, Some(by("fe80::1")), &[all[0], all[1], going]), "2001:db8:2::9");
        assert_eq!(own_address(&v6, Some(by("fd00::1")), &all[..1]), "fd00::9");
    }
}
