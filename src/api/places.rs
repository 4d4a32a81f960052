//! `status.nodes` of a pool: which node has which of its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::pool::PoolNode;
use super::values;
use crate::model::pool::{MAX_PLACED, Places};

/// As a status has it: the nodes in the order of their names, and addresses that follow each other as a range.
pub fn write(places: &Places) -> Vec<PoolNode> {
    let mut nodes: BTreeMap<&String, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
    for (address, node) in places {
        let ranges = nodes.entry(node).or_default();
        match ranges.last_mut().filter(|(_, last)| next(*last) == Some(*address)) {
            Some((_, last)) => *last = *address,
            None => ranges.push((*address, *address)),
        }
    }
    let text = |(first, last): (IpAddr, IpAddr)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    nodes.into_iter().map(|(name, ranges)| PoolNode { name: name.clone(), addresses: ranges.into_iter().map(text).collect() }).collect()
}

/// From a status. What cannot be read in it is not given to anybody, and more than there may be is passed over.
pub fn read(nodes: &[PoolNode]) -> Places {
    let of = |node: &PoolNode| {
        let name = node.name.clone();
        let addresses = node.addresses.iter().filter_map(|text| values::exit_addresses(text).ok()).flatten();
        addresses.map(|address| (address, name.clone())).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).take(MAX_PLACED).collect()
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_neighbours_are_a_range() {
        let place = |address: &str, node: &str| (address.parse::<IpAddr>().expect("an address"), node.to_owned());
        let all = [
            place("10.0.1.4", "n2"),
            place("10.0.1.5", "n1"),
            place("10.0.1.6", "n1"),
            place("10.0.1.8", "n1"),
            place("10.0.1.255", "n1"),
            place("10.0.2.0", "n1"),
            place("2001:db8::ffff", "n1"),
            place("2001:db8::1:0", "n1"),
        ];
        let places = Places::from(all);
        let written = write(&places);
        let text: Vec<(&str, Vec<&str>)> =
            written.iter().map(|node| (node.name.as_str(), node.addresses.iter().map(String::as_str).collect())).collect();
        let n1 = vec!["10.0.1.5-10.0.1.6", "10.0.1.8", "10.0.1.255-10.0.2.0", "2001:db8::ffff-2001:db8::1:0"];
        assert_eq!(text, [("n1", n1), ("n2", vec!["10.0.1.4"])]);
        assert_eq!(read(&written), places);
    }

    #[test]
    fn what_nobody_can_read_is_given_to_nobody() {
        let node = |addresses: &[&str]| PoolNode { name: "n1".to_owned(), addresses: addresses.iter().map(|a| (*a).to_owned()).collect() };
        assert_eq!(read(&[node(&["ten", "10.0.0.9-10.0.0.4", "10.0.0.0/8", "10.0.0.4"])]).len(), 1);
        let whole = node(&["10.0.0.0-10.0.15.255", "10.1.0.0-10.1.15.255"]);
        assert_eq!(read(&[whole]).len(), MAX_PLACED);
    }
}
