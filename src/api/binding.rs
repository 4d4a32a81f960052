//! The `EgressBinding` custom resource. Its schema is also what manifests in files are checked against, and the reference page is made of.
//!
//! `serde` ignores unknown fields here: the API server prunes them, and an older agent has to read what a newer CRD lets in.
//! In files `api::schema` refuses them by name.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::exit::{Assignment, Exit};
pub use super::host::HostSelector;
use super::inbound::Inbound;
use super::protocol::Protocol;
use super::status::EgressBindingStatus;
use crate::model::binding as model;

/// Which workloads leave this node through which exits, and for which traffic.
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
    category = "egress",
    selectable = ".spec.pool.name",
    printcolumn(name = "Exits", type_ = "string", json_path = ".status.exits"),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.summary.workloads"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool.name", priority = "1"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".status.summary.failing", priority = "1"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.summary.nodes", priority = "1"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.containerSelector)",
        "message": "containerSelector is for manifest files on a node, where an engine's containers are known by name; here give podSelector"
    },
    {
        "rule": "!has(self.addresses)",
        "message": "addresses are for manifest files on a node: a namespace does not own them; here give podSelector"
    },
    {
        "rule": "!has(self.networkNamespaces)",
        "message": "networkNamespaces are for manifest files on a node: a namespace does not own them; here give podSelector"
    },
    {
        "rule": "!has(self.hostSelector)",
        "message": "hostSelector is for manifest files on a node, whose own programs it names; here give podSelector"
    },
    {
        "rule": "!has(self.inbound) || size(self.inbound) == 0 || has(self.pool)",
        "message": "ports are lent by a pool (its inboundPorts): give a pool, for instance pool: {name: public}, or leave inbound out"
    },
    {
        "rule": "!has(self.exits) || self.exits.all(exit, !has(exit.assignment) || exit.assignment == 'Existing')",
        "message": "assignment is for manifest files on a node: here every node would have the address; leave it out, and add the address to one node's NIC"
    },
    {
        "rule": "has(self.podSelector) || has(self.containerSelector) || has(self.addresses) || has(self.networkNamespaces) || has(self.hostSelector)",
        "message": "no workload is selected: give podSelector, for instance {matchLabels: {app: crawler}}"
    },
    {
        "rule": "(has(self.exits) && size(self.exits) > 0) != has(self.pool)",
        "message": "give either a pool, for instance pool: {name: public}, or at least one exit, for instance exits: [{address: 172.31.0.14}]"
    }
]))]
pub struct EgressBindingSpec {
    /// Who: pods of the binding's namespace. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// Who: containers of this node that match everything given here. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_selector: Option<ContainerSelector>,
    /// Who: sources that route through this node; an entry may also be the subnet alone, `10.0.0.0/24`. An address that this host has itself, on
    /// a link that is no NIC, means the sockets that are bound to it. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub addresses: Option<Vec<RoutedSource>>,
    /// Who: network namespaces by name, as `ip netns` lists them. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub network_namespaces: Option<Vec<String>>,
    /// Who: programs of this node itself, unchanged, that match any of what is given here. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_selector: Option<HostSelector>,
    /// Through what. The first usable exit of the packet's family is used, unless `spread` says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub exits: Vec<Exit>,
    /// How new flows are shared among the usable exits: all use the first (`FirstUsable`), in turn (`RoundRobin`), at `Random`, or by a hash of
    /// the workload's or the destination's address (`BySource`, `ByDestination`). A flow keeps the exit that it began with.
    #[serde(default)]
    pub spread: Spread,
    /// How fast the workloads send outside, all of them together on a node: packets above it are dropped. For instance `20Mbit`; bit, kbit, Mbit or
    /// Gbit a second, from `64kbit` to `100Gbit`. Not for programs of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rate: Option<String>,
    /// How much may leave at once after a pause, beyond a second's worth of `rate`, for instance `256kB`; nothing when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub burst: Option<String>,
    /// Calls to the exits that go to the workloads: calls to an exit's address on these ports are shared among the workloads of its family.
    /// In a cluster the pool has to lend the ports (`inboundPorts`), and a node's exits lead only to its own pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [
        {
            "rule": "self.all(one, !has(one.clientSource) || one.clientSource != 'RouteBack')",
            "message": "clientSource RouteBack is for manifest files on a node: each new pod's network namespace would need a rule; use Masquerade"
        },
        {
            "rule": "self.all(one, !has(one.lastResort) || size(one.lastResort) == 0)",
            "message": "lastResort is for manifest files on a node: in a cluster calls go only to the pods of the binding; remove it"
        },
        {
            "rule": "self.all(one, self.exists_one(other, other.protocol == one.protocol && other.port <= (has(one.endPort) ? one.endPort : one.port) && one.port <= (has(other.endPort) ? other.endPort : other.port)))",
            "message": "two entries have a port in common; keep one of them"
        }
    ]))]
    pub inbound: Vec<Inbound>,
    /// Through what, when an administrator lends the addresses. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolReference>,
    /// Destinations of the traffic. Everything outside when not given; what does not match uses the host's default route, as without egressd.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub to: Vec<Destination>,
    /// Protocols and ports of the traffic. All when not given; what does not match uses the host's default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ports: Vec<PortRange>,
    /// What happens while no exit is usable: `Drop`, or `Fallback` to the host's default route.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// What happens to open connections when their exit changes: `Keep` or `Reset`. UDP, and calls without an answer yet, always start again.
    #[serde(default)]
    pub existing_flows: ExistingFlows,
    /// Of two bindings for one workload the higher wins; with equal priority the cluster's, then a file's, then a label's, then the older of two in
    /// the cluster, then the first name.
    #[serde(default)]
    pub priority: i32,
}

