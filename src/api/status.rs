//! The status of an `EgressBinding`: what became of it on all nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a binding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressBindingStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Published` (of a binding that publishes ports) and `Programmed`, each False with the reason and the cure; and
    /// `Ready`: True when all of these are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Addresses that it leaves with: those that it names, or those that its pool gave it. This is the allocation: these addresses are given to
    /// no other binding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<String>,
    /// The pool that lends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default)]
    pub summary: Summary,
    /// Nodes on which some workload of it has no usable exit; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub failing_nodes: Vec<FailingNode>,
    /// Ports of its exits that are served, each by the node that has the address; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service", "node"]))]
    pub services: Vec<PublishedPort>,
}

/// A port of an exit, or a range of ports, on the node that has the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Protocol, address and port: `tcp/172.31.0.14:80`.
    pub service: String,
    pub node: String,
    /// Pods there that serve it.
    pub servers: i64,
    /// Those of them that get new connections.
    pub ready: i64,
}

/// Why a binding is not in force on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingNode {
    pub node: String,
    /// Workloads there that have no usable exit.
    pub failing: i64,
    /// One word, as in a condition.
    pub reason: String,
    /// The same in a sentence, with the cure.
    pub message: String,
}

/// Counts over all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Nodes that have workloads of this binding.
    pub nodes: i64,
    /// Workloads that it binds.
    pub workloads: i64,
    /// Those whose exit is in force.
    pub programmed: i64,
    /// Those that have no usable exit.
    pub failing: i64,
}
