//! Reasons as machines have them.

use super::{Away, Reason};

impl Reason {
    /// One word for machines, as in a condition's `reason`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "Invalid",
            Self::NoExitInFamily(_) => "NoExitInFamily",
            Self::AddressNotFound { .. } => "AddressNotFound",
            Self::AddressNotOnInterface { .. } => "AddressNotOnInterface",
            Self::AddressNotReady { .. } => "AddressNotReady",
            Self::AddressOnTwoNics { .. } => "AddressOnTwoNics",
            Self::AddressProbed { .. } => "AddressProbed",
            Self::AddressDuplicate { .. } => "AddressDuplicate",
            Self::NoNicForAddress { .. } | Self::NoNicForRouted { .. } => "NoNicForAddress",
            Self::NotAHost { .. } => "NotAHostAddress",
            Self::AddressContested { .. } => "AddressContested",
            Self::NoSuchInterface { .. } => "NoSuchInterface",
            Self::NoAddressOnInterface { .. } => "NoAddressOnInterface",
            Self::InterfaceDown { .. } => "InterfaceDown",
            Self::GatewayNotFound { .. } => "GatewayNotFound",
            Self::GatewayIsOwn { .. } => "GatewayIsOwn",
            Self::GatewayDead { .. } => "GatewayDead",
            Self::Away { why: Away::Cloud { .. }, .. } => "CloudPending",
            Self::Away { why: Away::Probe { .. }, .. } => "ProbeFailed",
            Self::GatewayConflict { .. } => "GatewayConflict",
            Self::TooManyWays { .. } => "TooManyWays",
            Self::NotAnUplink { .. } => "NotAnUplink",
            Self::DatapathBypassed { .. } | Self::OnNoLink { .. } => "DatapathBypassed",
            Self::AddressTaken { .. } => "AddressTaken",
            Self::NotProgrammed { .. } => "NotProgrammed",
            Self::NotServed(_) => "NotServed",
            Self::BeingPlaced => "BeingPlaced",
            Self::NoSuchNetwork { .. } => "NoSuchNetwork",
            Self::NoSuchBridge { .. } => "NoSuchBridge",
            Self::NoAddressYet => "NoAddressYet",
            Self::NoRouteToSource { .. } => "NoRouteToSource",
            Self::Overlap { .. } => "Overlap",
            Self::NoSuchNamespace { .. } => "NoSuchNamespace",
            Self::NoSuchUser { .. } => "NoSuchUser",
            Self::NoSuchCgroup { .. } => "NoSuchCgroup",
            Self::UnitNotRunning { .. } => "UnitNotRunning",
            Self::NoCgroups { .. } => "NoCgroups",
            Self::NoExitOnNode | Self::PoolNotOnNode { .. } | Self::PlacedElsewhere { .. } => "NoExitOnNode",
            Self::Draining { .. } => "Draining",
            Self::NoSuchPool { .. } => "PoolNotFound",
            Self::PoolInvalid { .. } => "PoolInvalid",
            Self::NamespaceNotAllowed { .. } => "NamespaceNotAllowed",
            Self::AddressNotInPool { .. } => "AddressNotInPool",
            Self::OwnedByAnother { .. } => "AddressTaken",
            Self::NotAllocated { .. } => "NotAllocated",
            Self::PoolExhausted { .. } => "PoolExhausted",
            Self::RawExits => "RawExitsNotAllowed",
        }
    }
}
