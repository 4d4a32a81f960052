//! What is written to the API server: by an agent its node's report, by the controller that holds the Lease what follows from all reports.

mod desk;
pub mod error;
mod follow;
pub mod leader;
pub mod lease;
mod pace;
pub mod reporter;
mod write;

/// Owner of the fields that this program writes (server-side apply).
const MANAGER: &str = "egressd";

/// What the controllers of a cluster call themselves.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of their Lease and of the agents' ConfigMap.
    pub namespace: String,
    /// Of this controller's pod, which tells it from the others.
    pub pod: String,
}
