//! Why a workload is not served, in one sentence with the cure. Every text that status shows for it is here.

mod text;
mod word;

use std::net::IpAddr;

use super::address::{Family, Mac};
pub use super::away::Away;
use super::field_error::FieldError;
pub use super::not_a_host::NotAHost;
pub use super::not_an_uplink::NotAnUplink;
pub use super::port_refusal::PortRefusal;

/// Why there is no usable exit, or no binding at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The binding itself is wrong.
    Invalid(FieldError),
    NoExitInFamily(Family),
    AddressNotFound {
        address: IpAddr,
    },
    AddressNotOnInterface {
        address: IpAddr,
        interface: String,
        elsewhere: Option<String>,
    },
    AddressNotReady {
        address: IpAddr,
        interface: String,
    },
    /// Another NIC holds it, too, and the host itself sends by that one.
    AddressOnTwoNics {
        address: IpAddr,
        interface: String,
        other: String,
    },
    /// egressd is to put the address on a NIC, and looks whether another machine has it.
    AddressProbed {
        address: IpAddr,
        interface: String,
    },
    /// egressd is to put the address on a NIC, and another machine has it.
    AddressDuplicate {
        address: IpAddr,
        interface: String,
        by: Mac,
    },
    /// egressd is to put the address on a NIC, and another program takes it away as often.
    AddressContested {
        address: IpAddr,
        interface: String,
    },
    /// egressd is to put the address on a NIC, and none has its subnet.
    NoNicForAddress {
        address: IpAddr,
    },
    /// egressd is to put the address on a NIC, and no machine may have it, or another one is known to have it.
    NotAHost {
        address: IpAddr,
        why: NotAHost,
    },
    /// The address is routed to this host, and no NIC leads out.
    NoNicForRouted {
        address: IpAddr,
    },
    NoSuchInterface {
        interface: String,
    },
    /// The exit is an interface's own address, and it has none.
    NoAddressOnInterface {
        interface: String,
    },
    InterfaceDown {
        interface: String,
    },
    GatewayNotFound {
        interface: String,
    },
    /// The gateway that the binding names is this host.
    GatewayIsOwn {
        interface: String,
        gateway: IpAddr,
    },
    /// It answered before, and does not any more.
    GatewayDead {
        interface: String,
        gateway: IpAddr,
    },
    /// What is wrong with the exit is beyond this host.
    Away {
        address: IpAddr,
        why: Away,
    },
    /// The address of a flow does not tell by which of two gateways it goes.
    GatewayConflict {
        interface: String,
        address: IpAddr,
        /// The gateway that flows with this address have.
        gateway: IpAddr,
        /// The gateway that this binding has or names.
        named: IpAddr,
    },
    TooManyWays {
        interface: String,
    },
    /// The source is a NIC's own address, which sockets have that choose none.
    OfUplink {
        interface: String,
    },
    /// The interface that holds the address leads to no outside.
    NotAnUplink {
        interface: String,
        why: NotAnUplink,
    },
    /// The workload is on a bridge of a NIC: what it sends to the router is bridged, and is not seen here.
    DatapathBypassed {
        bridge: String,
    },
    /// No link of this host leads to the pod that has the address: it has a NIC of its own, or a part of one.
    OnNoLink {
        address: IpAddr,
    },
    /// The kernel refused what its way needs.
    NotProgrammed {
        error: String,
    },
    /// Another port of the bridge had the address first.
    OwnedByAnother {
        address: IpAddr,
        by: String,
    },
    /// The workload cannot be served: its network mode or driver.
    NotServed(FieldError),
    /// It is being moved to another network or address.
    BeingPlaced,
    /// It is on a network that the engine has not told of.
    NoSuchNetwork {
        network: String,
    },
    /// The network's bridge is not among this host's interfaces.
    NoSuchBridge {
        network: String,
        bridge: Option<String>,
    },
    /// It runs, and its address is not known yet.
    NoAddressYet,
    /// It has an address, and no port of a bridge or link of this host shows it.
    NotSeenYet,
    /// No link of this host leads into its network namespace.
    NoLinkYet,
    NoRouteToSource {
        net: ipnet::IpNet,
    },
    /// The same source is another binding's, which wins.
    Overlap {
        with: String,
    },
    NoSuchNamespace {
        name: String,
    },
    NoSuchUser {
        user: String,
    },
    NoSuchCgroup {
        path: String,
    },
    /// A systemd unit without a control group.
    UnitNotRunning {
        unit: String,
    },
    /// This host has no control groups of version 2, or its kernel does not look at those of sockets.
    NoCgroups {
        /// What is missing.
        why: String,
    },
    /// A binding of the cluster whose addresses no NIC of this node holds.
    NoExitOnNode,
    /// All exits that it could have take no new flows.
    Draining {
        address: IpAddr,
    },
    /// The pool is for other nodes.
    PoolNotOnNode {
        pool: String,
    },
    /// The pool gave the binding's addresses to other nodes.
    PlacedElsewhere {
        pool: String,
        /// The first of them.
        address: IpAddr,
        /// Its node, once it has one.
        node: Option<String>,
    },
    NoSuchPool {
        pool: String,
    },
    PoolInvalid {
        pool: String,
        error: FieldError,
    },
    NamespaceNotAllowed {
        pool: String,
        namespace: String,
    },
    AddressNotInPool {
        address: IpAddr,
        pool: String,
    },
    /// Another binding has it for itself.
    AddressTaken {
        address: IpAddr,
        /// That binding, as `namespace/name`.
        by: String,
    },
    /// It asks for a number of addresses, and has none yet.
    NotAllocated {
        pool: String,
    },
    /// It asks for more addresses than are left.
    PoolExhausted {
        pool: String,
        missing: usize,
    },
    /// It names exits itself, which is not allowed here.
    RawExits,
    /// A port that it publishes is not served.
    Port(PortRefusal),
}
