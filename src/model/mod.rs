//! Who gets which exit. Pure: no clock, no socket, no file.
//!
//! [`resolve::resolve`] is the whole of it: facts and what is remembered in, one row for each address of each workload out.

use std::collections::BTreeMap;

pub mod address;
pub mod away;
pub mod binding;
pub mod cloud;
pub mod cluster;
pub mod facts;
pub mod field_error;
pub mod fits;
pub mod gateways;
pub mod health;
pub mod inbound;
pub mod ipvs;
pub mod isolated;
pub mod jhash;
pub mod known;
pub mod labels;
pub mod leave;
pub mod leaving;
pub mod listeners;
pub mod managed;
pub mod manifests;
mod not_a_host;
mod not_an_uplink;
pub mod objects;
pub mod outcome;
mod overlap;
pub mod picked;
pub mod pod;
pub mod policy;
pub mod pool;
pub mod port_owners;
pub mod port_refusal;
pub mod port_use;
pub mod ports;
pub mod programs;
pub mod proxy;
pub mod rate;
pub mod reason;
pub mod release;
pub mod resolve;
pub mod route_back;
pub mod select;
pub mod served;
pub mod services;
mod slots;
pub mod source_ports;
pub mod spread;
pub mod started;
pub mod touched;
pub mod toward;
pub mod uplinks;
pub mod ways;
pub mod ways_back;
pub mod workload;

/// Puts a value in another's place; whether they differ.
pub fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let differs = *place != value;
    *place = value;
    differs
}

/// Puts a value under a key; whether it was not there, or another was.
pub fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    let new = map.get(&key) != Some(&value);
    map.insert(key, value);
    new
}
