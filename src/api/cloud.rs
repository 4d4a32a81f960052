//! The part of an `EgressPool` that a cloud's API carries out: `egressd-cloud` reads it, and the agent passes over it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Which cloud the pool's addresses are of. `egressd-cloud` keeps it as it says here; without `cloud` nothing is done there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCloud {
    /// Amazon EC2.
    pub aws: AwsCloud,
}

/// What is kept in Amazon EC2: the pool's addresses are private addresses of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsCloud {
    /// The region, for instance `eu-central-1`; that of `egressd-cloud` (`AWS_REGION`, or its own instance's) when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub region: Option<String>,
    /// The network interface by its id, for instance `eni-0a1b2c3d4e5f60718`. When neither this nor `deviceIndex` is given: the NIC of `egressd-cloud`'s own
    /// instance that is in the addresses' subnet, with the lowest device index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub network_interface: Option<String>,
    /// The network interface by its device index at `egressd-cloud`'s own instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 63))]
    pub device_index: Option<i32>,
    /// Public addresses: `Allocate` takes a new elastic address for each address of the pool; `{tag: "KEY=VALUE"}` uses the account's free ones that
    /// bear this tag. None when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "elastic_addresses")]
    pub elastic_addresses: Option<serde_json::Value>,
    /// `Disabled` on the NIC of a forwarder, which passes on packets of other servers. Left as it is when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_dest_check: Option<SourceDestCheck>,
    /// Route tables whose default route (0.0.0.0/0) is to lead to this NIC, by their ids: those of the servers that a forwarder serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub route_tables: Vec<String>,
}

/// Whether EC2 drops what a network interface sends or gets for other addresses than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SourceDestCheck {
    Disabled,
}

/// A word or a mapping: a structural schema has no type for that, so what is in it is checked by `spec::cloud` alone.
fn elastic_addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
