//! How connections leave that another process of this host dials (`egressd proxy`): what it asks, and what is answered.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::ports::Protocol;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// By which exits connections of a binding of this host's files leave, `NAMESPACE/NAME`.
    Binding { binding: String, ipv6: bool },
    /// Whether an address is an exit of this host.
    Source(IpAddr),
    /// By which exits connections of a pod to this address and port leave, as far as it is this binding of the cluster that it has; both
    /// `NAMESPACE/NAME`. Its own rules lead them, so they have to be what the binding is for.
    Pod { pod: String, binding: String, to: SocketAddr, protocol: Protocol },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// Exits that can be used, one whole turn of them: each as often as its weight says.
    pub exits: Vec<IpAddr>,
    /// Why there is none, with the cure.
    pub reason: Option<String>,
    /// Open connections end that have another exit than these.
    pub resets: bool,
}
