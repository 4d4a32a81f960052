//! Source ports of an exit: those that source NAT may give its flows.

use std::fmt;

/// A range of source ports, first to last. TCP, UDP and SCTP: other protocols have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePorts {
    pub first: u16,
    pub last: u16,
}

impl SourcePorts {
    /// What the kernel chooses from where nothing is said (`nf_nat_l4proto_unique_tuple`). A flow keeps a port below if it has one.
    pub const ALL: Self = Self { first: 1024, last: u16::MAX };
    /// Fewest ports of a range: with a handful of them the kernel finds none as soon as two processors look at once.
    pub const FEWEST: u64 = 64;

    /// How many there are: as many flows at a time an exit can have to one destination.
    pub fn count(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// Whether this port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// As it is written: `40000-49999`.
impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