/// Pods that match everything given. An empty selector (`{}`) means every pod of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Labels that a pod has, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements for single labels; a pod has to meet all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelExpression>,
}

/// A requirement for one label, as in a Deployment's selector.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "message": "In and NotIn need values; Exists and DoesNotExist take none"
}]))]
pub struct LabelExpression {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`. `NotIn` also matches a pod without the label.
    pub operator: LabelOperator,
    /// What the label may be (`In`), or may not be (`NotIn`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Addresses of an `EgressPool`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.count) || !has(self.addresses)",
    "message": "addresses says which ones, count how many of any: give one of them"
}]))]
pub struct PoolReference {
    /// The pool.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// These addresses of the pool. Several bindings may name an address; one that another binding has by `count` is refused (`AddressTaken`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 64)), extend("x-kubernetes-validations" = [{
        "rule": "self.all(address, isIP(address))",
        "message": "write addresses alone, for instance 172.31.0.14"
    }]))]
    pub addresses: Option<Vec<String>>,
    /// This number of addresses, any of the pool, for this binding only, until it is deleted or asks for fewer; 1 when neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i32>,
}

/// Containers that match everything given; at least one field is needed.
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
    /// Labels that a container has, with these values.
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

/// A subnet whose packets come in on an interface of this node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutedSource {
    /// The subnet, for instance `10.0.0.0/24`.
    #[schemars(length(max = 64))]
    pub cidr: String,
    /// The interface that it comes in on; the one that the main table routes it to when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
}

/// Destinations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "isCIDR(self.cidr)",
        "fieldPath": ".cidr",
        "message": "write a subnet, for instance 10.0.0.0/8"
    },
    {
        "rule": "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) && cidr(self.cidr).containsCIDR(e))",
        "fieldPath": ".except",
        "message": "each exception has to be a subnet within the cidr, for instance 10.0.0.0/8 within 0.0.0.0/0"
    }
]))]
pub struct Destination {
    /// A subnet, for instance `0.0.0.0/0`.
    #[schemars(length(max = 64))]
    pub cidr: String,
    /// Subnets within it that use the host's default route.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Spread {
    #[default]
    FirstUsable,
    RoundRobin,
    Random,
    BySource,
    ByDestination,
}

impl From<Spread> for model::Spread {
    fn from(spread: Spread) -> Self {
        match spread {
            Spread::FirstUsable => Self::FirstUsable,
            Spread::RoundRobin => Self::RoundRobin,
            Spread::Random => Self::Random,
            Spread::BySource => Self::BySource,
            Spread::ByDestination => Self::ByDestination,
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
