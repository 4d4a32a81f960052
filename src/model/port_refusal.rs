//! Why a port that a binding publishes is not served.

use std::fmt;

use super::ports::Ports;

/// Who lends it to nobody here, or has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortRefusal {
    /// The binding's pool does not lend it; without a pool nobody lends any.
    NotLent { ports: Ports, pool: Option<String> },
    /// Another binding serves it.
    Served {
        /// `tcp/172.31.0.14:80`.
        service: String,
        by: String,
    },
    /// A program of this host, or another container, has it.
    Taken {
        /// As above.
        service: String,
        /// Who has it, and the cure.
        by: String,
    },
}

impl fmt::Display for PortRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLent { ports, pool: Some(pool) } => {
                write!(
                    f,
                    "EgressPool {pool} does not lend {ports}; add it to the pool's spec.inboundPorts, or publish a port that it lends"
                )
            }
            Self::NotLent { ports, pool: None } => {
                write!(f, "no pool lends {ports} to a binding that names exits itself; name a pool whose spec.inboundPorts has it")
            }
            Self::Served { service, by } => write!(f, "{service} is served by {by}; choose another port, or remove that one"),
            Self::Taken { service, by } => write!(f, "{service} is taken by {by}"),
        }
    }
}
