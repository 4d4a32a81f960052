//! What is written to the API server: by an agent its node's report, by the leader what follows from all reports.

pub mod error;
mod failing;
mod follow;
pub mod leader;
pub mod lease;
mod pace;
pub mod reporter;
mod write;
mod write_queue;

pub use write::cloud as write_cloud;

/// Owner of the fields that this program writes (server-side apply).
const MANAGER: &str = "egressd";
/// The same of `egressd-cloud`.
const CLOUD_MANAGER: &str = "egressd-cloud";

/// What the controllers of a cluster call themselves.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of their Lease and of the agents' ConfigMap.
    pub namespace: String,
    /// Of this controller's pod, which tells it from the others.
    pub pod: String,
}
