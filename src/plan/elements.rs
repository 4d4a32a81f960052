//! What the elements of our sets stand for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::datapath::names;
use crate::model::facts::IfIndex;
use crate::nft::{Data, Family, Key, Ruleset};

/// The addresses that ports own.
pub fn owners(ruleset: &Ruleset) -> BTreeSet<(IfIndex, IpAddr)> {
    let sets = ruleset.tables.get(&Family::Bridge).map(|table| &table.sets);
    let of = |v6: bool| sets.and_then(|sets| sets.get(names::OWNERS[usize::from(v6)])).map(|set| (set, v6));
    [of(false), of(true)]
        .into_iter()
        .flatten()
        .flat_map(|(set, v6)| set.elements.keys().filter_map(move |key| source_of(key, v6)))
        .collect()
}

/// The number in a key of single values.
pub fn number_at(key: &Key, at: usize) -> Option<u32> {
    number(key.first.as_slice().get(at..)?)
}

/// The number in the data of an element.
pub fn number_in(data: &Data) -> Option<u32> {
    match data {
        Data::Value(value) => number(value.as_slice()),
        Data::None | Data::Verdict(_) => None,
    }
}

/// The address in the data of an element.
pub fn address_of(data: &Data, v6: bool) -> Option<IpAddr> {
    match data {
        Data::Value(value) => address_in(value.as_slice(), v6),
        Data::None | Data::Verdict(_) => None,
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

/// Interface and source of a key of single values.
pub fn source_of(key: &Key, v6: bool) -> Option<(IfIndex, IpAddr)> {
    Some((number_at(key, 0)?, address_in(key.first.as_slice().get(4..)?, v6)?))
}

/// The address that bytes begin with.
pub fn address_in(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    if v6 { Some(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?.into()) } else { Some(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?.into()) }
}
