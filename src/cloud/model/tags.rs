//! Whose an object is: tags say it, so that it can be told after a kill, by another machine, and by a person.
//!
//! An elastic address that was allocated bears its tags from the call that made it on (`AllocateAddress` takes tags). `AssignPrivateIpAddresses`
//! takes none: a tag of the network interface lists the addresses, and is written before. What bears no tag of ours is never changed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::facts::{Elastic, Nic, Tags};

/// On an elastic address: the pool that has it.
pub const POOL: &str = "egressd.dev/pool";
/// On an elastic address: the network interface that it is for. Two hosts may have pools of one name.
pub const NIC: &str = "egressd.dev/network-interface";
/// On an elastic address: the private address that it is for.
pub const PRIVATE: &str = "egressd.dev/private-address";
/// On an elastic address: the subnet of that private address. No two machines of a subnet have one address, whatever their network interfaces are.
pub const SUBNET: &str = "egressd.dev/subnet";
/// On an elastic address: egressd has allocated it, and may release it.
pub const ALLOCATED: &str = "egressd.dev/allocated";
/// On a network interface, with the pool's name behind it: the addresses that were assigned for the pool.
pub const LEDGER: &str = "egressd.dev/pool/";
/// On a network interface, with a route table's id behind it: where that table's default route led before.
pub const ROUTE: &str = "egressd.dev/route/";
/// On a network interface: its source/destination check was on.
pub const CHECK: &str = "egressd.dev/source-dest-check";

/// What [`ROUTE`] says when there was no default route.
pub const NO_ROUTE: &str = "none";
/// Characters of a tag's value, by EC2's limit.
const MAX_VALUE: usize = 256;

/// Tags of an elastic address that is for `private` of `nic`.
pub fn elastic(pool: &str, nic: &Nic, private: Ipv4Addr, allocated: bool) -> Tags {
    let private = private.to_string();
    let tags = [(POOL, pool), (NIC, &nic.id), (PRIVATE, &private), (SUBNET, &nic.subnet.id), (ALLOCATED, "true")];
    tags[..if allocated { 5 } else { 4 }].iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What an elastic address's tags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    pub pool: &'a str,
    pub nic: &'a str,
    pub private: Ipv4Addr,
    /// `None` of those that earlier versions took.
    pub subnet: Option<&'a str>,
    pub allocated: bool,
}

/// Who has it, if it is egressd's at all.
pub fn claim(elastic: &Elastic) -> Option<Claim<'_>> {
    let tag = |key: &str| elastic.tags.get(key).map(String::as_str);
    Some(Claim {
        pool: tag(POOL)?,
        nic: tag(NIC)?,
        private: tag(PRIVATE)?.parse().ok()?,
        subnet: tag(SUBNET),
        allocated: tag(ALLOCATED) == Some("true"),
    })
}

/// The addresses that were assigned for the pool, by the network interface's tags.
pub fn ledger(tags: &Tags, pool: &str) -> BTreeSet<Ipv4Addr> {
    ledger_keys(tags, pool).filter_map(|key| tags.get(&key)).flat_map(|value| value.split(' ')).flat_map(range).collect()
}

/// Keys of the tags that hold the pool's ledger, in order.
pub fn ledger_keys(tags: &Tags, pool: &str) -> impl Iterator<Item = String> {
    let first = format!("{LEDGER}{pool}");
    let more = format!("{first}/");
    tags.keys().filter(move |key| **key == first || key.starts_with(&more)).cloned().collect::<Vec<_>>().into_iter()
}

/// The pools that have a ledger.
pub fn pools(tags: &Tags) -> impl Iterator<Item = &str> {
    tags.keys().filter_map(|key| key.strip_prefix(LEDGER)?.split('/').next())
}

/// The tags that say so: neighbours as ranges, and a second tag where one is too short.
pub fn ledger_tags(pool: &str, addresses: &BTreeSet<Ipv4Addr>) -> Tags {
    let mut values = vec![String::new()];
    for entry in ranges(addresses) {
        let last = values.last_mut().expect("there is one from the start");
        if last.is_empty() {
            *last = entry;
        } else if last.len() + 1 + entry.len() <= MAX_VALUE {
            *last += &format!(" {entry}");
        } else {
            values.push(entry);
        }
    }
    let key = |at: usize| if at == 0 { format!("{LEDGER}{pool}") } else { format!("{LEDGER}{pool}/{}", at + 1) };
    values.into_iter().enumerate().map(|(at, value)| (key(at), value)).collect()
}

/// `10.0.1.94-10.0.1.97`, `10.0.1.99`
fn ranges(addresses: &BTreeSet<Ipv4Addr>) -> Vec<String> {
    let mut ranges: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
    for address in addresses {
        match ranges.last_mut() {
            Some((_, last)) if u32::from(*last).checked_add(1) == Some(u32::from(*address)) => *last = *address,
            _ => ranges.push((*address, *address)),
        }
    }
    ranges.into_iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect()
}

/// What cannot be read names nothing: then nothing is taken away.
fn range(entry: &str) -> Vec<Ipv4Addr> {
    let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
    match (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
        (Ok(first), Ok(last)) if u32::from(last).saturating_sub(u32::from(first)) < 4096 => {
            (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_says_again_what_was_written() {
        let neighbours: BTreeSet<Ipv4Addr> = (94..98).map(|last| Ipv4Addr::new(10, 0, 1, last)).collect();
        assert_eq!(ledger_tags("web", &neighbours), Tags::from([("egressd.dev/pool/web".to_owned(), "10.0.1.94-10.0.1.97".to_owned())]));
        let apart: BTreeSet<Ipv4Addr> = (0..60).map(|n| Ipv4Addr::new(172, 131, 100, n * 2 + 100)).collect();
        for addresses in [BTreeSet::new(), neighbours, apart] {
            let mut tags = ledger_tags("web", &addresses);
            assert!(tags.values().all(|value| value.len() <= MAX_VALUE), "{tags:?}");
            tags.insert("egressd.dev/pool/web2".to_owned(), "10.9.9.9".to_owned());
            assert_eq!(ledger(&tags, "web"), addresses);
        }
    }

    #[test]
    fn a_ledger_that_a_person_has_spoiled_names_nothing() {
        for value in ["", "all", "10.0.1.9-10.0.1.3", "0.0.0.0-255.255.255.255", "10.0.1.300"] {
            assert!(ledger(&Tags::from([("egressd.dev/pool/web".to_owned(), value.to_owned())]), "web").is_empty(), "{value}");
        }
    }
}
