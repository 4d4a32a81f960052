//! The part of an `EgressPool` that a cloud's API carries out: `egressd-cloud` reads it and writes what came of it, and the agent waits for that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The cloud of the pool's addresses. `egressd-cloud` keeps it as described here; without `cloud` it does nothing there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCloud {
    /// Amazon EC2.
    pub aws: AwsCloud,
}

/// The state in Amazon EC2: the pool's addresses are private addresses of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsCloud {
    /// The region, for instance `eu-central-1`; that of `egressd-cloud` (`AWS_REGION`, or its own instance's) when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub region: Option<String>,
    /// The network interface by its id, for instance `eni-0a1b2c3d4e5f60718`. When neither this nor `deviceIndex` is given: in files the NIC of
    /// `egressd-cloud`'s own instance that is in the addresses' subnet, with the lowest device index; in a cluster, of each node's instance, the NIC that
    /// the pool's `interface` names, else that same one. In a cluster that takes `assignment: Managed` or `Routed`, by which each address has a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub network_interface: Option<String>,
    /// The network interface by its device index, at `egressd-cloud`'s own instance or, in a cluster, at each node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 63))]
    pub device_index: Option<i32>,
    /// Public addresses: `Allocate` takes a new elastic address for each address of the pool; `{tag: "KEY=VALUE"}` uses the account's free ones that
    /// have this tag. None when not given.
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

/// The state of a pool in its cloud. Only `egressd-cloud` writes it, and only in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCloudStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Reachable`: the cloud was read, and each network interface was found; `AddressesAssigned`; and what else the pool asks for:
    /// `ElasticAddressesAssociated`, `SourceDestCheckDisabled`, `RoutesPointed`; and `Ready`: True when all of these are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the cloud shows of each address. An agent uses one only once it is `ready` here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub addresses: Vec<CloudAddress>,
    /// Resources of the pool in the cloud that it no longer asks for: kept until `egressd-cloud release`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub surplus: Vec<String>,
}

/// What the cloud shows of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudAddress {
    pub address: String,
    /// The node whose network interface it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<String>,
    /// The public address that the outside sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
    /// The elastic address's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_address: Option<String>,
    /// The cloud shows it as the pool asks: it may be used.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
