//! What became of a pool, for its users: conditions with the cure, and for each address whether it may be used.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

pub use egressd::model::cloud::AddressReport;
use serde::{Deserialize, Serialize};

/// What a pool asks of a cloud, apart from each other: one that fails does not stop the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Aspect {
    /// The pool's addresses are private addresses of the network interface.
    AddressesAssigned,
    /// Each has an elastic address.
    ElasticAddressesAssociated,
    /// The NIC's source/destination check is off.
    SourceDestCheckDisabled,
    /// The route tables' default routes lead to the network interface.
    RoutesPointed,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressesAssigned => "AddressesAssigned",
            Self::ElasticAddressesAssociated => "ElasticAddressesAssociated",
            Self::SourceDestCheckDisabled => "SourceDestCheckDisabled",
            Self::RoutesPointed => "RoutesPointed",
        })
    }
}

/// Whether an aspect is as the pool asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub ready: bool,
    /// A word, as conditions in Kubernetes have: `Done`, `Pending`, or what is wrong.
    pub reason: Reason,
    /// Sentences; where something is wrong, with the cure.
    pub message: String,
}

/// Why a condition is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// As the pool asks.
    Done,
    /// Calls are to be made, or their effect is not shown yet.
    Pending,
    /// A call failed.
    CallFailed,
    /// A call was refused for want of a permission.
    PermissionDenied,
    /// The network interface, or the account, has as many addresses as it may have.
    LimitReached,
    /// Another network interface has the address, or another elastic address leads to it.
    AddressInUse,
    /// The address is not of the network interface's subnet.
    NotInSubnet,
    /// The cloud keeps the address of the subnet for itself.
    Reserved,
    /// No free elastic address bears the tag.
    NoElasticAddress,
    /// An elastic address of ours was made to lead elsewhere.
    TakenAway,
    /// The table's default route leads to another network interface.
    RouteInUse,
    /// There is no such route table.
    NoSuchRouteTable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that is in the way of an aspect, or of one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub aspect: Aspect,
    pub reason: Reason,
    /// `None`: of the pool as a whole.
    pub address: Option<Ipv4Addr>,
    pub message: String,
}

/// All that is known of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// The network interface, once it was found.
    pub network_interface: Option<String>,
    /// Everything is as the pool asks.
    pub ready: bool,
    /// What keeps the pool as a whole from being looked after: the API is away, there is no such NIC.
    pub problem: Option<String>,
    pub conditions: BTreeMap<Aspect, Condition>,
    pub addresses: BTreeMap<Ipv4Addr, AddressReport>,
    /// What the pool has and no longer asks for: kept until it is released.
    pub surplus: Vec<String>,
}
