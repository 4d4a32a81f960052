//! What the process says of itself.

use serde::Serialize;

/// All of it, as `/status` prints it.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortReport {
    /// `namespace/name` of the manifest.
    pub proxy: String,
    pub network_namespace: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address and port.
    pub address: String,
    pub state: State,
    /// Why it is not listening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last call did not reach the server: since when, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Unreachable>,
    /// TCP connections, SCTP associations or UDP sessions that are open.
    pub open: usize,
    /// Those that were taken, in all.
    pub accepted: u64,
    /// New ones that a bound refused, in all.
    pub refused: u64,
    /// Those whose server could not be reached, in all.
    pub unreached: u64,
    /// Bytes from clients to the server, in all.
    pub bytes_up: u64,
    /// Bytes from the server to clients, in all.
    pub bytes_down: u64,
}

/// A server that is not reached.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreachable {
    /// As RFC 3339 has it.
    pub since: String,
    pub reason: String,
}

/// What became of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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
