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
                    "{address} is on both {interface} and {other}, and this host sends from it over {other}; remove it from one of them, or set the exit's interface to {other}"
                )
            }
            Self::AddressProbed { address, interface } => {
                write!(f, "checking that no neighbour on {interface} uses {address}; it is added in about a second")
            }
            Self::AddressDuplicate { address, interface, by } => {
                write!(
                    f,
                    "{by} uses {address} on {interface} already, so it is not added; remove it from that machine, or name another address (egressd checks again)"
                )
            }
            Self::NoNicForAddress { address } => {
                write!(f, "no NIC has a subnet with {address}; name the NIC to put it on (egress.interface, exits[].interface)")
            }
            Self::NotAHost { address, why } => write!(f, "{address} {why}; name another address"),
            Self::AddressContested { address, interface } => {
                write!(
                    f,
                    "another program keeps removing {address} from {interface}; find it with `ip monitor address`, and configure it to keep \
                     addresses that it did not add (systemd-networkd: KeepConfiguration=yes; NetworkManager: leave the NIC unmanaged)"
                )
            }
            Self::NoNicForRouted { address } => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "{address} is routed to this host, and no NIC has a default route of {family}; name the NIC that it leaves through (exits[].interface)"
                )
            }
            Self::NoSuchInterface { interface } => write!(f, "there is no interface {interface}; see ip link for the names"),
            Self::NoAddressOnInterface { interface } => {
                write!(
                    f,
                    "{interface} has no address that others reach; the exit works as soon as it has one: see ip address show dev {interface}"
                )
            }
            Self::InterfaceDown { interface } => {
                write!(f, "{interface} is down or has no carrier; ip link set {interface} up, or check its cable")
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
                    "gateway {gateway} does not answer on {interface} any more; egressd asks it four times a second: check it and the path to it, or name another one (egress.gateway, exits[].gateway)"
                )
            }
            Self::Away { address, why } => write!(f, "{address} {why}"),
            Self::GatewayConflict { interface, address, gateway, named } => {
                write!(
                    f,
                    "flows with {address} leave {interface} through gateway {gateway}, and an address has only one gateway there; name {gateway}, or use another address of {interface} with {named}"
                )
            }
            Self::TooManyWays { interface } => {
                write!(
                    f,
                    "all 127 ways are in use, none is left for {interface}; use fewer NICs and gateways, and fewer exits of programs of the host"
                )
            }
            Self::OfUplink { interface } => {
                write!(
                    f,
                    "{interface}'s address is the default source of this host's own sockets, so it cannot tell one program from another; select programs with hostSelector, or let them listen on a bridge's address"
                )
            }
            Self::NotAnUplink { interface, why } => write!(f, "{interface} {why}"),
            Self::DatapathBypassed { bridge } => {
                write!(
                    f,
                    "{bridge} has a NIC as a port, so the workload's packets to the router bypass this host; put the workload on a bridge without a NIC"
                )
            }
            Self::OnNoLink { address } => {
                write!(
                    f,
                    "no link of this node leads to {address}: the pod has a link of its own on a NIC (macvlan, ipvlan, SR-IOV, host-device), so its packets bypass this host's netfilter; have its CNI network use the plugin bridge or ptp, or leave the pod out of the binding's podSelector"
                )
            }
            Self::NotProgrammed { error } => {
                write!(
                    f,
                    "the kernel refused a change that this workload needs ({error}); the lines below the table of `egressd status` have the cure"
                )
            }
            Self::OwnedByAnother { address, by } => write!(f, "{address} belongs to {by} on this bridge; give one of them another address"),
            Self::BeingPlaced => write!(f, "egressd is moving it to the network and address of its labels; it gets its exit there"),
            Self::NoSuchNetwork { network } => {
                write!(f, "network {network} is not known yet; egressd is asking the engine, see docker network inspect {network}")
            }
            Self::NoSuchBridge { network, bridge: Some(bridge) } => {
                write!(
                    f,
                    "the engine reports network {network} on bridge {bridge}, which this host does not have; run egressd where the engine runs"
                )
            }
            Self::NoSuchBridge { network, bridge: None } => {
                write!(
                    f,
                    "the engine does not report the bridge of network {network}; create the network again with `com.docker.network.bridge.name` set"
                )
            }
            Self::NoAddressYet => write!(f, "it has no address yet; it gets its exit with its address"),
            Self::NotSeenYet => {
                write!(
                    f,
                    "its address has not shown up on an interface of this host yet; check its link (ip link show type veth) and its bridge's ports (bridge link)"
                )
            }
            Self::NoLinkYet => {
                write!(
                    f,
                    "its namespace has no veth to this host, so its packets bypass this host's routing (macvlan, ipvlan, or a namespace behind another one); connect it with a veth pair"
                )
            }
            Self::NoRouteToSource { net } => {
                write!(f, "no route shows which interface {net} comes in on; name the interface of that address")
            }
            Self::Overlap { with } => {
                write!(f, "the same source is bound by {with}, which takes precedence; raise priority, or remove one")
            }
            Self::NoSuchNamespace { name } => write!(f, "there is no network namespace {name}; see ip netns for the names"),
            Self::NoSuchUser { user } => {
                write!(f, "/etc/passwd has no user {user}; add the user, or write its number (id -u {user}, where it exists)")
            }
            Self::NoSuchCgroup { path } => write!(f, "there is no control group {path}; its programs get their exit once it exists"),
            Self::UnitNotRunning { unit } => {
                write!(f, "no control group is named {unit}; its programs get their exit once it is started, see systemctl status {unit}")
            }
            Self::NoCgroups { why } => {
                write!(
                    f,
                    "control groups of version 2 cannot be used here ({why}); boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none DIR; without them you can still select users (hostSelector.users), or start the program with egressd exec --namespace"
                )
            }
            Self::NoExitOnNode => {
                write!(
                    f,
                    "no NIC of this node holds an address of the binding; give the binding one that this node has, or keep its pods off it"
                )
            }
            Self::Draining { address } => {
                write!(f, "{address} is draining and takes no new flows; give the binding another exit, or remove `draining`")
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
                write!(f, "EgressPool {pool} gave {address} to no node yet; see its condition Assigned for the reason")
            }
            Self::NoSuchPool { pool } => write!(f, "there is no EgressPool {pool}; see kubectl get egresspools for the names"),
            Self::PoolInvalid { pool, error } => write!(f, "EgressPool {pool} is invalid and lends no addresses: {error}"),
            Self::NamespaceNotAllowed { pool, namespace } => {
                write!(
                    f,
                    "EgressPool {pool} does not allow namespace {namespace}; add it to spec.allowedNamespaces, or give it labels that are selected there"
                )
            }
            Self::AddressNotInPool { address, pool } => write!(f, "{address} is in no block of EgressPool {pool}; name one that is"),
            Self::AddressTaken { address, by } => {
                write!(f, "{address} is allocated to EgressBinding {by}; name another address, or delete that binding")
            }
            Self::NotAllocated { pool } => {
                write!(f, "EgressPool {pool} has given it no address yet; kubectl get egresspool {pool} shows whether any is left")
            }
            Self::PoolExhausted { pool, missing } => {
                write!(
                    f,
                    "EgressPool {pool} lacks {missing} of the addresses that the binding asks for; add a block to the pool, or delete another binding"
                )
            }
            Self::RawExits => {
                write!(f, "exits are not allowed in this cluster's bindings; name a pool (spec.pool), or let the chart allow rawExits")
            }
            Self::Port(refusal) => write!(f, "{refusal}"),
        }
    }
}
