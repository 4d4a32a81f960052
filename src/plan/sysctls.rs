//! The kernel's settings that the datapath stands on.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};

use crate::model::facts::{IfIndex, KernelFacts, Link, LinkKind};
use crate::model::resolve::Outcome;
use crate::model::services::Service;
use crate::model::workload::{Entry, State};

const FORWARD_V4: &str = "net/ipv4/ip_forward";
const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
const ALL_FILTER: &str = "net/ipv4/conf/all/rp_filter";
pub(super) const ALL_REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

/// Sysctls to be looked at for an outcome (in /proc/sys).
pub fn keys(outcome: &Outcome, kernel: &KernelFacts) -> Vec<String> {
    let mut keys: Vec<String> = [FORWARD_V4, FORWARD_V6, ALL_FILTER].map(str::to_owned).into();
    for nic in outcome.uplinks.nics.values() {
        keys.push(format!("net/ipv4/conf/{}/rp_filter", nic.name));
        keys.push(format!("net/ipv6/conf/{}/accept_ra", nic.name));
    }
    keys.extend(forwarders(outcome, kernel).into_iter().map(forwarding));
    for name in sharing(outcome, kernel) {
        keys.push(format!("net/ipv4/conf/{name}/arp_ignore"));
        keys.push(format!("net/ipv4/conf/{name}/arp_announce"));
    }
    for name in one_armed(outcome, kernel) {
        keys.extend([ALL_REDIRECTS.to_owned(), redirects(name)]);
    }
    keys
}

/// Sysctls to set, in order, given what they are now.
pub fn wanted(outcome: &Outcome, kernel: &KernelFacts, now: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let value = |key: &str| now.get(key).and_then(|v| v.parse::<i64>().ok());
    let mut set = Vec::new();
    let mut raise = |key: String, low: &[i64], to: i64| {
        if value(&key).is_some_and(|v| low.contains(&v)) {
            set.push((key, to.to_string()));
        }
    };
    let bound = |v6: bool| {
        let serves = |service: &Service| service.address.is_ipv6() == v6 && service.has_servers();
        outcome.rows.iter().any(|row| matches!(&row.state, State::Bound(exit) if exit.address.is_ipv6() == v6))
            || outcome.inbound.all.iter().any(serves)
    };
    let all_filter = value(ALL_FILTER).unwrap_or(0);
    for nic in outcome.uplinks.nics.values() {
        let name = &nic.name;
        // Replies come in by a NIC that main does not route their source by; and strictly filtered NICs answer no ARP of a shared subnet.
        if all_filter == 1 || value(&format!("net/ipv4/conf/{name}/rp_filter")) == Some(1) {
            raise(format!("net/ipv4/conf/{name}/rp_filter"), &[0, 1], 2);
        }
        if bound(true) {
            // Ahead of forwarding, which would delete the route that an advertisement brought.
            raise(format!("net/ipv6/conf/{name}/accept_ra"), &[1], 2);
        }
    }
    // Each NIC answers and asks for its own addresses only. Where no other NIC is in its subnet nothing is at stake, and an address on the
    // loopback device may be served by it.
    for name in sharing(outcome, kernel) {
        raise(format!("net/ipv4/conf/{name}/arp_ignore"), &[0], 1);
        raise(format!("net/ipv4/conf/{name}/arp_announce"), &[0, 1], 2);
    }
    // Whoever routes through this host by a NIC that its packets leave by is told of the router there, and would go past this host from then on. The
    // kernel asks both settings.
    for name in one_armed(outcome, kernel) {
        raise(ALL_REDIRECTS.to_owned(), &[1], 0);
        raise(redirects(name), &[1], 0);
    }
    if bound(false) {
        raise(FORWARD_V4.to_owned(), &[0], 1);
    }
    // That one sets all links' own. Where it is set, a link's own may have been taken back.
    if value(FORWARD_V4) == Some(1) {
        forwarders(outcome, kernel).into_iter().for_each(|name| raise(forwarding(name), &[0], 1));
    }
    if bound(true) {
        raise(FORWARD_V6.to_owned(), &[0], 1);
    }
    set
}

/// Whether IPv4 packets that come in by a link go on to others. (IPv6 asks the setting for all alone.)
fn forwarding(link: &str) -> String {
    format!("net/ipv4/conf/{link}/forwarding")
}

/// Names of the links that IPv4 packets of bound sources, and their answers, come in by.
fn forwarders<'a>(outcome: &Outcome, kernel: &'a KernelFacts) -> BTreeSet<&'a str> {
    let spread = outcome.spreads.values().flat_map(|shares| &shares.shares).map(|share| share.exit);
    let mut links: BTreeSet<IfIndex> = spread.filter(|exit| exit.address.is_ipv4()).map(|exit| exit.interface).collect();
    for row in &outcome.rows {
        if let (State::Bound(exit), Some(_)) = (&row.state, row.entry)
            && exit.address.is_ipv4()
        {
            links.extend(outcome.entrances(row).chain([exit.interface]));
        }
    }
    links.into_iter().filter_map(|index| Some(kernel.links.get(&index)?.name.as_str())).collect()
}

/// Whether IPv4 neighbours are told of a better router than this host.
pub(super) fn redirects(link: &str) -> String {
    format!("net/ipv4/conf/{link}/send_redirects")
}

/// Names of the NICs that IPv4 packets of bound sources come in by, and leave by as well.
fn one_armed<'a>(outcome: &Outcome, kernel: &'a KernelFacts) -> BTreeSet<&'a str> {
    let mut nics = BTreeSet::new();
    for row in &outcome.rows {
        if let (State::Bound(_), Some(Entry::Routed { interface })) = (&row.state, row.entry)
            && outcome.exits_of(row).iter().any(|exit| exit.address.is_ipv4() && exit.interface == interface)
        {
            nics.extend(kernel.links.get(&interface).map(|link| link.name.as_str()));
        }
    }
    nics
}

/// Names of the links that are in one subnet with another one, where one of the two is an uplink.
fn sharing<'a>(outcome: &Outcome, kernel: &'a KernelFacts) -> BTreeSet<&'a str> {
    let is_uplink = |index: IfIndex| outcome.uplinks.nics.contains_key(&index);
    let plain = |link: &&Link| link.master.is_none() && !matches!(link.kind, LinkKind::Loopback | LinkKind::Dummy);
    // Those of this namespace come first.
    let here = kernel.addresses.iter().take_while(|(place, _)| place.nsid.is_none());
    let with_subnets = here.filter_map(|(place, addresses)| {
        let nets: Vec<Ipv4Net> = addresses.iter().filter_map(|address| subnet(address.net)).collect();
        Some((kernel.links.get(&place.index).filter(plain)?, nets))
    });
    let links: Vec<(&Link, Vec<Ipv4Net>)> = with_subnets.filter(|(_, nets)| !nets.is_empty()).collect();
    let mut names = BTreeSet::new();
    for (uplink, nets) in links.iter().filter(|(link, _)| is_uplink(link.index)) {
        let near = |other: &[Ipv4Net]| other.iter().any(|a| nets.iter().any(|b| a.contains(&b.network()) || b.contains(&a.network())));
        for (other, _) in links.iter().filter(|(link, others)| link.index != uplink.index && near(others)) {
            names.extend([uplink.name.as_str(), other.name.as_str()]);
        }
    }
    names
}

/// The IPv4 subnet of an address; an address alone has none.
fn subnet(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => (net.prefix_len() < 32).then_some(net),
        IpNet::V6(_) => None,
    }
}
