//! `spec.inbound`: ports of the exits that the workloads serve.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::health::health;
use super::last_resort::last_resort;
use super::{ipvs, optional, take};
use crate::api::binding::EgressBindingSpec;
use crate::api::inbound::{ClientSource, ServerWeight};
use crate::api::values::{self, Fault, Faults, MAX_ITEMS, affinity};
use crate::model::binding::{BindingName, Source};
use crate::model::inbound::{Inbound, Limits};
use crate::model::ipvs::Engine;

/// Each entry as written; none of them overlaps another.
pub fn inbound(name: &BindingName, spec: &EgressBindingSpec, faults: &mut Faults) -> Vec<Inbound> {
    let mut all: Vec<Inbound> = Vec::new();
    if spec.host_selector.is_some() && !spec.inbound.is_empty() {
        faults.push("spec.inbound", || {
            "is given beside `hostSelector`: programs of this host are reached at its addresses as they are; leave one of them out"
                .to_owned()
        });
        return all;
    }
    for (i, entry) in spec.inbound.iter().enumerate().take(MAX_ITEMS) {
        let path = |field: &str| format!("spec.inbound[{i}].{field}");
        let (field, example) = if entry.end_port.is_some() { ("endPort", "27019") } else { ("port", "27017") };
        let ports = values::port_range(entry.protocol.into(), entry.port, entry.end_port.unwrap_or(entry.port));
        let ports = ports.and_then(|ports| match all.iter().any(|other| other.ports.meets(&ports)) {
            true => Err(Fault::new(format!("`{ports}` is given twice")).cure("keep one")),
            false => Ok(ports),
        });
        let mut good = Vec::new();
        take(faults, || path(field), example, ports, &mut good);
        let mut target = Vec::new();
        if let Some(port) = entry.target_port {
            let one = match entry.end_port {
                Some(_) => {
                    Err(Fault::new("is given beside `endPort`: the ports of a range stay as they are").cure("leave one of them out"))
                }
                None => values::port_range(entry.protocol.into(), port, port).map(|ports| ports.first),
            };
            take(faults, || path("targetPort"), "1234", one, &mut target);
        }
        let (engine, thresholds) = (ipvs::engine(&path, entry, faults), ipvs::thresholds(&path("servers"), entry, faults));
        if name.source == Source::Api && entry.client_source == ClientSource::RouteBack {
            faults.push(&path("clientSource"), || {
                "is for manifest files on a node: each new pod's network namespace would need a rule; use `Masquerade`".to_owned()
            });
        }
        let weights = weights(&path("servers"), &entry.servers, faults);
        let range = entry.end_port.is_some_and(|end| end != entry.port);
        let health = entry.health.as_ref().and_then(|one| health(&path("health"), one, range, faults));
        let last_resort = last_resort(name, &path, (entry, range), faults);
        let affinity = optional(faults, || path("affinity"), "60s", entry.affinity.as_deref().map(affinity));
        if range && entry.max_connections.is_some() {
            faults.push(&path("maxConnections"), || {
                "is given beside `endPort`: connections are counted for one port; leave one of them out".to_owned()
            });
        }
        if engine != Engine::Nftables {
            let given = [
                ("affinity", entry.affinity.is_some(), "use `persistence` instead"),
                ("maxConnections", entry.max_connections.is_some(), "use `upperThreshold` of each of `servers` instead"),
                ("newConnectionsPerSecond", entry.new_connections_per_second.is_some(), "choose that, or remove this"),
            ];
            for (field, _, cure) in given.into_iter().filter(|(_, given, _)| *given) {
                faults.push(&path(field), || format!("is for the engine Nftables; {cure}"));
            }
        }
        let limit = |number: Option<i32>| number.and_then(|number| number.try_into().ok());
        let limits = Limits { per_server: limit(entry.max_connections), per_client: limit(entry.new_connections_per_second) };
        all.extend(good.pop().map(|ports| Inbound {
            address: None,
            ports,
            target: target.pop(),
            engine,
            balance: entry.balance.unwrap_or_default().into(),
            client_source: entry.client_source.into(),
            weight: 1,
            weights,
            thresholds,
            health,
            all_down: entry.all_down.into(),
            last_resort,
            drain: entry.drain_seconds.and_then(|seconds| seconds.try_into().ok()),
            affinity,
            limits,
            refusal: None,
        }));
    }
    if !all.is_empty() {
        for (i, source) in spec.addresses.iter().flatten().enumerate() {
            // What is wrong with it otherwise is said already.
            if values::cidr(&source.cidr).is_ok_and(|net| net.prefix_len() < net.max_prefix_len()) {
                faults.push(&format!("spec.addresses[{i}].cidr"), || {
                    "is a subnet, and with `inbound` each address is a server; write each of them, for instance `10.0.0.2/32`".to_owned()
                });
            }
        }
    }
    all
}

/// The weights of single workloads, by address; none is given twice.
fn weights(path: &str, servers: &[ServerWeight], faults: &mut Faults) -> BTreeMap<IpAddr, u16> {
    let mut weights = BTreeMap::new();
    for (i, server) in servers.iter().enumerate().take(MAX_ITEMS) {
        let address = values::host_address(&server.address).and_then(|address| match weights.contains_key(&address) {
            true => Err(Fault::new(format!("`{address}` is given twice")).cure("keep one")),
            false => Ok(address),
        });
        let mut good = Vec::new();
        take(faults, || format!("{path}[{i}].address"), "10.0.0.2", address, &mut good);
        weights.extend(good.pop().map(|address| (address, u16::try_from(server.weight).unwrap_or_default())));
    }
    weights
}
