//! Reasons in a sentence, with the cure.

use std::fmt;

use super::{Family, Reason};

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) | Self::NotServed(error) => write!(f, "{error}"),
            Self::NoExitInFamily(family) => {
                let family = if *family == Family::V4 { "IPv4" } else { "IPv6" };
                write!(f, "the binding has no {family} exit; add an {family} address to its exits")
            }
            Self::AddressNotFound { address } => {
                write!(f, "no interface holds {address}; add it to the NIC: ip address add {address}/PREFIX dev NIC")
            }
            Self::AddressNotOnInterface { address, interface, elsewhere: Some(other) } => {
                write!(f, "{address} is on {other}, not on {interface}; name {other}, or leave the interface out")
            }
            Self::AddressNotOnInterface { address, interface, elsewhere: None } => {
                write!(f, "{interface} does not hold {address}; add it: ip address add {address}/PREFIX dev {interface}")
            }
            Self::AddressNotReady { address, interface } => {
                write!(f, "{address} on {interface} is tentative or a duplicate; see ip -6 address show dev {interface}")
            }
            Self::AddressOnTwoNics { address, interface, other } => {
                write!(
                    f,
                    "{address} is on {interface} and on {other}, by which the host itself sends with it; give one of them another address, or leave by {other}"
                )
            }
            Self::AddressProbed { address, interface } => {
                write!(f, "{address} is put on {interface} once its neighbours were asked whether one of them has it, in about a second")
            }
            Self::AddressDuplicate { address, interface, by } => {
                write!(
                    f,
                    "{address} is in use at {interface} by {by}, and is not added; take it from that machine, or name another address (they are asked again)"
                )
            }
            Self::NoNicForAddress { address } => {
                write!(f, "no NIC has a subnet with {address}; name the NIC to put it on (egress.interface, exits[].interface)")
            }
            Self::NotAHost { address, why } => write!(f, "{address} {why}; name another one"),
            Self::AddressContested { address, interface } => {
                write!(
                    f,
                    "another program takes {address} off {interface} as often as it is put there; find it by `ip monitor address`, and let it keep \
                     what it did not add (systemd-networkd: KeepConfiguration=yes; NetworkManager: leave the NIC unmanaged)"
                )
            }
            Self::NoNicForRouted { address } => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "{address} is routed to this host, and no NIC has a default route of {family}; name the NIC that it leaves by (exits[].interface)"
                )
            }
            Self::NoSuchInterface { interface } => write!(f, "there is no interface {interface}; see ip link for the names"),
            Self::NoAddressOnInterface { interface } => {
                write!(
                    f,
                    "{interface} has no address that others reach; the exit is there as soon as it has one: see ip address show dev {interface}"
                )
            }
            Self::InterfaceDown { interface } => {
                write!(f, "{interface} is down or has no carrier; ip link set {interface} up, or look at its cable")
            }
            Self::GatewayNotFound { interface } => {
                write!(
                    f,
                    "{interface} has no default route, and no other NIC knows a router in its subnet; name its gateway (egress.gateway, exits[].gateway)"
                )
            }
            Self::GatewayIsOwn { interface, gateway } => {
                write!(f, "the gateway {gateway} is an address of this host; name the router at {interface}, or leave the gateway out")
            }
            Self::GatewayDead { interface, gateway } => {
                write!(
                    f,
                    "gateway {gateway} does not answer at {interface} any more; it is asked four times a second: look at it and the way to it, or name another one (egress.gateway, exits[].gateway)"
                )
            }
            Self::Away { address, why } => write!(f, "{address} {why}"),
            Self::GatewayConflict { interface, address, gateway, named } => {
                write!(
                    f,
                    "flows with {address} leave {interface} by {gateway}, and a flow's address is all that tells its gateway; name {gateway}, or bind another address of {interface} to {named}"
                )
            }
            Self::TooManyWays { interface } => {
                write!(
                    f,
                    "all 127 ways are taken, none is left for {interface}; use fewer NICs and gateways, and fewer exits of programs of the host"
                )
            }
            Self::OfUplink { interface } => {
                write!(
                    f,
                    "it is an address of {interface}, which sockets of this host get that choose none; name the programs by hostSelector, or have them listen on an address of a bridge"
                )
            }
            Self::NotAnUplink { interface, why } => write!(f, "{interface} {why}"),
            Self::DatapathBypassed { bridge } => {
                write!(f, "{bridge} is a bridge of a NIC, so its packets to the router bypass this host; put it on a bridge of its own")
            }
            Self::OnNoLink { address } => {
                write!(
                    f,
                    "no link of this node leads to {address}: the pod has a link of its own on a NIC (macvlan, ipvlan, SR-IOV, host-device), so its packets bypass this host's netfilter; have its CNI network use the plugin bridge or ptp, or leave the pod out of the binding's podSelector"
                )
            }
            Self::NotProgrammed { error } => {
                write!(f, "the kernel refused what it needs ({error}); see the problems of status, and mend what they name")
            }
            Self::OwnedByAnother { address, by } => write!(f, "{address} is {by}'s on this bridge; give one of them another address"),
            Self::BeingPlaced => write!(f, "it is being put where its labels say; it gets its exit there"),
            Self::NoSuchNetwork { network } => {
                write!(f, "network {network} is not known; the engine is being asked for it, see docker network inspect {network}")
            }
            Self::NoSuchBridge { network, bridge: Some(bridge) } => {
                write!(f, "this host has no bridge {bridge}, which network {network} is said to be on; run egressd where the engine runs")
            }
            Self::NoSuchBridge { network, bridge: None } => {
                write!(f, "the engine does not tell which bridge network {network} is on; make the network anew with a device name")
            }
            Self::NoAddressYet => write!(f, "it has no address yet; it gets its exit with its address"),
            Self::NotSeenYet => {
                write!(
                    f,
                    "no interface of this host shows its address yet; look for its link (ip link show type veth), and for its bridge's (bridge link)"
                )
            }
            Self::NoLinkYet => {
                write!(
                    f,
                    "no link of this host leads into it, so what it sends, if it has a link on a NIC (macvlan, ipvlan) or lies behind another namespace, bypasses this host's routing; give it a veth whose other end is on this host"
                )
            }
            Self::NoRouteToSource { net } => {
                write!(f, "no route says which interface {net} comes in by; name the interface of that address")
            }
            Self::Overlap { with } => {
                write!(f, "the same source is bound by {with}, which takes precedence; raise priority, or remove one")
            }
            Self::NoSuchNamespace { name } => write!(f, "there is no network namespace {name}; see ip netns for the names"),
            Self::NoSuchUser { user } => {
                write!(f, "/etc/passwd has no user {user}; add the user, or write the number of one that is known elsewhere (id -u {user})")
            }
            Self::NoSuchCgroup { path } => write!(f, "there is no control group {path}; its programs get their exit once it is made"),
            Self::UnitNotRunning { unit } => {
                write!(f, "no control group is called {unit}; it gets its exit once it is started, see systemctl status {unit}")
            }
            Self::NoCgroups { why } => {
                write!(
                    f,
                    "control groups of version 2 cannot be used here ({why}); boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none DIR; what needs none is to name users (hostSelector.users), and to start the program by egressd exec --namespace"
                )
            }
            Self::NoExitOnNode => {
                write!(
                    f,
                    "no NIC of this node holds an address of the binding; give the binding one that this node has, or keep its pods off it"
                )
            }
            Self::Draining { address } => {
                write!(f, "{address} is draining and takes no new flows; give the binding another exit, or take `draining` out")
            }
            Self::PoolNotOnNode { pool } => {
                write!(f, "the nodeSelector of pool {pool} does not select this node; label the node, or keep the binding's pods off it")
            }
            Self::PlacedElsewhere { pool, address, node: Some(node) } => {
                write!(
                    f,
                    "EgressPool {pool} gave no address of the binding to this node ({address} is on {node}); ask for more addresses, or keep the binding's pods on nodes that have one"
                )
            }
            Self::PlacedElsewhere { pool, address, node: None } => {
                write!(f, "EgressPool {pool} gave {address} to no node yet; its condition Assigned says why")
            }
            Self::NoSuchPool { pool } => write!(f, "there is no EgressPool {pool}; see kubectl get egresspools for the names"),
            Self::PoolInvalid { pool, error } => write!(f, "EgressPool {pool} lends nothing: {error}"),
            Self::NamespaceNotAllowed { pool, namespace } => {
                write!(
                    f,
                    "EgressPool {pool} does not allow namespace {namespace}; add it to spec.allowedNamespaces, or label the namespace as that asks"
                )
            }
            Self::AddressNotInPool { address, pool } => write!(f, "{address} is in no block of EgressPool {pool}; name one that is"),
            Self::AddressTaken { address, by } => {
                write!(f, "{address} is allocated to EgressBinding {by}; name another address, or let that binding go")
            }
            Self::NotAllocated { pool } => {
                write!(f, "EgressPool {pool} has given it no address yet; kubectl get egresspool {pool} tells whether any is left")
            }
            Self::PoolExhausted { pool, missing } => {
                write!(
                    f,
                    "EgressPool {pool} has {missing} too few of the addresses that it asks for; add a block to the pool, or let another binding go"
                )
            }
            Self::RawExits => {
                write!(f, "exits are not allowed in this cluster's bindings; name a pool (spec.pool), or let the chart allow rawExits")
            }
            Self::Port(refusal) => write!(f, "{refusal}"),
        }
    }
}
