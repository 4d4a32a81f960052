//! Which rules there are.

use std::collections::BTreeMap;

use super::names;
use crate::nft::Set;

/// What is there to be looked up: rules for what is not are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub v6: bool,
    /// Subnets are bound.
    pub nets: bool,
    /// Somebody is bound for some destinations or ports only.
    pub limited: bool,
    pub limited_nets: bool,
    /// Some policy has several ways.
    pub spreads: bool,
    /// Somebody has several exits.
    pub spread_exits: bool,
    pub spread_exits_nets: bool,
    /// Source ports are bounded.
    pub ports: bool,
    pub ports_nets: bool,
    pub program_ports: bool,
    /// Ports are published.
    pub services: bool,
    pub services_ranges: bool,
    /// Their servers may have so many flows.
    pub server_limits: bool,
    /// Some calls are refused.
    pub refusals: bool,
    /// Some of them by IPVS.
    pub ipvs: bool,
    /// Programs run in network namespaces of their own.
    pub isolated: bool,
    /// Subnets behind an uplink are inside.
    pub inside: bool,
    /// Tunnels are uplinks.
    pub tunnelled: bool,
    /// Some exits are answered by a gateway of their own.
    pub answered: bool,
    /// Bridges are guarded.
    pub guards: bool,
    /// Sources without a port of their own are bound.
    pub claimed: bool,
    /// Flows of former owners are being ended.
    pub departed: bool,
    /// Who is bound goes by the default route just now.
    pub fell_back: bool,
    pub fell_back_nets: bool,
    /// Sockets of the host are bound by their address.
    pub sockets: bool,
    /// Programs of the host are bound, or held.
    pub programs: bool,
}

impl Shape {
    /// What the sets of a table of an ip family hold.
    pub fn of(sets: &BTreeMap<String, Set>, v6: bool) -> Self {
        let any = |name: &str| sets.get(name).is_some_and(|set| !set.elements.is_empty());
        Self {
            v6,
            nets: any(names::POLICIES_NETS),
            limited: any(names::LIMITED),
            limited_nets: any(names::LIMITED_NETS),
            spreads: any(names::SPREADS),
            spread_exits: any(names::SPREAD_EXITS),
            spread_exits_nets: any(names::SPREAD_EXITS_NETS),
            ports: any(names::SOURCE_PORTS),
            ports_nets: any(names::SOURCE_PORTS_NETS),
            program_ports: any(names::PROGRAM_PORTS),
            services: any(names::SERVING),
            services_ranges: any(names::SERVING_RANGES),
            server_limits: any(names::SERVER_LIMITS),
            refusals: any(names::SERVER_LIMITS) || sets.keys().any(|name| names::is_rate(name)),
            ipvs: any(names::VIRTUAL),
            isolated: any(names::ISOLATED),
            inside: any(names::INSIDE),
            tunnelled: any(names::TUNNELLED),
            answered: any(names::ANSWERED),
            guards: any(names::GUARDS),
            claimed: any(names::CLAIMED),
            departed: any(names::DEPARTED),
            fell_back: any(names::FELL_BACK),
            fell_back_nets: any(names::FELL_BACK_NETS),
            sockets: any(names::SOCKETS),
            programs: sets.keys().any(|name| names::is_of_programs(name)),
        }
    }
}
