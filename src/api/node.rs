//! The `EgressNode` custom resource: what one node's agent reports. Nobody else writes it, and only the Lease holder reads all of them.
//!
//! There is no spec beside a status, as with a `CSINode`: nobody asks for anything here, and a report is one write.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node's NICs and exits, and the state of each binding there.
#[allow(clippy::duplicated_attributes, reason = "each column has a type")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "egressd.dev",
    version = "v1alpha1",
    kind = "EgressNode",
    shortname = "egn",
    category = "egress",
    derive = "PartialEq",
    doc = "What the agent of a node reports: its NICs, its exits, and what became of each binding. Written by that agent alone.",
    printcolumn(name = "Bound", type_ = "integer", json_path = ".spec.bound"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".spec.failing"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EgressNodeSpec {
    /// Version of the agent.
    #[serde(default)]
    pub version: String,
    /// When the agent wrote this. It writes every two minutes, even if nothing changed; a node that does not for five minutes is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
    /// NICs that hold an exit or a default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NodeNic>,
    /// One for each binding that selects workloads on this node, or publishes ports of its exits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<NodeBinding>,
    /// Addresses that pools gave to this node and that cannot be used, 64 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub addresses: Vec<NodeAddress>,
    /// Workloads whose exit is in force.
    #[serde(default)]
    pub bound: i64,
    /// Workloads that are bound and have no usable exit.
    #[serde(default)]
    pub failing: i64,
    /// Things that the agent could not read or do, each with its cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub problems: Vec<String>,
}

/// A NIC of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNic {
    pub name: String,
    /// Up and with a carrier.
    pub up: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub gateways: Vec<IpAddr>,
    /// Exits on it that are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub exits: Vec<IpAddr>,
}

/// An address that a pool gave to the node, and that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddress {
    /// The pool.
    pub pool: String,
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// Why: one word.
    pub reason: String,
    /// The same in a sentence, with the cure.
    pub message: String,
}

/// The state of a binding on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBinding {
    pub namespace: String,
    pub name: String,
    /// The `metadata.uid` of the binding that this is about: a binding that is created again has another one.
    #[serde(default)]
    pub uid: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// Pods that it binds here.
    pub workloads: i64,
    /// Pods whose exit is in force.
    pub programmed: i64,
    /// Pods that have no usable exit, or cannot be served.
    pub failing: i64,
    /// Why, for the first of them, or why pods that it selects are another binding's: one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence, with the cure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ports of its exits that this node serves for it; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub services: Vec<NodeService>,
    /// Why a port that it publishes is not served here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<Unserved>,
}

/// A port of an exit of the node, or a range of ports, and the pods that serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeService {
    /// Protocol, address and port: `tcp/172.31.0.14:80`.
    pub service: String,
    /// Pods of the binding on the node.
    pub servers: i64,
    /// Those of them that get new connections.
    pub ready: i64,
}

/// Why a port is not served.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unserved {
    /// One word, as in a condition.
    pub reason: String,
    /// The same in a sentence, with the field and the cure.
    pub message: String,
}
