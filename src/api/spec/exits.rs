//! `spec.exits`: addresses, ranges of them, or an interface's own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{optional, take};
use crate::api::binding::{Assignment, EgressBindingSpec, Exit};
use crate::api::exit as api;
use crate::api::values::{self, Fault, Faults, MAX_ADDRESSES, MAX_ITEMS};
use crate::model::binding::{ExitSpec, Source};
use crate::model::health::{ExitProbe, HealthCheck, Probe};

/// Each address once, in the order in which they are written.
pub fn exits(source: Source, spec: &EgressBindingSpec, faults: &mut Faults) -> Vec<ExitSpec> {
    let mut all: Vec<ExitSpec> = Vec::new();
    let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
    if spec.exits.is_empty() {
        faults.push("spec.exits", || "is empty; write for instance `[{address: 172.31.0.14}]`".to_owned());
    }
    for (i, exit) in spec.exits.iter().enumerate().take(MAX_ITEMS) {
        let path = |field: &str| format!("spec.exits[{i}].{field}");
        let (field, addresses) = addresses(exit);
        let interface = optional(faults, || path("interface"), "eth1", exit.interface.as_deref().map(values::interface));
        let gateway = optional(faults, || path("gateway"), "172.31.0.1", exit.gateway.as_deref().map(values::gateway));
        let weight = optional(faults, || path("weight"), "3", exit.weight.map(|number| values::weight(number.into())));
        let ports = optional(faults, || path("sourcePorts"), "40000-49999", exit.source_ports.as_deref().map(values::source_ports));
        let probe = exit.probe.as_ref().and_then(|probe| probe_of(probe, exit, path("probe.tcp"), faults));
        let public =
            optional(faults, || path("publicAddress"), "109.25.48.65", exit.public_address.as_deref().map(|text| public(exit, text)));
        let like = |address: IpAddr| ExitSpec {
            interface: interface.clone(),
            gateway,
            weight: weight.unwrap_or(1),
            draining: exit.draining,
            assignment: exit.assignment.into(),
            public: public.filter(|public| public.is_ipv4() == address.is_ipv4()),
            source_ports: ports,
            probe: probe.clone().filter(|probe| probe.to.is_ipv4() == address.is_ipv4()),
            ..ExitSpec::new(address)
        };
        if exit.assignment != Assignment::Existing {
            if source == Source::Api {
                faults.push(&path("assignment"), || {
                    "is for manifest files on a node: here every node would have the address; name a pool (`spec.pool`), which has this field as well"
                        .to_owned()
                });
            } else if addresses.is_none() && exit.interface.is_some() {
                faults.push(&path("assignment"), || {
                    format!("is {:?}, but the exit is an interface's own address; add `address`, or leave it out", exit.assignment)
                });
            }
        }
        let Some(addresses) = addresses else {
            match &interface {
                Some(_) => all.extend(values::own_addresses(gateway).map(like)),
                // What is wrong with it is said already.
                None if exit.interface.is_some() => {}
                None => faults.push(&path("address"), || {
                    "is missing; write for instance `address: 172.31.0.14`, or the interface whose own address it is".to_owned()
                }),
            }
            continue;
        };
        let addresses = addresses.and_then(|addresses| match addresses.iter().find(|address| !seen.insert(**address)) {
            Some(twice) => Err(Fault::new(format!("`{twice}` is given twice")).cure("keep one")),
            None if seen.len() > MAX_ADDRESSES => {
                Err(Fault::new(format!("makes more than {MAX_ADDRESSES} addresses in total")).cure("write fewer"))
            }
            None => Ok(addresses),
        });
        let mut good = Vec::new();
        take(faults, || path(field), "172.31.0.14", addresses, &mut good);
        let good: Vec<IpAddr> = good.into_iter().flatten().collect();
        let misfit = |address: &IpAddr| values::check_gateway(*address, gateway?).err();
        if let Some(fault) = good.iter().find_map(misfit) {
            faults.push(&path("gateway"), || fault.message("172.31.0.1"));
        }
        all.extend(good.into_iter().map(like));
    }
    all
}

/// What an entry's addresses are to reach.
fn probe_of(probe: &api::ExitProbe, exit: &Exit, field: String, faults: &mut Faults) -> Option<ExitProbe> {
    let to = values::endpoint(&probe.tcp).and_then(|to| match exit.address.as_deref().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(address) if address.is_ipv4() != to.is_ipv4() => {
            Err(Fault::new(format!("`{to}` is not of the family of `{address}`")).cure("write one that this address can reach"))
        }
        _ => Ok(to),
    });
    let to = optional(faults, || field.clone(), "198.51.100.10:443", Some(to))?;
    if exit.assignment == Assignment::Routed {
        faults.push(&field, || "is for an address of a NIC: this host cannot send from one that is `Routed`; leave it out".to_owned());
        return None;
    }
    let (interval, failures) = (u32::try_from(probe.interval_milliseconds).ok()?, u16::try_from(probe.failures).ok()?);
    Some(ExitProbe { to, how: Arc::new(HealthCheck { probe: Probe::Tcp, port: None, interval, failures }) })
}

/// What the outside sees of an entry's one address.
fn public(exit: &Exit, text: &str) -> Result<IpAddr, Fault> {
    if exit.addresses.is_some() {
        return Err(Fault::new("is given for several addresses").cure("write an exit for each of them"));
    }
    let public = values::host_address(text)?;
    match exit.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok()) {
        Some(address) if address.is_ipv4() != public.is_ipv4() => {
            Err(Fault::new(format!("`{public}` is not of the family of `{address}`")).cure("write the address that the outside sees"))
        }
        _ => Ok(public),
    }
}

/// The addresses of an entry, with the field that says them; `None` when it names an interface alone.
fn addresses(exit: &Exit) -> (&'static str, Option<Result<Vec<IpAddr>, Fault>>) {
    match (&exit.address, &exit.addresses) {
        (Some(_), Some(_)) => ("addresses", Some(Err(Fault::new("is given beside `address`").cure("keep one of them")))),
        (Some(one), None) => ("address", Some(values::exit_address(one).map(|address| vec![address]))),
        (None, Some(many)) => ("addresses", Some(values::exit_addresses(many))),
        (None, None) => ("address", None),
    }
}
