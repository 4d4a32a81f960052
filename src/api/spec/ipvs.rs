//! What of `spec.inbound` is for IPVS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::inbound::{ClientSource, Inbound};
use crate::api::ipvs::{self, Persistence};
use crate::api::values::{self, Faults, MAX_ITEMS};
use crate::model::ipvs::{Balancer, Engine, Persistence as Persistent, Thresholds};

/// The engine of an entry whose fields have these paths, and what it is told. What is for the other engine is refused.
pub fn engine(path: &impl Fn(&str) -> String, entry: &Inbound, faults: &mut Faults) -> Engine {
    if entry.engine == ipvs::Engine::Nftables {
        let given = [("scheduler", entry.scheduler.is_some()), ("persistence", entry.persistence.is_some())];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            faults.push(&path(field), || {
                "is for the engine Ipvs; write `engine: Ipvs` beside it, or use `balance` (`BySource` keeps a client at its server)"
                    .to_owned()
            });
        }
        if entry.client_source == ClientSource::RouteBack {
            faults.push(&path("clientSource"), || {
                "`RouteBack` is for the engine Ipvs; write `engine: Ipvs` beside it, or choose `Preserve` or `Masquerade`".to_owned()
            });
        }
        return Engine::Nftables;
    }
    if entry.balance.is_some() {
        faults.push(&path("balance"), || "is for the engine Nftables; use `scheduler` instead, for instance `rr` or `sh`".to_owned());
    }
    if entry.end_port.is_some_and(|end| end != entry.port) {
        faults.push(&path("endPort"), || {
            "makes a range, and the engine Ipvs serves single ports; write an entry for each port, or `engine: Nftables`".to_owned()
        });
    }
    let persistence = entry.persistence.as_ref().map(|persistence| {
        let Persistence { seconds, ipv4_prefix_length, ipv6_prefix_length } = *persistence;
        Persistent {
            seconds: bounded(seconds),
            ipv4_prefix_length: bounded(ipv4_prefix_length),
            ipv6_prefix_length: bounded(ipv6_prefix_length),
        }
    });
    Engine::Ipvs(Balancer { scheduler: entry.scheduler.map(Into::into).unwrap_or_default(), persistence })
}

/// The thresholds of single workloads, by address. What is wrong with the address is said elsewhere.
pub fn thresholds(path: &str, entry: &Inbound, faults: &mut Faults) -> BTreeMap<IpAddr, Thresholds> {
    let mut all = BTreeMap::new();
    for (i, server) in entry.servers.iter().enumerate().take(MAX_ITEMS) {
        let (upper, lower) = (server.upper_threshold, server.lower_threshold);
        for (field, _) in [("upperThreshold", upper), ("lowerThreshold", lower)].into_iter().filter(|(_, given)| given.is_some()) {
            if entry.engine == ipvs::Engine::Nftables {
                faults.push(&format!("{path}[{i}].{field}"), || "is for the engine Ipvs; write `engine: Ipvs`, or remove it".to_owned());
            }
        }
        if let Some(lower) = lower.filter(|lower| upper.is_none_or(|upper| *lower > upper)) {
            faults.push(&format!("{path}[{i}].lowerThreshold"), || match upper {
                Some(upper) => format!("{lower} is above `upperThreshold`, {upper}; write at most {upper}"),
                None => "is given without `upperThreshold`; write that, too, or remove it".to_owned(),
            });
        }
        if let Ok(address) = values::host_address(&server.address) {
            all.insert(address, Thresholds { upper: upper.map_or(0, bounded), lower: lower.map_or(0, bounded) });
        }
    }
    all
}

/// A number that the schema bounds. One beyond is refused with the whole document.
fn bounded<T: TryFrom<i32> + Default>(number: i32) -> T {
    T::try_from(number).unwrap_or_default()
}
