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
    match &pool.aws.interface {
        Interface::Id(id) => nics
            .iter()
            .find(|nic| nic.id == *id)
            .ok_or_else(|| format!("there is no network interface {id}; correct `spec.cloud.aws.networkInterface`, or `region`")),
        Interface::Device(wanted) => nics.iter().find(|nic| index(nic) == Some(*wanted)).ok_or_else(|| {
            format!(
                "this instance has no network interface with device index {wanted}; attach one, or correct `spec.cloud.aws.deviceIndex`"
            )
        }),
        Interface::InSubnet => {
            let first = pool.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let within = nics.iter().filter(|nic| nic.subnet.contains(first));
            within.min_by_key(|nic| index(nic).unwrap_or(u32::MAX)).ok_or_else(|| {
                format!("this instance has no network interface in the subnet of {first}; attach one, or name it by `spec.cloud.aws.networkInterface`")
            })
        }
    }
}

/// What cannot be told outside of an instance.
pub fn needs_instance(pool: &CloudPool) -> bool {
    !matches!(pool.aws.interface, Interface::Id(_))
}
