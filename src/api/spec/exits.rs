//! `spec.exits`: addresses, ranges of them, or an interface's own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{optional, take};
use crate::api::binding::{EgressBindingSpec, Exit};
use crate::api::values::{self, Fault, Faults, MAX_ADDRESSES, MAX_ITEMS};
use crate::model::binding::ExitSpec;

/// Each address once, in the order in which they are written.
pub fn exits(spec: &EgressBindingSpec, faults: &mut Faults) -> Vec<ExitSpec> {
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
        let like = |address| ExitSpec {
            interface: interface.clone(),
            gateway,
            weight: weight.unwrap_or(1),
            draining: exit.draining,
            ..ExitSpec::new(address)
        };
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
                Err(Fault::new(format!("makes more than {MAX_ADDRESSES} addresses in all")).cure("write fewer"))
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

/// The addresses of an entry, with the field that says them; `None` when it names an interface alone.
fn addresses(exit: &Exit) -> (&'static str, Option<Result<Vec<IpAddr>, Fault>>) {
    match (&exit.address, &exit.addresses) {
        (Some(_), Some(_)) => ("addresses", Some(Err(Fault::new("is given beside `address`").cure("keep one of them")))),
        (Some(one), None) => ("address", Some(values::exit_address(one).map(|address| vec![address]))),
        (None, Some(many)) => ("addresses", Some(values::exit_addresses(many))),
        (None, None) => ("address", None),
    }
}
