//! What to ask of a cloud: pure functions from a pool and what the cloud says to a list of calls, each with its reason.
//!
//! The model is that of AWS, Alibaba and Tencent alike: (network interface, private address) <-> elastic address.

pub mod answers;
pub mod call;
pub mod cluster;
pub mod elastic;
pub mod facts;
pub mod interface;
pub mod outcome;
pub mod plan;
pub mod release;
pub mod report;
pub mod tags;

#[cfg(test)]
mod tests;
