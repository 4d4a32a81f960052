//! Which network interface a pool means.

use std::net::Ipv4Addr;

use egressd::model::cloud::{CloudPool, Interface};

use super::facts::Nic;

/// The pool's NIC among those that were read.
///
/// # Errors
/// That there is none, with the cure.
pub fn choose<'a>(pool: &CloudPool, nics: &'a [Nic]) -> Result<&'a Nic, String> {
    let index = |nic: &Nic| nic.attachment.as_ref().map(|(_, index)| *index);
    let whose = || match &pool.host {
        Some(host) => format!("instance {} (node {})", host.instance, host.node),
        None => "this instance".to_owned(),
    };
    match (&pool.aws.interface, pool.host.as_ref().filter(|host| !host.holds.is_empty())) {
        (Interface::Id(id), _) => nics
            .iter()
            .find(|nic| nic.id == *id)
            .ok_or_else(|| format!("there is no network interface {id}; correct `spec.cloud.aws.networkInterface`, or `region`")),
        (Interface::Device(wanted), _) => nics.iter().find(|nic| index(nic) == Some(*wanted)).ok_or_else(|| {
            let whose = whose();
            format!("{whose} has no network interface with device index {wanted}; attach one, or correct `spec.cloud.aws.deviceIndex`")
        }),
        (Interface::InSubnet, Some(host)) => {
            let held = nics.iter().find(|nic| host.holds.iter().any(|address| nic.holds(*address)));
            held.ok_or_else(|| {
                let all: Vec<String> = host.holds.iter().map(ToString::to_string).collect();
                format!("no network interface of {} has an address of the pool's interface ({}); see whether the node's agent is on that instance", whose(), all.join(", "))
            })
        }
        (Interface::InSubnet, None) => {
            let first = pool.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let within = nics.iter().filter(|nic| nic.subnet.contains(first));
            within.min_by_key(|nic| index(nic).unwrap_or(u32::MAX)).ok_or_else(|| {
                let whose = whose();
                format!(
                    "{whose} has no network interface in the subnet of {first}; attach one, or name it by `spec.cloud.aws.networkInterface`"
                )
            })
        }
    }
}
