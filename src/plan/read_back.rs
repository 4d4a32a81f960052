//! What an earlier run left in the kernel: numbers, owners, guards and flows that are still to be ended.

use std::net::IpAddr;

use super::datapath::names;
use super::datapath::source_ports::of_program;
use super::datapath::spill::is_of_full;
use super::elements::{address_in, number_at, number_in, owners, source_of};
use super::inbound;
use super::routing::{FURTHER, REMEMBERED, metric};
use crate::contract::{PROTOCOL, WAY};
use crate::model::binding::SourcePorts;
use crate::model::facts::{Family as IpFamily, KernelFacts, Route};
use crate::model::resolve::Past;
use crate::model::uplinks::Memory;
use crate::model::uplinks::outside::MAIN;
use crate::model::ways::{Gateway, WayKey, of_table};
use crate::nft::{Data, Family, Ruleset, Set};

/// Takes over what the kernel has of ours.
pub fn read_back(observed: &Ruleset, kernel: &KernelFacts, past: &mut Past) {
    for (number, route) in defaults(kernel) {
        let (Some(nic), family) = (route.interface, IpFamily::of(route.destination.addr())) else { continue };
        let more = route.metric.wrapping_sub(metric(family));
        past.memory.numbers.read_back(WayKey { nic, gateway: route.gateway.filter(|_| more == FURTHER) }, number);
        if more == REMEMBERED {
            let gateway = Gateway { address: route.gateway, onlink: route.onlink, mtu: route.mtu(), table: MAIN };
            past.memory.read_back(nic, family, gateway);
        }
    }
    let Past { memory: Memory { numbers, .. }, port_owners, pod_bridges, departed, served, .. } = past;
    *served = inbound::served(observed);
    for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
        let set = |name| observed.tables.get(&family).and_then(|table| table.sets.get(name));
        let numbered = |name| marks(set(name), v6);
        // A NIC that is down has no routes; its addresses may be there all the same.
        for (address, number) in numbered(names::CALLED) {
            if let Some(link) = kernel.own_links_with(address).next() {
                numbers.read_back(WayKey::own(link.index), number);
            }
        }
        for (address, number) in numbered(names::WAYS) {
            match numbers.key_of(number) {
                Some(key) => numbers.uses(address, key),
                None => numbers.may_be_borne(address),
            }
        }
        for (exit, ports, number, table) in program_numbers(kernel, set(names::PROGRAM_EXITS), set(names::PROGRAM_PORTS), v6) {
            if let Some(key) = of_table(table).and_then(|way| numbers.key_of(way)) {
                numbers.read_back_program((key, exit, ports), number);
            }
        }
        let keys = |name| set(name).into_iter().flat_map(|set| set.elements.keys());
        let is_program = |link: &u32| kernel.links.get(link).is_some_and(|link| link.isolated.is_some());
        pod_bridges.extend(keys(names::GUARDS).filter_map(|key| number_at(key, 0)).filter(|link| !is_program(link)));
        departed.extend(keys(names::DEPARTED).filter_map(|key| source_of(key, v6)));
    }
    for (port, address) in owners(observed) {
        if let Some(bridge) = kernel.links.get(&port).and_then(|link| link.master) {
            port_owners.read_back(bridge, address, port);
        }
    }
}

/// Whether flows are kept from exits that had run out of source ports.
pub fn spills(observed: &Ruleset) -> bool {
    observed.tables.values().flat_map(|table| &table.sets).any(|(name, set)| is_of_full(name) && !set.elements.is_empty())
}

/// The default routes in our tables, each with its way's number: a way has one of each family.
fn defaults(kernel: &KernelFacts) -> Vec<(u8, &Route)> {
    let ours = kernel.routes.iter().filter(|r| r.protocol == PROTOCOL && r.destination.prefix_len() == 0 && r.interface.is_some());
    ours.filter_map(|r| Some((of_table(r.table)?, r))).collect()
}

/// Addresses and the numbers of their ways.
fn marks(set: Option<&Set>, v6: bool) -> impl Iterator<Item = (IpAddr, u8)> {
    set.into_iter()
        .flat_map(|set| set.elements.iter())
        .filter_map(move |(key, data)| Some((address_in(key.first.as_slice(), v6)?, (number_in(data)? & WAY) as u8)))
}

/// Exits of the host's programs, each with the number in its mark and the table that the mark leads to.
fn program_numbers(
    kernel: &KernelFacts,
    exits: Option<&Set>,
    ports: Option<&Set>,
    v6: bool,
) -> Vec<(IpAddr, Option<SourcePorts>, u8, u32)> {
    let elements = exits.into_iter().flat_map(|set| set.elements.iter());
    let of = elements.filter_map(|(key, data)| {
        let (mark, Data::Value(exit)) = (number_at(key, 4)?, data) else { return None };
        let rule = kernel.rules.iter().find(|rule| rule.protocol == PROTOCOL && rule.mark == Some(mark))?;
        let ports = ports.and_then(|ports| of_program(ports.elements.get(key)?));
        Some((address_in(exit.as_slice(), v6)?, ports, (mark & WAY) as u8, rule.table))
    });
    of.collect()
}
