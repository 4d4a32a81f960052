//! The cloud's side of egressd's pools: private addresses on the right network interface, elastic addresses associated with them, the
//! source/destination check of forwarders, and route tables.
//!
//! Data flows one way, as in egressd: the pools and what the cloud says -> [`model`] (pure) -> calls -> [`aws`] -> the cloud. A program of its
//! own, so that the agent has neither the cloud's credentials nor its client.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used)]

pub mod aws;
pub mod cli;
pub mod cluster;
pub mod keeper;
pub mod model;
pub mod provider;
mod release;
pub mod run;
pub mod state;
pub mod stop;
mod wanted;
