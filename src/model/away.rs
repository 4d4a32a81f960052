//! Why an exit is not used though all of it is in order on this host.

use std::fmt;
use std::net::SocketAddr;

/// What is wrong beyond the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Away {
    /// The cloud does not show the address as its pool asks; with what `egressd-cloud` says of it.
    Cloud { pool: String, message: Option<String> },
    /// What the exit is to reach does not answer.
    Probe { to: SocketAddr, why: String },
}

/// A sentence behind the exit's address.
impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud { pool, message: Some(message) } => write!(f, "is not ready in the cloud (pool {pool}): {message}"),
            Self::Cloud { pool, message: None } => {
                write!(
                    f,
                    "is an address of the pool {pool}, and egressd-cloud has not reported yet that the cloud shows it; see egressd-cloud status, or in a cluster the pool's own status"
                )
            }
            Self::Probe { to, why } => {
                write!(f, "does not reach {to} ({why}); check the path to it, or probe something else (exits[].probe)")
            }
        }
    }
}
