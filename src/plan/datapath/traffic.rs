//! What a binding is for: a set of its destinations, and chains that a source of it jumps to. They return for what fits, and end the walk for
//! the rest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::binding::{Destination, Traffic};
use crate::model::ports::Ports;
use crate::nft::build::{daddr, dport, iif, l4proto, ranges, rule};
use crate::nft::{Chain, Data, Datatype, Family, Key, Rule, Ruleset, Set, Table};

/// The name of the chain of a kind of traffic: the same for the same traffic.
pub fn name(traffic: &Traffic) -> String {
    format!("traffic-{:016x}", traffic.number())
}

/// The sets of destinations that were made before, by name and family: one of tens of thousands is made once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Cache(BTreeMap<(String, bool), Set>);

impl Cache {
    /// Forgets what no table has any more.
    pub fn keep_only(&mut self, ruleset: &Ruleset) {
        let is_there = |family: Family, name: &str| ruleset.tables.get(&family).is_some_and(|table| table.sets.contains_key(name));
        self.0.retain(|(name, v6), _| is_there(Family::ip(*v6), name));
    }

    fn destinations(&mut self, name: &str, to: &[Destination], v6: bool) -> Set {
        self.0.entry((name.to_owned(), v6)).or_insert_with(|| destinations(to, v6)).clone()
    }
}

/// Adds the chains and the set of a kind of traffic, under its name.
pub fn add(table: &mut Table, name: &str, traffic: &Traffic, v6: bool, made: &mut Cache) {
    let (ports, to) = (format!("{name}-ports"), format!("{name}-to"));
    let fits = if traffic.ports().is_empty() { rule().ret() } else { rule().goto(&ports) };
    let mut rules: Vec<Rule> = Vec::new();
    if traffic.to().is_empty() {
        rules.push(fits);
    } else {
        let is_outside = rule().not_found(ranges(&to), [iif(), daddr(v6)]).accept();
        rules.extend([is_outside, fits]);
        let set = made.destinations(&to, traffic.to(), v6);
        table.sets.insert(to, set);
    }
    if !traffic.ports().is_empty() {
        let one = |p: &Ports| rule().is(l4proto(), p.protocol.number().into()).between(dport(), p.first.into(), p.last.into()).ret();
        let rules: Vec<Rule> = traffic.ports().iter().map(one).chain([rule().accept()]).collect();
        table.chains.insert(ports, Chain::regular(rules));
    }
    table.chains.insert(name.to_owned(), Chain::regular(rules));
}

/// The destinations of one family, by whatever interface the packet comes. The kernel takes no ranges that overlap.
fn destinations(to: &[Destination], v6: bool) -> Set {
    let mut set = Set::of([Datatype::IfIndex, Datatype::address(v6)]).with_ranges();
    let mut all: Vec<(u128, u128)> = to.iter().filter(|d| d.cidr.addr().is_ipv6() == v6).flat_map(without_exceptions).collect();
    all.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let key = |(first, last)| Key::any_interface_between(address(first, v6), address(last, v6));
    set.elements.extend(merged.into_iter().map(|range| (key(range), Data::None)));
    set
}

/// What is left of a destination, as first and last address.
fn without_exceptions(destination: &Destination) -> Vec<(u128, u128)> {
    let (mut next, last) = bounds(&destination.cidr);
    let mut except: Vec<(u128, u128)> = destination.except.iter().map(bounds).collect();
    except.sort_unstable();
    let mut left = Vec::new();
    for (from, to) in except {
        if from > next {
            left.push((next, (from - 1).min(last)));
        }
        let Some(after) = to.checked_add(1) else { return left };
        next = next.max(after);
        if next > last {
            return left;
        }
    }
    left.push((next, last));
    left
}

fn bounds(net: &IpNet) -> (u128, u128) {
    (bits(net.network()), bits(net.broadcast()))
}

/// An address as a number.
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn address(bits: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_net() -> impl Strategy<Value = IpNet> {
        (0_u8..16, 24_u8..=32).prop_map(|(low, length)| IpNet::new(IpAddr::from([10, 0, 0, low * 16]), length).unwrap().trunc())
    }

    fn a_destination() -> impl Strategy<Value = Destination> {
        let except = proptest::collection::vec(a_net(), 0..4);
        (a_net(), except).prop_map(|(cidr, except)| Destination { cidr, except: except.into_iter().filter(|e| cidr.contains(e)).collect() })
    }

    proptest! {
        #[test]
        fn the_set_holds_what_some_destination_has_and_does_not_except(to in proptest::collection::vec(a_destination(), 1..5)) {
            let set = destinations(&to, false);
            for low in 0..=255 {
                let address = IpAddr::from([10, 0, 0, low]);
                let meant = to.iter().any(|d| d.cidr.contains(&address) && !d.except.iter().any(|e| e.contains(&address)));
                let key = Key::any_interface_between(address, address);
                let found = set.elements.keys().any(|k| k.first <= key.first && key.last <= k.last);
                prop_assert_eq!(found, meant, "{}", address);
            }
        }
    }
}
