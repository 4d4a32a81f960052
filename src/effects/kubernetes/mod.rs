//! What is written to the API server: the node's report, and by the one agent that holds the Lease what follows from all reports.

mod desk;
pub mod error;
mod follow;
pub mod leader;
mod lease;
mod pace;
pub mod reporter;
mod write;

/// Owner of the fields that this program writes (server-side apply).
const MANAGER: &str = "egressd";

/// What the agents of a cluster call themselves.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of their Lease and ConfigMap.
    pub namespace: String,
    /// Of this agent's pod, which tells it from the others.
    pub pod: String,
}
