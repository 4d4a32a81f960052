//! What the benchmarks share: hosts with two uplinks, the daemon on them, and who sends there.

pub mod daemon;
pub mod host;
pub mod send;
pub mod without;

use std::net::Ipv4Addr;

/// An address's `index`th neighbour: the sources of the container in turn.
pub fn nth(base: Ipv4Addr, index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(base.to_bits() + index)
}
