//! egressd gives every container, namespace or routed subnet its own way out.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used)]

pub mod api;
pub mod check;
pub mod cli;
pub mod contract;
pub mod daemon;
pub mod effects;
pub mod facts;
pub mod fnv;
pub mod fuzzing;
pub mod model;
pub mod netlink;
pub mod nft;
pub mod own_mark;
pub mod plan;
pub mod proxy;
pub mod report;
pub mod wire;
