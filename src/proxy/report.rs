//! What the process says of itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// All of it, as `/status` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// All manifests have been read, and each port was tried.
    pub ready: bool,
    /// What is wrong with manifests, each with the object, the field and the cure.
    pub problems: Vec<String>,
    pub ports: Vec<PortReport>,
    /// File descriptors that may still be opened.
    pub free_descriptors: usize,
}

/// One port that a manifest asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortReport {
    /// `namespace/name` of the manifest.
    pub proxy: String,
    pub network_namespace: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address and port.
    pub address: String,
    /// Address and port that are dialled.
    pub server: String,
    /// The network namespace that is dialled from.
    pub dialled_from: String,
    /// The address that is dialled from, as the manifest says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<IpAddr>,
    /// `namespace/name` of the binding by whose exit connections leave.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub binding: Option<String>,
    /// Exits of that binding that new connections leave by just now.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exits: Vec<IpAddr>,
    /// Why there is none, with the cure: new connections are refused meanwhile.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_exit: Option<String>,
    /// Why the source does not lead out by its own NIC, or why that is not known, with the cure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warning: Option<String>,
    pub state: State,
    /// Why it is not listening.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The last call did not reach the server: since when, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unreachable: Option<Unreachable>,
    /// TCP connections, SCTP associations or UDP sessions that are open.
    pub open: usize,
    /// Those that were taken, in all.
    pub accepted: u64,
    /// New ones that a bound refused, in all.
    pub refused: u64,
    /// New ones that were refused because the binding had no exit, in all.
    pub without_exit: u64,
    /// Those whose server could not be reached, in all.
    pub unreached: u64,
    /// Bytes from clients to the server, in all.
    pub bytes_up: u64,
    /// Bytes from the server to clients, in all.
    pub bytes_down: u64,
}

/// A server that is not reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreachable {
    /// As RFC 3339 has it.
    pub since: String,
    pub reason: String,
}

/// What became of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Listening,
    /// Its network namespace is not there.
    Waiting,
    /// It could not be opened, and is tried again.
    Failing,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Listening, Self::Waiting, Self::Failing];

    /// As metrics name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Listening => "Listening",
            Self::Waiting => "Waiting",
            Self::Failing => "Failing",
        }
    }
}
