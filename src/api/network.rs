//! The `EgressNetwork` document: a Docker bridge network to make before its containers. Files only, so it is no custom resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const KIND: &str = "EgressNetwork";

/// A Docker bridge network that egressd creates, and keeps, before its containers exist. `metadata.name` is the network's name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressNetworkSpec {
    /// Subnets, at most one of each family, for instance `172.19.0.0/16`.
    #[schemars(length(min = 1, max = 2))]
    pub subnets: Vec<String>,
    /// The bridge's own addresses, at most one in each subnet. Docker takes the first address of a subnet that has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub gateways: Vec<String>,
    /// Name of the bridge device, at most 15 bytes. Docker chooses one when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_name: Option<String>,
    /// Whether traffic of sources that are neither bound nor known to be unbound is dropped. When not given, the network is guarded while a bound container is on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<bool>,
}
