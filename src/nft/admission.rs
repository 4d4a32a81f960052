//! Expressions that say which new flows are let in: sets that rules fill, rates of single sources, and refusals.

use super::Register;

/// `update @set { KEY timeout T [limit rate over R/second burst B packets | counter] [: meta mark] }`: puts the key into a set that rules fill, or makes it stay
/// as long again. Where the set is full the rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub set: String,
    pub from: Register,
    /// Milliseconds that the element stays.
    pub timeout: u64,
    pub keeps: Kept,
}

/// What an element of such a set has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    /// A rate, and the rule goes on for what exceeds it.
    Rate(Rate),
    /// A counter of packets.
    Counter,
    /// In a map, what a register holds. An element that is there already keeps what it has.
    Value(Register),
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets.
    pub per_second: u32,
    /// Packets that may come at once.
    pub burst: u32,
}

/// How a rule tells the sender that its packet goes no further. In `prerouting`, `input`, `forward` and `output` (`prerouting` since kernel 5.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `icmp host-unreachable`, or `icmpv6 addr-unreachable`.
    Host { v6: bool },
    /// `tcp reset`. Of TCP only: other packets are just dropped.
    TcpReset,
}
