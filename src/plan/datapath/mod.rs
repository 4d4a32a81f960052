//! The datapath: chains and sets, composed of one fragment for each concern.
//!
//! Rules are the same for every outcome, but for those that an empty set would make pointless; everything that changes with a workload is an
//! element of a set. The flow's own addresses say its way: in the original direction the address that it was translated to, in the reply
//! direction the address that was called. So nothing of ours stands in the conntrack mark, and the packet mark is ours only from
//! `prerouting` (behind everybody's mangle rules) to the end of `postrouting`. ARCHITECTURE.md follows a packet through all of it.

pub mod admission;
mod answers;
pub mod drops;
mod egress;
pub mod gate;
mod guard;
mod identity;
pub mod inbound;
mod ipvs;
pub mod programs;
mod published;
pub mod rate;
mod seal;
pub mod source_ports;
pub mod spill;
pub mod spread;
pub mod traffic;

use std::collections::BTreeMap;

use foldhash::HashMap;

use crate::contract::{FLAG, FLAG_MASK};
use crate::nft::build::{RuleBuilder, constant, daddr, iif, mark, ranges, rule};
use crate::nft::{Bytes, Chain, Data, Datatype, Key, Rule, Set, Table};

pub use identity::{add_drops as add_identity_drops, table as identity};

/// `ct direction` of answers.
pub const REPLY: u32 = 1;
/// `ct direction` of who began the flow.
const ORIGINAL: u32 = 0;
/// `IPS_SRC_NAT`: its source was translated to another.
const TRANSLATED: u32 = 1 << 4;
/// `IPS_CONFIRMED`: the flow's first packet has left. (`ct state new` also matches later packets of an unanswered UDP flow.)
const CONFIRMED: u32 = 1 << 3;
/// `NF_CT_STATE_INVALID_BIT` and `NF_CT_STATE_UNTRACKED_BIT`.
const NO_FLOW: u32 = 1 | 1 << 6;
/// Ethertypes of IPv4 and IPv6.
const ETHERTYPE: [u32; 2] = [0x0800, 0x86dd];
/// `IPS_EXPECTED`: a helper saw another flow announce this one.
const EXPECTED: u32 = 1 << 0;

/// Names of the sets, in the ip families.
pub mod names {
    /// Interface, source: the policy of a bound source.
    pub const POLICIES: &str = "policies";
    /// The same for subnets.
    pub const POLICIES_NETS: &str = "policies_nets";
    /// Policy: its way. A policy without a usable exit is not in it.
    pub const POLICY_WAYS: &str = "policy_ways";
    /// Policy: the chain that shares its new flows among several ways.
    pub const SPREADS: &str = "spreads";
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
    /// Policy of the host's programs: the mark that tells its exit. A policy without a usable exit is not in it.
    pub const PROGRAM_MARKS: &str = "program_marks";
    /// Output NIC, mark: the exit of programs' flows.
    pub const PROGRAM_EXITS: &str = "program_exits";
    /// Output NIC, mark: the chain of programs' flows with a range of source ports.
    pub const PROGRAM_PORTS: &str = "program_ports";
    /// Policy of the host's programs: the chain that shares its new flows among several exits.
    pub const PROGRAM_SPREADS: &str = "program_spreads";
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
}

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
    /// Bridges are guarded.
    pub guards: bool,
    /// Sources without a port of their own are bound.
    pub claimed: bool,
    /// Flows of former owners are being ended.
    pub departed: bool,
    /// Who is bound goes by the default route just now.
    pub fell_back: bool,
    pub fell_back_nets: bool,
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
            refusals: any(names::SERVER_LIMITS) || sets.keys().any(|name| admission::is_rate(name)),
            ipvs: any(names::VIRTUAL),
            isolated: any(names::ISOLATED),
            inside: any(names::INSIDE),
            guards: any(names::GUARDS),
            claimed: any(names::CLAIMED),
            departed: any(names::DEPARTED),
            fell_back: any(names::FELL_BACK),
            fell_back_nets: any(names::FELL_BACK_NETS),
            programs: sets.keys().any(|name| programs::is_of_programs(name)),
        }
    }
}

