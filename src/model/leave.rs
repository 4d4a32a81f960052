//! How connections leave that another process of this host dials (`egressd proxy`): what it asks, and what is answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// By which exits connections of a binding of this host's files leave, `NAMESPACE/NAME`.
    Binding { binding: String, ipv6: bool },
    /// Whether an address is an exit of this host.
    Source(IpAddr),
    /// By which exits connections of a pod leave, as far as it is this binding of the cluster that it has; both `NAMESPACE/NAME`.
    Pod { pod: String, binding: String, ipv6: bool },
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
