//! What the manifests of a folder say.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::Binding;
use super::cloud::CloudPool;
use super::field_error::ManifestError;
use super::proxy::Proxy;

/// A Docker bridge network to make before its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedNetwork {
    pub name: String,
    pub subnets: Vec<IpNet>,
    /// One for each subnet that has one, in any order.
    pub gateways: Vec<IpAddr>,
    /// Name of the bridge device (at most 15 bytes).
    pub bridge: Option<String>,
    /// `egress.guard` of the network: `None` leaves the default.
    pub guard: Option<bool>,
}

/// All that the manifests of a folder say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifests {
    pub bindings: Vec<Arc<Binding>>,
    pub networks: Vec<ManagedNetwork>,
    /// For `egressd proxy` alone.
    pub proxies: Vec<Arc<Proxy>>,
    /// Pools with `cloud`, for `egressd-cloud` alone.
    pub pools: Vec<Arc<CloudPool>>,
    /// What could not be read at all, by file (and document).
    pub errors: Vec<ManifestError>,
}