/// The chains of one concern.
type Chains = Vec<(&'static str, Chain)>;

/// The chains of a table of an ip family.
pub fn chains(shape: Shape) -> BTreeMap<String, Chain> {
    let fragments = [
        inbound::chains(shape),
        gate::chains(shape),
        egress::chains(shape),
        answers::chains(shape),
        guard::chains(shape),
        seal::chains(shape),
    ];
    let mut all: BTreeMap<String, Chain> = drops::chains(shape.v6).collect();
    for (name, chain) in fragments.into_iter().flatten() {
        let before = all.insert(name.to_owned(), chain);
        debug_assert!(before.is_none(), "two fragments have a chain {name}");
    }
    all
}

/// The empty sets of a table of an ip family.
pub fn sets(v6: bool) -> Sets {
    let address = Datatype::address(v6);
    let source = [Datatype::IfIndex, address];
    let left = [Datatype::IfIndex, Datatype::IfIndex, address];
    Sets::new([
        (names::POLICIES, Set::map(source, Datatype::Mark)),
        (names::POLICIES_NETS, Set::map(source, Datatype::Mark).with_ranges()),
        (names::POLICY_WAYS, Set::map([Datatype::Mark], Datatype::Mark)),
        (names::SPREADS, Set::map([Datatype::Mark], Datatype::Verdict)),
        (names::SPREAD_EXITS, Set::map(left, Datatype::Verdict)),
        (names::SPREAD_EXITS_NETS, Set::map(left, Datatype::Verdict).with_ranges()),
        (names::EXITS, Set::map(left, address)),
        (names::EXITS_NETS, Set::map(left, address).with_ranges()),
        (names::SOURCE_PORTS, Set::map(left, Datatype::Verdict)),
        (names::SOURCE_PORTS_NETS, Set::map(left, Datatype::Verdict).with_ranges()),
        (names::WAYS, Set::map([address], Datatype::Mark)),
        (names::CALLED, Set::map([address], Datatype::Mark)),
        (names::OWN, Set::of(source)),
        (names::LIMITED, Set::map(source, Datatype::Verdict)),
        (names::LIMITED_NETS, Set::map(source, Datatype::Verdict).with_ranges()),
        (names::GUARDS, Set::of([Datatype::IfIndex])),
        (names::KNOWN, Set::of(source)),
        (names::CLAIMED, Set::of(source).with_ranges()),
        (names::DEPARTED, Set::of(source)),
        (names::FELL_BACK, Set::of(source)),
        (names::FELL_BACK_NETS, Set::of(source).with_ranges()),
        (names::PROGRAM_MARKS, Set::map([Datatype::Mark], Datatype::Mark)),
        (names::PROGRAM_EXITS, Set::map([Datatype::IfIndex, Datatype::Mark], address)),
        (names::PROGRAM_PORTS, Set::map([Datatype::IfIndex, Datatype::Mark], Datatype::Verdict)),
        (names::PROGRAM_SPREADS, Set::map([Datatype::Mark], Datatype::Verdict)),
        (names::INSIDE_LINKS, Set::of([Datatype::IfIndex])),
        (names::INSIDE_HOSTS, Set::of(source)),
        (names::INSIDE_ROUTES, Set::of(source).with_ranges()),
        (names::INSIDE, Set::of(source).with_ranges()),
    ])
}

/// The sets of one table while they are filled. Their elements are put in order at the end, which takes less time than one by one.
#[derive(Debug)]
pub struct Sets(HashMap<&'static str, Filled>);

/// A set, and its elements as they came.
#[derive(Debug)]
struct Filled {
    set: Set,
    elements: Vec<(Key, Data)>,
}

impl Sets {
    pub(super) fn new<const N: usize>(sets: [(&'static str, Set); N]) -> Self {
        Self(sets.into_iter().map(|(name, set)| (name, Filled { set, elements: Vec::new() })).collect())
    }

    /// Adds an element. What is there already stays: two that differ are a mistake of the plan, and the first is the one that was asked for.
    pub fn put(&mut self, set: &str, key: Key, data: Data) {
        self.0.get_mut(set).expect("one of the table's sets").elements.push((key, data));
    }

    /// Adds an element whose key is a single value.
    pub fn one(&mut self, set: &str, key: Bytes, data: Data) {
        self.put(set, Key::one(key), data);
    }

    /// The table of these sets.
    pub fn with(self, chains: BTreeMap<String, Chain>) -> Table {
        let ordered = |(name, Filled { set, mut elements }): (&str, Filled)| {
            elements.sort_by_key(|(key, _)| *key);
            elements.dedup_by_key(|(key, _)| *key);
            (name.to_owned(), Set { elements: elements.into_iter().collect(), ..set })
        };
        Table { chains, sets: self.0.into_iter().map(ordered).collect() }
    }
}

/// Begins a rule for packets that egressd routes.
fn ours() -> RuleBuilder {
    rule().is(mark().and(FLAG_MASK), FLAG)
}

/// It came in by some interface: the host's own packets have none.
fn forwarded(rule: RuleBuilder) -> RuleBuilder {
    rule.is_not(iif(), 0)
}

/// Begins a rule for what is inside, though an uplink leads there.
fn to_inside(v6: bool) -> RuleBuilder {
    rule().found(ranges(names::INSIDE), [iif(), daddr(v6)])
}

/// The policy has no usable exit. The way's table ends in `unreachable`, so the program gets an error at once; the inside still works.
fn no_way(bits: u32) -> Rule {
    drops::drop_for(rule().set_mark(constant(FLAG | bits)), drops::NO_EXIT)
}

/// The rules that are there, in order.
fn present<const N: usize>(rules: [Option<Rule>; N]) -> Vec<Rule> {
    rules.into_iter().flatten().collect()
}
