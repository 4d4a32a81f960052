//! Bridge networks that manifests ask for.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use bollard::models;
use ipnet::IpNet;

use super::{Engine, Error};
use crate::facts::docker::{self as facts, AskError, BRIDGE_NAME, MANAGED, wire};
use crate::model::manifests::ManagedNetwork;

const GUARD: &str = "egress.guard";

impl Engine {
    /// Makes a bridge network; one that is there with the same settings is left as it is, whoever made it.
    ///
    /// # Errors
    /// [`Error::Refused`] when a network of that name has other settings, or the engine cannot make this one.
    pub async fn create_network(&self, wanted: &ManagedNetwork) -> Result<(), Error> {
        // Engines up to 24 make a second network of the same name without a word.
        if let Some(found) = self.find_network(&wanted.name).await? {
            return same(wanted, found);
        }
        match self.docker.create_network(request(wanted)).await {
            Ok(_) => {
                tracing::info!(network = wanted.name, "docker network created");
                Ok(())
            }
            Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => Err(refusal(wanted, &message)),
            Err(source) => Err(Error::Engine { step: format!("create network {}", wanted.name), source }),
        }
    }

    /// Removes a network that egressd made and that no container is attached to; one that is gone is fine.
    ///
    /// # Errors
    /// [`Error::Refused`] when somebody else made it or a container is on it.
    pub async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let Some(found) = self.find_network(name).await? else {
            return Ok(());
        };
        if found.labels.get(MANAGED).map(String::as_str) != Some("true") {
            let message = format!("network {name} was not made by egressd and stays; remove it with `docker network rm {name}`");
            return Err(Error::refused("metadata.name", message));
        }
        let attached: BTreeSet<_> = found.containers.into_values().map(|one| one.name).collect();
        if !attached.is_empty() {
            let names = attached.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::refused("metadata.name", format!("network {name} is in use by {names}; stop them first")));
        }
        let id = found.id;
        match self.docker.remove_network(&id).await {
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                tracing::info!(network = name, "docker network removed");
                Ok(())
            }
            Err(source) => Err(Error::Engine { step: format!("remove network {name}"), source }),
        }
    }

    /// By its whole name or id, with its containers.
    pub(super) async fn find_network(&self, name: &str) -> Result<Option<wire::Network>, Error> {
        // The engine takes the beginning of an id for a name, too.
        let found = self.client.network(name).await.map_err(asked(format!("ask for network {name}")))?;
        Ok(found.filter(|one| one.name == name || one.id == name))
    }
}

pub(super) fn asked(step: String) -> impl FnOnce(AskError) -> Error {
    move |source| Error::Ask { step, source }
}

fn request(wanted: &ManagedNetwork) -> models::NetworkCreateRequest {
    let gateway = |subnet: &IpNet| wanted.gateways.iter().find(|gateway| subnet.contains(*gateway)).map(IpAddr::to_string);
    let pools = wanted.subnets.iter().map(|subnet| models::IpamConfig {
        subnet: Some(subnet.to_string()),
        gateway: gateway(subnet),
        ..Default::default()
    });
    let has = |v6: bool| wanted.subnets.iter().any(|subnet| subnet.addr().is_ipv6() == v6);
    let guard = wanted.guard.map(|on| (GUARD.to_owned(), guard_value(on).to_owned()));
    models::NetworkCreateRequest {
        name: wanted.name.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(models::Ipam { config: Some(pools.collect()), ..Default::default() }),
        enable_ipv6: Some(has(true)),
        // Known from API 1.48 on: without it an IPv6 network gets an IPv4 subnet of the engine's choice.
        enable_ipv4: (has(true) && !has(false)).then_some(false),
        options: wanted.bridge.clone().map(|bridge| HashMap::from([(BRIDGE_NAME.to_owned(), bridge)])),
        labels: Some([(MANAGED.to_owned(), "true".to_owned())].into_iter().chain(guard).collect()),
        ..Default::default()
    }
}

fn guard_value(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What was not said in the manifest may be anything.
fn same(wanted: &ManagedNetwork, found: wire::Network) -> Result<(), Error> {
    let gateways: BTreeSet<IpAddr> = found.ipam.config.iter().filter_map(|pool| facts::address(&pool.gateway)).collect();
    let name = &wanted.name;
    let found = facts::network(found);
    let differs = |field: &str, has: String, want: String| {
        let cure = format!("`docker network rm {name}` lets egressd create it again");
        Err(Error::refused(field, format!("network {name} exists with {has}, not {want}; change the manifest, or {cure}")))
    };

    if found.driver != "bridge" {
        return differs("metadata.name", format!("driver {}", found.driver), "bridge".to_owned());
    }
    // An engine before API 1.48 adds an IPv4 subnet to an IPv6 network.
    let asked: BTreeSet<IpNet> = wanted.subnets.iter().map(IpNet::trunc).collect();
    let only_v6 = asked.iter().all(|subnet| subnet.addr().is_ipv6());
    let there: BTreeSet<IpNet> = found.subnets.iter().map(IpNet::trunc).filter(|subnet| !only_v6 || subnet.addr().is_ipv6()).collect();
    if !asked.is_empty() && asked != there {
        return differs("spec.subnets", list("subnets", &there), list("subnets", &asked));
    }
    let asked: BTreeSet<IpAddr> = wanted.gateways.iter().copied().collect();
    if !asked.is_subset(&gateways) {
        return differs("spec.gateways", list("gateways", &gateways), list("gateways", &asked));
    }
    if let Some(bridge) = wanted.bridge.as_ref().filter(|bridge| found.bridge.as_ref() != Some(*bridge)) {
        return differs("spec.bridgeName", format!("bridge {}", found.bridge.unwrap_or_default()), bridge.clone());
    }
    if let Some(want) = wanted.guard.filter(|want| found.guard != Some(*want)) {
        let there = found.guard.map_or("unset", guard_value);
        return differs("spec.guard", format!("label {GUARD}={there}"), guard_value(want).to_owned());
    }
    Ok(())
}

fn list<T: ToString>(what: &str, values: &BTreeSet<T>) -> String {
    if values.is_empty() {
        return format!("no {what}");
    }
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The engine's own words name what is wrong; the field they are about is found by them, and the cure added.
fn refusal(wanted: &ManagedNetwork, message: &str) -> Error {
    let lower = message.to_lowercase();
    let (field, cure) = if lower.contains("overlap") || lower.contains("pool") {
        ("spec.subnets", "choose a subnet that no other network of this host has")
    } else if lower.contains("gateway") {
        ("spec.gateways", "choose a gateway inside the subnet")
    } else if lower.contains("bridge") {
        ("spec.bridgeName", "choose a device name that no other network uses, of at most 15 bytes")
    } else {
        ("metadata.name", "make it by hand with `docker network create` to see the engine's own error")
    };
    Error::refused(field, format!("the engine refuses network {}: {}; {cure}", wanted.name, message.trim_end_matches('.')))
}
