//! Interfaces that lead to no outside.

use std::fmt;

/// Why an interface cannot be a way out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotAnUplink {
    Loopback,
    Dummy,
    /// A bridge without a port that leads outside.
    BridgeOfWorkloads,
    /// A workload is at its other end.
    LinkOfWorkload,
    InVrf {
        vrf: String,
    },
}

impl fmt::Display for NotAnUplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => {
                write!(f, "is the loopback device; name the NIC that the address is routed through (egress.interface, exits[].interface)")
            }
            Self::Dummy => {
                write!(f, "is a dummy device; name the NIC that the address is routed through (egress.interface, exits[].interface)")
            }
            Self::BridgeOfWorkloads => write!(f, "is a bridge of workloads and leads nowhere else; name an address of a NIC"),
            Self::LinkOfWorkload => write!(f, "leads to a workload; name an address of a NIC"),
            Self::InVrf { vrf } => {
                write!(f, "is in VRF {vrf}, whose routes answers would be looked up in; take it out of the VRF, or use another NIC")
            }
        }
    }
}
