//! Exits of a binding that are not used just now, though others of their family are.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::list;
use crate::model::binding::{Binding, ExitSpec, Source};
use crate::model::facts::Family;
use crate::model::reason::Reason;
use crate::model::uplinks::Uplinks;

/// One exit, or several for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostExit {
    /// As they are written, an address or an interface; several with commas between them, and a row of addresses as `172.31.0.65-172.31.0.79`.
    pub exits: String,
    /// One word, and a sentence with the cure.
    pub reason: String,
    pub message: String,
}

/// The exits of a binding that its workloads of this family cannot leave by. Those that drain are not among them; nor, of a cluster's binding,
/// are those of other nodes.
pub fn lost(binding: &Binding, uplinks: &Uplinks, family: Family) -> Vec<LostExit> {
    let mut groups: Vec<(&Reason, Vec<&ExitSpec>)> = Vec::new();
    let mut absent: Vec<&ExitSpec> = Vec::new();
    for spec in binding.exits.iter().filter(|spec| Family::of(spec.address) == family && !spec.draining) {
        match uplinks.exit(spec) {
            Some(Err(Reason::AddressNotFound { .. })) if binding.name.source == Source::Api => {}
            Some(Err(Reason::AddressNotFound { .. })) => absent.push(spec),
            Some(Err(reason)) => match groups.last_mut() {
                Some((last, specs)) if *last == reason => specs.push(spec),
                _ => groups.push((reason, vec![spec])),
            },
            Some(Ok(_)) | None => {}
        }
    }
    let mut lost: Vec<LostExit> = groups.into_iter().map(|(reason, specs)| of(&specs, reason.word(), reason.to_string())).collect();
    if let Some(first) = absent.first() {
        let one = Reason::AddressNotFound { address: first.address };
        let message = match absent.len() {
            1 => one.to_string(),
            many => {
                format!("no interface holds these {many}; add the ones to use to the NIC: ip address add ADDRESS/PREFIX dev NIC")
            }
        };
        lost.push(of(&absent, one.word(), message));
    }
    lost
}

fn of(specs: &[&ExitSpec], word: &str, message: String) -> LostExit {
    LostExit { exits: written(specs), reason: word.to_owned(), message }
}

/// As they are written, with each row of addresses as its first and last one.
fn written(specs: &[&ExitSpec]) -> String {
    let mut rows: Vec<(&ExitSpec, &ExitSpec)> = Vec::new();
    for spec in specs {
        match rows.last_mut() {
            Some((_, last)) if is_next(last.address, spec.address) => *last = spec,
            _ => rows.push((spec, spec)),
        }
    }
    let shown = rows.iter().map(|(first, last)| match first == last {
        true => first.written(),
        false => format!("{}-{}", first.address, last.address),
    });
    list(&shown.collect::<Vec<_>>())
}

fn is_next(last: IpAddr, address: IpAddr) -> bool {
    match (last, address) {
        (IpAddr::V4(last), IpAddr::V4(address)) => last.to_bits().checked_add(1) == Some(address.to_bits()),
        (IpAddr::V6(last), IpAddr::V6(address)) => last.to_bits().checked_add(1) == Some(address.to_bits()),
        _ => false,
    }
}
