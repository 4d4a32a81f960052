//! Names of the sets: of the ip families, where nothing else is said.

/// Interface, source: the policy of a bound source.
pub const POLICIES: &str = "policies";
/// The same for subnets.
pub const POLICIES_NETS: &str = "policies_nets";
/// Policy: its way. A policy without a usable exit is not in it.
pub const POLICY_WAYS: &str = "policy_ways";
/// Policy: the chain that shares its new flows among several ways.
pub const SPREADS: &str = "spreads";
/// The same for sockets of the host that are bound to an address.
pub const SOCKET_SPREADS: &str = "socket_spreads";
/// Output NIC, interface, source: the chain that shares its new flows among several exits.
pub const SPREAD_EXITS: &str = "spread_exits";
/// The same for subnets.
pub const SPREAD_EXITS_NETS: &str = "spread_exits_nets";
/// Output NIC, interface, source: the exit.
pub const EXITS: &str = "exits";
/// The same for subnets.
pub const EXITS_NETS: &str = "exits_nets";
/// Output NIC, interface, source: the chain of its range of source ports.
pub const SOURCE_PORTS: &str = "source_ports";
/// The same for subnets.
pub const SOURCE_PORTS_NETS: &str = "source_ports_nets";
/// Exit: the way of flows that were translated to it.
pub const WAYS: &str = "ways";
/// Address of a NIC: the way of answers to who called it.
pub const CALLED: &str = "called";
/// The same of exits that workloads answer by another gateway than the host.
pub const ANSWERED: &str = "answered";
/// NIC, address: what leaves by that NIC bears one of these.
pub const OWN: &str = "own";
/// Interface, source: bound for some destinations or ports only.
pub const LIMITED: &str = "limited";
/// The same for subnets.
pub const LIMITED_NETS: &str = "limited_nets";
/// Interface: a guarded bridge.
pub const GUARDS: &str = "guards";
/// Interface, source: known on a guarded bridge, and bound by nobody.
pub const KNOWN: &str = "known";
/// Sources that bindings name, by whatever interface they come.
pub const CLAIMED: &str = "claimed";
/// Interface, source: bound until just now. Its flows are being ended.
pub const DEPARTED: &str = "departed";
/// Interface, source: bound, and by the default route as long as no exit can be used. Flows that have an exit go on by that.
pub const FELL_BACK: &str = "fell_back";
/// The same for subnets.
pub const FELL_BACK_NETS: &str = "fell_back_nets";
/// Addresses of the host itself: sockets that are bound to them are.
pub const SOCKETS: &str = "sockets";
/// The chain that lets go without a mark what they send inside (by the loopback above all), or on its link.
pub const SOCKETS_LEFT_ALONE: &str = "sockets_left_alone";
/// Policy of the host's programs: the mark that tells its exit. A policy without a usable exit is not in it.
pub const PROGRAM_MARKS: &str = "program_marks";
/// Output NIC, mark: the exit of programs' flows.
pub const PROGRAM_EXITS: &str = "program_exits";
/// Output NIC, mark: the chain of programs' flows with a range of source ports.
pub const PROGRAM_PORTS: &str = "program_ports";
/// Flow of the host's programs whose first packet is under way: its mark.
pub const BEGUN: &str = "begun";
/// Policy of the host's programs: the chain that shares its new flows among several exits.
pub const PROGRAM_SPREADS: &str = "program_spreads";
/// Output interface, destination: what only a tunnel leads to.
pub const TUNNELLED: &str = "tunnelled";
/// Interfaces that lead to what is inside.
pub const INSIDE_LINKS: &str = "inside_links";
/// Output interface, destination: hosts that are inside.
pub const INSIDE_HOSTS: &str = "inside_hosts";
/// The same for subnets.
pub const INSIDE_ROUTES: &str = "inside_routes";
/// Subnets that are inside, though an uplink leads to them.
pub const INSIDE: &str = "inside";
/// Address, protocol, port that is called: the chain of the service.
pub const SERVICES: &str = "services";
/// The same for ranges of ports.
pub const SERVICES_RANGES: &str = "services_ranges";
/// Addresses that are called.
pub const PUBLISHED: &str = "published";
/// Address, protocol, port of servers.
pub const SERVING: &str = "serving";
/// The same for ranges of ports.
pub const SERVING_RANGES: &str = "serving_ranges";
/// Servers that see this host's address instead of the client's.
pub const MASQUERADED: &str = "masqueraded";
/// The same for ranges of ports.
pub const MASQUERADED_RANGES: &str = "masqueraded_ranges";
/// Address, protocol, port of servers that may have so many flows: the chain that counts them.
pub const SERVER_LIMITS: &str = "server_limits";
/// Those of them that have as many.
pub const FULL: &str = "full";
/// Interface, address: programs in network namespaces of their own, which others' filters are to let through.
pub const ISOLATED: &str = "isolated";
/// Input and output interface, source: who is beside a server, and would be answered past this host.
pub const HAIRPINS: &str = "hairpins";
/// Family `inet`: NICs that lead outside.
pub const UPLINKS: &str = "uplinks";
/// Family `inet`: interface, source: the chain of its binding's limit.
pub const RATES: [&str; 2] = ["rates4", "rates6"];
/// The same for subnets.
pub const RATES_NETS: [&str; 2] = ["rates4_nets", "rates6_nets"];
/// Address, protocol, port that a virtual service of IPVS is called at.
pub const VIRTUAL: &str = "virtual";
/// Address, protocol, port of servers behind IPVS that route their answers back through this host.
pub const ROUTED_BACK: &str = "routed_back";
/// Bridge family: port, source.
pub const OWNERS: [&str; 2] = ["owners4", "owners6"];
/// Bridge family: port, source of the same workload at another port, which owns it.
pub const BESIDE: [&str; 2] = ["beside4", "beside6"];
/// Bridge family: source that a port owns.
pub const OWNED: [&str; 2] = ["owned4", "owned6"];
/// The sets of the ip families whose elements are one source's each.
pub const OF_SOURCES: [&str; 14] = [
    POLICIES,
    POLICIES_NETS,
    SPREAD_EXITS,
    SPREAD_EXITS_NETS,
    EXITS,
    EXITS_NETS,
    SOURCE_PORTS,
    SOURCE_PORTS_NETS,
    LIMITED,
    LIMITED_NETS,
    KNOWN,
    DEPARTED,
    FELL_BACK,
    FELL_BACK_NETS,
];

/// What the names of the sets begin with that say which programs are bound or held.
pub const OF_PROGRAMS: &str = "programs-";
/// What those of clients' rates do.
pub const CLIENT_RATES: &str = "rates";

/// Whether a set says who is bound or held.
pub fn is_of_programs(set: &str) -> bool {
    set.starts_with(OF_PROGRAMS)
}

/// Whether a set has the rates of clients.
pub fn is_rate(set: &str) -> bool {
    set.strip_prefix(CLIENT_RATES).is_some_and(|rest| rest.starts_with('-'))
}
