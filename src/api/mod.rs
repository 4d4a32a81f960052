//! What users write: labels, manifests and the custom resource. All end in [`crate::model::binding`], with what is wrong as a value.
//! Pure: bytes and strings in, types out.

pub mod binding;
pub mod cloud;
pub mod definitions;
pub mod document;
pub mod exit;
pub mod host;
pub mod inbound;
pub mod ipvs;
pub mod isolated;
pub mod labels;
pub mod manifest;
pub mod nearest;
pub mod network;
pub mod node;
pub mod object;
pub mod places;
pub mod pool;
pub mod protocol;
pub mod proxy;
pub mod reference;
mod schema;
pub mod spec;
pub mod status;
mod values;

pub use values::printable;

/// An address of a NIC, as a command line names it.
///
/// # Errors
/// What is wrong with it, and the cure.
pub fn exit_address(text: &str) -> Result<std::net::IpAddr, String> {
    values::exit_address(text).map_err(|fault| fault.message("172.31.0.14"))
}

/// A subnet, as a command line names it.
///
/// # Errors
/// What is wrong with it, and the cure.
pub fn subnet(text: &str) -> Result<ipnet::IpNet, String> {
    values::cidr(text).map_err(|fault| fault.message("10.0.0.0/8"))
}
