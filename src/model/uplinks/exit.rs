//! One usable exit.

use std::net::IpAddr;

use super::super::binding::SourcePorts;
use super::super::facts::IfIndex;

/// An address to leave as, and the way that flows with it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exit {
    pub address: IpAddr,
    pub interface: IfIndex,
    /// Number of its way.
    pub way: u8,
    /// The source ports of its flows, where they are bounded.
    pub ports: Option<SourcePorts>,
}

impl Exit {
    /// The source ports that its flows may have.
    pub fn source_ports(&self) -> SourcePorts {
        self.ports.unwrap_or(SourcePorts::ALL)
    }
}
