//! `spec.inbound` of an `EgressBinding`: ports of its exits that its workloads serve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ipvs::{Engine, Persistence, Scheduler};
use super::protocol::Protocol;
use crate::model::{health, inbound};

/// A port of the exits, or a range of ports, that the workloads serve.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.endPort) || self.endPort >= self.port",
        "message": "the range is reversed: endPort is below port"
    },
    {
        "rule": "!has(self.endPort) || !has(self.targetPort)",
        "message": "the ports of a range stay as they are: leave endPort or targetPort out"
    },
    {
        "rule": "!has(self.lastResort) || size(self.lastResort) == 0 || !has(self.allDown) || self.allDown != 'KeepAll'",
        "message": "allDown: KeepAll leaves no call for lastResort: leave one of them out"
    },
    {
        "rule": "!has(self.endPort) || !has(self.maxConnections)",
        "message": "connections are counted for one port: leave endPort or maxConnections out"
    }
]))]
pub struct Inbound {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
    /// The port that is called, or the first one of a range.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The last port that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
    /// The port that the workloads listen on; the one that is called when not given. Not with a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i32>,
    /// How calls reach the workloads: through rules of nftables (`Nftables`), or a virtual service of the kernel's layer-4 balancer (`Ipvs`), which
    /// has more schedulers and serves single ports.
    #[serde(default)]
    pub engine: Engine,
    /// How new connections are shared among the workloads: in turn (`RoundRobin`, when not given), at `Random`, or by a hash of the client's
    /// address (`BySource`). A connection stays where it went. For the engine `Nftables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// The same for the engine `Ipvs`; `wlc` (least connections by weight) when not given. The kernel needs the module `ip_vs_` and this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// A client gets the same workload again for some time. For the engine `Ipvs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// The address that the workloads see of a client: its own (`Preserve`), for which their answers have to come back through this host, or
    /// this host's address towards them (`Masquerade`). With `Preserve` clients beside a workload, on one bridge or link, are masqueraded all the
    /// same. With `RouteBack`, for the engine `Ipvs`, they are not: a rule in the workload's network namespace leads its answers back through this
    /// host. egressd makes it where the workload is on this host and it may enter the namespace; else `egressd status` has the commands.
    #[serde(default)]
    pub client_source: ClientSource,
    /// Weights of single workloads; that of all others is 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub servers: Vec<ServerWeight>,
    /// How a workload's health is checked. Without it a workload is healthy as long as it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What happens to calls while no workload is healthy: the host refuses them as for a port that is not served, with a TCP reset or an ICMP
    /// error (`Refuse`), or they go to all workloads as without health checks (`KeepAll`).
    #[serde(default)]
    pub all_down: AllDown,
    /// Where calls go while no workload is healthy, or none exists: at most one server of each family, which need not be a workload. Its health
    /// is not checked. Open connections there continue when workloads are back. Not with `allDown: KeepAll`, and not for pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub last_resort: Vec<LastResort>,
    /// Seconds after which the open connections of a workload end that gets no new ones any more, since its weight is 0 or it is no longer bound.
    /// When not given, they continue until they end by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<i32>,
    /// How long a client is sent to the same workload after its last new connection, whatever `balance` is: `30s`, `10m` or `3h`, at most a
    /// day. A workload that gets no new connections loses its clients at once, and they are shared out again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,4}[smh]$"))]
    pub affinity: Option<String>,
    /// Connections that a workload may have open on its port at a time. A full one gets no new ones: they go to the next workload, and
    /// are refused when all are full (datagrams are dropped). Not with a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,
    /// New connections that one client's address may open each second, and as many at once. More are refused (datagrams: dropped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_second: Option<i32>,
}

/// A workload's share of the new connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerWeight {
    /// The workload's address.
    pub address: String,
    /// 1 to 100; or 0 to drain it: it gets no new connection, and keeps the open ones.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
    /// With this many connections, ending ones included, it gets no new one. For the engine `Ipvs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub upper_threshold: Option<i32>,
    /// Once it has fewer than this many, it gets new ones again; three quarters of `upperThreshold` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub lower_threshold: Option<i32>,
}

/// A server that gets calls while no workload does (a "sorry server").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastResort {
    /// Its address. A route other than the default one has to lead to it.
    #[schemars(length(max = 64))]
    pub address: String,
    /// The port that it listens on; that of the workloads when not given. Not with a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// The health check: one of `tcp`, `http` and `udp`. Probes come from this host, with its address towards the workload.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.tcp), has(self.http), has(self.udp)].filter(given, given).size() == 1",
    "message": "one of tcp, http and udp is asked for"
}]))]
pub struct Health {
    /// A workload is healthy if it accepts a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// A workload is healthy if it answers an HTTP request with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// A workload is healthy if it answers a datagram. An ICMP error ("port unreachable") is a failure at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpProbe>,
    /// Milliseconds from one probe to the next, up to a tenth more; an answer that takes as long is a failure.
    #[serde(default = "interval")]
    #[schemars(range(min = 100, max = 3_600_000))]
    pub interval_milliseconds: i32,
    /// This many failures in a row make a workload unhealthy, and as many successes healthy again. A new one is healthy after its first success, and
    /// gets nothing before it.
    #[serde(default = "failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: i32,
}

/// A connection that is opened and reset.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {
    /// The port to check; the one that the workload serves when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// A `GET` by HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// The path of the request.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The `Host` header; the workload's address and port when not given. With `HTTPS` its name is also sent in TLS (SNI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259))]
    pub host: Option<String>,
    /// The port to check; the one that the workload serves when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// `HTTP`, or `HTTPS`: then any certificate will do, whoever signed it and whatever name and time it has, as with Kubernetes' probes.
    #[serde(default)]
    pub scheme: Scheme,
}

/// What a request is carried by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// A datagram, and its answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.send) != has(self.sendBase64)",
    "message": "one of send and sendBase64 is sent"
}]))]
pub struct UdpProbe {
    /// The datagram, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub send: Option<String>,
    /// The datagram, in Base64 (RFC 4648), at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 684))]
    pub send_base64: Option<String>,
    /// A text that the answer has to contain; any answer will do when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub expect: Option<String>,
    /// The port to check; the one that the workload serves when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

fn interval() -> i32 {
    500
}

fn failures() -> i32 {
    2
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AllDown {
    #[default]
    Refuse,
    KeepAll,
}

impl From<AllDown> for health::AllDown {
    fn from(all_down: AllDown) -> Self {
        match all_down {
            AllDown::Refuse => Self::Refuse,
            AllDown::KeepAll => Self::KeepAll,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Balance {
    #[default]
    RoundRobin,
    Random,
    BySource,
}

impl From<Balance> for inbound::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Random => Self::Random,
            Balance::BySource => Self::BySource,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ClientSource {
    #[default]
    Preserve,
    Masquerade,
    RouteBack,
}

impl From<ClientSource> for inbound::ClientSource {
    fn from(source: ClientSource) -> Self {
        match source {
            ClientSource::Preserve => Self::Preserve,
            ClientSource::Masquerade => Self::Masquerade,
            ClientSource::RouteBack => Self::RouteBack,
        }
    }
}
