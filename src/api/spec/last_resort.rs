//! `lastResort` of `spec.inbound`: who gets calls while no workload does.

use super::take;
use crate::api::inbound::{self, AllDown, Inbound};
use crate::api::values::{self, Fault, Faults, MAX_ITEMS};
use crate::model::binding::{BindingName, Source};
use crate::model::inbound::LastResort;
use crate::model::ports::Protocol;

/// The servers of last resort of an entry whose fields have these paths; `is_range` when it serves several ports.
pub fn last_resort(
    name: &BindingName,
    path: &impl Fn(&str) -> String,
    (entry, is_range): (&Inbound, bool),
    faults: &mut Faults,
) -> Vec<LastResort> {
    let own = path("lastResort");
    if entry.last_resort.is_empty() {
        return Vec::new();
    }
    if name.source == Source::Api {
        faults
            .push(&own, || "is for manifest files on a node: in a cluster calls go only to the pods of the binding; remove it".to_owned());
    }
    if entry.all_down == AllDown::KeepAll {
        faults.push(&own, || "gets no call with `allDown: KeepAll`, which sends calls to all workloads; leave one of them out".to_owned());
    }
    let mut all: Vec<LastResort> = Vec::new();
    for (i, written) in entry.last_resort.iter().enumerate().take(MAX_ITEMS) {
        let address = values::last_resort_address(&written.address).and_then(|address| {
            match all.iter().any(|other| other.address.is_ipv4() == address.is_ipv4()) {
                true => Err(Fault::new(format!("`{address}` is a second one of its family")).cure("keep one of each family")),
                false => Ok(address),
            }
        });
        let mut good = Vec::new();
        take(faults, || format!("{own}[{i}].address"), "10.0.0.9", address, &mut good);
        let mut port = Vec::new();
        if let Some(one) = port_of(written, is_range) {
            take(faults, || format!("{own}[{i}].port"), "8080", one, &mut port);
        }
        all.extend(good.pop().map(|address| LastResort { address, port: port.pop() }));
    }
    all
}

fn port_of(written: &inbound::LastResort, is_range: bool) -> Option<Result<u16, Fault>> {
    let port = written.port?;
    Some(match is_range {
        true => Err(Fault::new("is given beside `endPort`: the ports of a range stay as they are").cure("leave one of them out")),
        false => values::port_range(Protocol::Tcp, port, port).map(|ports| ports.first),
    })
}
