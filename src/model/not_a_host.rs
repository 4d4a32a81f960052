//! Why an address is none that egressd puts on a NIC, whether anybody answers for it or not.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// What the address is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotAHost {
    /// This subnet's own or broadcast address; for IPv6 that of all its routers.
    OfSubnet(IpNet),
    /// The gateway of a route or of a binding.
    Gateway,
    /// Of the subnet of this interface, which leads to workloads.
    OfWorkloads { interface: String },
}

impl NotAHost {
    /// The subnet, if its address is one that no machine may have (RFC 919; for IPv6 RFC 4291, section 2.6.1). A subnet of two has none of these
    /// (RFC 3021, RFC 6164).
    pub fn of_subnet(net: IpNet, address: IpAddr) -> Option<Self> {
        let is_none = net.network() == address || (address.is_ipv4() && net.broadcast() == address);
        (is_none && net.prefix_len() + 1 < net.max_prefix_len()).then_some(Self::OfSubnet(net))
    }
}

/// The end of a sentence that begins with the address.
impl fmt::Display for NotAHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfSubnet(net @ IpNet::V4(_)) => {
                write!(f, "is the network or broadcast address of {}, which no machine may have", net.trunc())
            }
            Self::OfSubnet(net) => write!(f, "is the address of all routers of {}, which no machine may have for itself", net.trunc()),
            Self::Gateway => write!(f, "is a gateway, so another machine has it, whether it answers or not"),
            Self::OfWorkloads { interface } => write!(f, "is of the subnet of {interface}, which leads to workloads and not outside"),
        }
    }
}
