//! `spec.inbound` of an `EgressBinding`: ports of its exits that its workloads serve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::binding as model;

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
    }
]))]
pub struct Inbound {
    /// `TCP` or `UDP`.
    pub protocol: InboundProtocol,
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
    /// How new connections are shared among the workloads: by turn (`RoundRobin`), at `Random`, or by a hash of the client's address
    /// (`BySource`). A connection stays where it went.
    #[serde(default)]
    pub balance: Balance,
    /// The address that the workloads see of a client: its own (`Preserve`), for which their answers have to come back through this host, or
    /// this host's address towards them (`Masquerade`).
    #[serde(default)]
    pub client_source: ClientSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum InboundProtocol {
    Tcp,
    Udp,
}

impl From<InboundProtocol> for model::Protocol {
    fn from(protocol: InboundProtocol) -> Self {
        match protocol {
            InboundProtocol::Tcp => Self::Tcp,
            InboundProtocol::Udp => Self::Udp,
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

impl From<Balance> for model::Balance {
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
}

impl From<ClientSource> for model::ClientSource {
    fn from(source: ClientSource) -> Self {
        match source {
            ClientSource::Preserve => Self::Preserve,
            ClientSource::Masquerade => Self::Masquerade,
        }
    }
}
