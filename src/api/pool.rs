//! The `EgressPool` custom resource: addresses that an administrator lends to namespaces.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cloud::{PoolCloud, PoolCloudStatus};
use super::exit::Assignment;
use super::protocol::Protocol;

/// `kind` of a pool in files.
pub const KIND: &str = "EgressPool";

/// Which addresses, where they are, and who may use them.
#[allow(clippy::duplicated_attributes, reason = "each column has a type")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "egressd.dev",
    version = "v1alpha1",
    kind = "EgressPool",
    shortname = "egp",
    category = "egress",
    status = "EgressPoolStatus",
    derive = "PartialEq",
    doc = "Addresses of nodes that an administrator lends to namespaces. A binding names the pool.",
    printcolumn(name = "Addresses", type_ = "integer", json_path = ".status.addresses"),
    printcolumn(name = "Allocated", type_ = "integer", json_path = ".status.allocated"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type==\"Available\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.gateway) || !isIP(self.gateway) || self.blocks.all(b, has(b.cidr) ? (!isCIDR(b.cidr) || cidr(b.cidr).ip().family() == ip(self.gateway).family()) : (!has(b.start) || !isIP(b.start) || ip(b.start).family() == ip(self.gateway).family()))",
    "fieldPath": ".gateway",
    "message": "the gateway has to be of the blocks' family; make a pool for each family"
}]))]
pub struct EgressPoolSpec {
    /// The addresses. A node serves those that one of its NICs has, or that were given to it (`assignment`).
    #[schemars(length(min = 1, max = 64))]
    pub blocks: Vec<Block>,
    /// NIC that holds them; the one that has the address, or its subnet, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Next hop; found from the NIC's routes when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [{
        "rule": "isIP(self)",
        "message": "write the next hop's address alone, for instance 172.31.0.1"
    }]))]
    pub gateway: Option<String>,
    /// Nodes that serve the pool, by label; all when not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Who puts the addresses where they are. `Existing`: somebody else, a NIC of a node holds each. `Managed`: each is given to one node
    /// (`status.nodes`), whose agent adds it to a NIC unless a neighbour has it, keeps it there, and removes it when it is given to another
    /// node. `Routed`: each is given to one node as well, and is on no NIC: the network routes it there. An address stays with its node until the node is
    /// deleted or no longer selected. In a cluster only; in files it is a field of the exits.
    #[serde(default, skip_serializing_if = "Assignment::is_existing")]
    pub assignment: Assignment,
    /// Namespaces that may use the pool. None may when not given.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// Ports of its addresses that bindings of these namespaces may publish (`spec.inbound`). None when not given. In a cluster only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub inbound_ports: Vec<LentPorts>,
    /// The resources that `egressd-cloud` keeps in a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<PoolCloud>,
}

/// A subnet, or a range from `start` to `end`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.cidr) ? !has(self.start) && !has(self.end) : has(self.start) && has(self.end)",
        "message": "give either cidr, for instance 172.31.0.16/28, or start and end"
    },
    {
        "rule": "!has(self.cidr) || isCIDR(self.cidr)",
        "fieldPath": ".cidr",
        "message": "write a subnet, for instance 172.31.0.16/28"
    },
    {
        "rule": "!has(self.start) || !has(self.end) || (isIP(self.start) && isIP(self.end) && ip(self.start).family() == ip(self.end).family())",
        "message": "start and end have to be addresses of one family, for instance 172.31.0.14 and 172.31.0.20"
    }
]))]
pub struct Block {
    /// All addresses of a subnet, including its first and last one, for instance `172.31.0.16/28`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cidr: Option<String>,
    /// The first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub start: Option<String>,
    /// The last address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub end: Option<String>,
}

/// A port that bindings may publish, or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.endPort) || self.endPort >= self.port",
    "message": "the range is reversed: endPort is below port"
}]))]
pub struct LentPorts {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
    /// The port, or the first one of a range.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The last port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

/// A namespace may use the pool when it is named, or when it has all the labels (if there are any).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub names: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// How much of a pool is in use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressPoolStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`; `Available`: False when a binding got fewer addresses than it asked for; `Assigned`, unless somebody else puts the addresses where
    /// they are: True when each is where it was given to; and `Ready`: True when all of these are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many addresses it has.
    #[serde(default)]
    pub addresses: i64,
    /// How many of them belong to one binding only.
    #[serde(default)]
    pub allocated: i64,
    /// How many bindings leave through its addresses.
    #[serde(default)]
    pub bindings: i64,
    /// The nodes that addresses were given to. Only the controller writes it, and agents follow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub nodes: Vec<PoolNode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<PoolCloudStatus>,
}

/// Addresses that a pool gave to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolNode {
    pub name: String,
    /// Addresses, and ranges of them: `10.0.1.64-10.0.1.95`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub addresses: Vec<String>,
}
