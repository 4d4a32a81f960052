//! The `EgressProxy` document and custom resource: ports that `egressd proxy` serves inside network namespaces. In a cluster these are the
//! namespaces of pods, and nothing else can be named.

mod read;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::binding::{ContainerSelector, PodSelector};
pub use crate::model::proxy::KIND;
pub use read::proxy;

/// Ports that one process, `egressd proxy`, serves inside network namespaces. Each connection to such a port is joined with one that is dialled
/// from a namespace of your choice; in a cluster from the pod's own.
#[allow(clippy::duplicated_attributes, reason = "each column has a type")]
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "egressd.dev",
    version = "v1alpha1",
    kind = "EgressProxy",
    namespaced,
    shortname = "egx",
    derive = "PartialEq",
    doc = "Opens a port in pods, and joins each connection to it with one that is dialled from the same pod.",
    category = "egress",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.listen.protocol"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listen.port"),
    printcolumn(name = "Server", type_ = "string", json_path = ".spec.dial.address"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".spec.dial.binding"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.listen.podSelector)",
        "message": "no place is given: give listen.podSelector, for instance {matchLabels: {app: crawler}}"
    },
    {
        "rule": "!has(self.listen.networkNamespaces) && !has(self.listen.containerSelector)",
        "message": "listen.networkNamespaces and listen.containerSelector are for manifest files on a node: a namespace does not own them; here give listen.podSelector"
    },
    {
        "rule": "(!has(self.dial.networkNamespace) || self.dial.networkNamespace == '') && !has(self.dial.source)",
        "message": "dial.networkNamespace and dial.source are for manifest files on a node: here connections are dialled from the pod itself; leave them out, and name a binding of this namespace if you like"
    }
]))]
pub struct EgressProxySpec {
    /// Where clients call.
    pub listen: Listen,
    /// Where their connections go.
    pub dial: Dial,
    /// TCP connections, or SCTP associations, at a time, in each namespace. A new one above that is reset.
    #[serde(default = "max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Limits of TCP connections.
    #[serde(default)]
    pub tcp: Tcp,
    /// Bounds of UDP sessions.
    #[serde(default)]
    pub udp: Udp,
    /// Limits of SCTP associations.
    #[serde(default)]
    pub sctp: Sctp,
    /// Subnets of load balancers that send the client's address with the PROXY protocol. A TCP connection from there has to begin with its header
    /// (version 1 or 2); in all others such a header is payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub trusted_sources: Vec<String>,
}

/// The port that clients call. In files it takes `networkNamespaces`, `containerSelector`, or both; in a cluster `podSelector`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// The namespaces in which the port is opened: names as `ip netns` lists them, absolute paths, or `""` for the one that `egressd proxy` runs
    /// in. One that does not exist yet is served as soon as it does. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), inner(length(max = 4095)))]
    pub network_namespaces: Option<Vec<String>>,
    /// Containers of a Docker engine in which the port is opened, those that match everything given here: as soon as one runs, and as long as it
    /// runs. One that has the host's network is ignored. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_selector: Option<ContainerSelector>,
    /// Pods of the object's own namespace in which the port is opened: as soon as one has its network, and as long as it has. Labels count as
    /// they were when the pod was created. One that has the node's network is ignored. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// What is served.
    #[serde(default)]
    pub protocol: Protocol,
    /// The address, `0.0.0.0` or `::` for all of a family. It need not be there yet.
    pub address: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Where connections go, and from where.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dial {
    /// The namespace that is dialled from, written as in `listen`; the one that `egressd proxy` runs in when not given. In files only: in a
    /// cluster connections are dialled from the pod that was called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub network_namespace: String,
    /// Address of the server.
    pub address: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The address to dial from, one that the namespace has. An exit of the host (which `egressd run` serves) leaves through its own NIC and gateway.
    /// While the address is not there no connection is made: never one from another address. In files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of an `EgressBinding` of the object's own namespace; connections leave through its current exit. While it has none
    /// that can be used, new connections are reset. In files the host dials through it; in a cluster the pod has to be bound by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub binding: Option<String>,
    /// Whether a TCP connection begins with a PROXY protocol header, which has the client's address for the server.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
}

/// Limits of TCP connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tcp {
    /// Seconds without a byte in either direction after which a connection is reset.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub idle_seconds: u32,
    /// The same once one side has ended its direction.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub half_closed_seconds: u32,
}

/// Bounds of UDP sessions. A session is a client's address and port, and the address that it called.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Udp {
    /// Sessions at a time, in each namespace. Datagrams of new clients above that are dropped.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions: u32,
    /// Seconds without a datagram in either direction after which a session is forgotten.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_seconds: u32,
}

/// Limits of SCTP associations.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sctp {
    /// Seconds without a message in either direction after which an association is aborted. Heartbeats are no messages.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub idle_seconds: u32,
    /// Seconds that one side may take to confirm the shutdown of the other one; then it is aborted.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub shutdown_seconds: u32,
}

/// What a port is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ProxyProtocol {
    #[default]
    None,
    V1,
    V2,
}

fn max_connections() -> u32 {
    10_000
}

impl Default for Tcp {
    fn default() -> Self {
        Self { idle_seconds: 3600, half_closed_seconds: 300 }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self { sessions: 1000, idle_seconds: 60 }
    }
}

impl Default for Sctp {
    fn default() -> Self {
        Self { idle_seconds: 3600, shutdown_seconds: 60 }
    }
}

#[cfg(test)]
mod tests;
