//! What is written to the API server: the node's report, and by the one agent that holds the Lease what follows from all reports.

pub mod error;
mod pace;
pub mod reporter;

/// Owner of the fields that this program writes (server-side apply).
pub const MANAGER: &str = "egressd";
