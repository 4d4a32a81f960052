//! The `EgressBinding` custom resource. Its schema is also what manifests in files are checked against, and the reference page is made of.
//!
//! `serde` ignores unknown fields here: the API server prunes them, and an older agent has to read what a newer CRD lets in.
//! In files `api::schema` refuses them by name.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::binding as model;

/// Which workloads leave this node through which exits, and for what traffic.
#[allow(clippy::duplicated_attributes, reason = "each column has a type")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "egressd.dev",
    version = "v1alpha1",
    kind = "EgressBinding",
    namespaced,
    shortname = "egb",
    status = "EgressBindingStatus",
    derive = "PartialEq",
    doc = "Gives workloads their own way out: the NIC, the gateway and the source address of what they send.",
    printcolumn(name = "Exits", type_ = "string", json_path = ".spec.exits[*].address"),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.summary.workloads"),
    printcolumn(name = "Programmed", type_ = "string", json_path = ".status.conditions[?(@.type==\"Programmed\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Programmed\")].reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.containerSelector), has(self.addresses), has(self.networkNamespaces)].filter(given, given).size() == 1",
        "message": "give exactly one of containerSelector, addresses and networkNamespaces"
    },
    {
        "rule": "has(self.exits) && size(self.exits) > 0",
        "message": "give at least one exit, for instance exits: [{address: 172.31.0.14}]"
    }
]))]
pub struct EgressBindingSpec {
    /// Who: containers of this node that fit all that is given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_selector: Option<ContainerSelector>,
    /// Who: sources that route through this node. In files an entry may also be the subnet alone, `10.0.0.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub addresses: Option<Vec<RoutedSource>>,
    /// Who: network namespaces by name, as `ip netns` lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub network_namespaces: Option<Vec<String>>,
    /// Through what. The first usable exit of the packet's family is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub exits: Vec<Exit>,
    /// For traffic to where. Everything that is outside when not given; what does not match goes the host's way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub to: Vec<Destination>,
    /// For which protocols and ports. All when not given; what does not match goes the host's way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ports: Vec<PortRange>,
    /// What happens while no exit is usable: `Drop`, or `Fallback` to the host's default way.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// What happens to open flows when their exit changes: `Keep` or `Reset`. UDP is cut always.
    #[serde(default)]
    pub existing_flows: ExistingFlows,
    /// Of two bindings for one workload the higher wins; then the older, then file before label, then the name.
    #[serde(default)]
    pub priority: i32,
}

/// Containers that fit all that is given; at least one field is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.names) && size(self.names) > 0) || (has(self.matchLabels) && size(self.matchLabels) > 0) || has(self.compose)",
    "message": "an empty selector would bind every container; give names, matchLabels or compose"
}]))]
pub struct ContainerSelector {
    /// Names of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub names: Vec<String>,
    /// Labels that a container bears, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Containers of a Compose project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
}

/// A Compose project, or one service of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compose {
    /// The project's name (label `com.docker.compose.project`).
    #[schemars(length(min = 1, max = 255))]
    pub project: String,
    /// One service of it (label `com.docker.compose.service`); all when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub service: Option<String>,
}

/// A subnet whose packets come in by an interface of this node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutedSource {
    /// The subnet, for instance `10.0.0.0/24`.
    #[schemars(length(max = 64))]
    pub cidr: String,
    /// The interface that it comes in by; the one that the main table routes it to when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
}

/// One way out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Source address that packets leave with; the private side of an elastic IP, for instance `172.31.0.14`.
    #[schemars(length(max = 64))]
    pub address: String,
    /// NIC; the one that has the address when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Next hop; found from the NIC's routes when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub gateway: Option<String>,
}

/// Destinations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// A subnet, for instance `0.0.0.0/0`.
    #[schemars(length(max = 64))]
    pub cidr: String,
    /// Subnets within it that go the host's way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub except: Vec<String>,
}

/// Destination ports.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.endPort) || self.endPort >= self.port",
    "message": "the range is reversed: endPort is below port"
}]))]
pub struct PortRange {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
    /// The first port, or the only one.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The last port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum WhenUnavailable {
    #[default]
    Drop,
    Fallback,
}

impl From<WhenUnavailable> for model::WhenUnavailable {
    fn from(when: WhenUnavailable) -> Self {
        match when {
            WhenUnavailable::Drop => Self::Drop,
            WhenUnavailable::Fallback => Self::Fallback,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ExistingFlows {
    #[default]
    Keep,
    Reset,
}

impl From<ExistingFlows> for model::ExistingFlows {
    fn from(flows: ExistingFlows) -> Self {
        match flows {
            ExistingFlows::Keep => Self::Keep,
            ExistingFlows::Reset => Self::Reset,
        }
    }
}

/// What became of a binding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressBindingStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`; each False with the reason and the cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub summary: Summary,
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

/// The custom resource definition as YAML, as `kubectl apply` takes it.
pub fn crd() -> String {
    let header = "# Generated by `egressd crd`.\n";
    let definition = serde_json::to_value(EgressBinding::crd()).expect("a definition is plain data");
    let body = serde_saphyr::to_string(&definition).expect("plain data can be written as YAML");
    format!("{header}{body}")
}
