//! Programs of the host itself, known by the control group or the user of their sockets.
//!
//! A program's first packet is given a mark in `output`, whose route chain then routes it anew, and in `postrouting` the exit that the mark
//! tells. Of workloads the source tells the exit, and here it tells nothing: all programs have the host's. So each exit has a mark of its own,
//! whose policy rule leads to its way's table. Later packets follow by the flow's own addresses, those that the kernel sends without a socket
//! too. Of datagrams they may be another program's: one socket after the other, or several at a time, may send from one port to one peer. So
//! their flows are kept apart, each policy's in a conntrack zone of its own. What the host reaches without its default routes is not touched, nor
//! what stays on its link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::drops::{drop_for, no_way_of_program};
use super::flow::{NO_FLOW, ORIGINAL, TRANSLATED};
use super::names::OF_PROGRAMS;
use super::rules::{ours, to_inside};
use super::spill::{self, Spill};
use super::spread::{numbered, slot};
use super::{drops, names, source_ports, traffic};
use crate::contract::{FLAG, FLAG_MASK, MARK_MASK, PRIORITY_OUTPUT};
use crate::model::binding::Traffic;
use crate::model::outcome::{Outcome, Programs};
use crate::model::policy::{NO_EXIT, Standing, standing};
use crate::model::ports::Protocol;
use crate::model::spread::Shares;
use crate::model::uplinks::Exit;
use crate::model::ways;
use crate::model::workload::{Entry, Row, State};
use crate::nft::build::{
    Operand, constant, ct_direction, ct_state, ct_status, daddr, fib_type, iif, l4proto, map, mark, oif, ranges, rule, saddr,
    socket_cgroup, socket_user,
};
use crate::nft::{Base, Bytes, Chain, ChainKind, Change, Data, Datatype, Elements, Family, Hook, Key, Rule, Set, Table, Verdict};
use crate::plan::resets::is_reset;

mod begun;
mod everybody;
mod resets;
mod zones;

pub(super) use begun::again;
pub use resets::is_one as is_of_resets;
pub use zones::trial as trial_of_zones;

/// `LOOPBACK_IFINDEX`: the same in every network namespace.
const LOOPBACK: u32 = 1;
const TCP: u32 = Protocol::Tcp.number() as u32;
/// `RTN_BROADCAST`.
const BROADCAST: u32 = 3;
const UDP: u32 = Protocol::Udp.number() as u32;
/// The datum of programs that leave by the default route; policies have other numbers.
const FREE: u32 = 0;

/// Whether the element of one of [`names::OF_PROGRAMS`] stands for all programs, and its key.
pub type Who = (bool, Key);

/// What a row's programs are looked up by.
pub fn who(row: &Row) -> Option<Who> {
    match row.entry? {
        Entry::Everybody => Some((true, everybody::key())),
        other => By::of(other).map(|(_, key)| (false, Key::one(key))),
    }
}

/// What an element of a set of programs stands for.
pub fn who_in(set: &str, key: Key) -> Who {
    (set == everybody::POLICY, key)
}

/// The set of the slots of a policy that spreads, which lead to marks.
pub fn slots(policy: u32) -> String {
    format!("marks-{policy:08x}")
}

/// The source ports of a first packet.
pub(super) fn source_ports() -> Rule {
    ours().vmap(names::PROGRAM_PORTS, [oif(), mark().and(MARK_MASK)])
}

/// The exit of a first packet.
pub(super) fn source_nat(v6: bool) -> Rule {
    ours().snat(Family::ip(v6), map(names::PROGRAM_EXITS, [oif(), mark().and(MARK_MASK)]))
}

/// Another program's rule translated the destination to this host itself.
pub(super) fn redirected() -> Rule {
    ours().is(oif(), LOOPBACK).accept()
}

/// A translated flow of the host's own bears another NIC's exit: it lost its way.
pub(super) fn sealed(v6: bool) -> Rule {
    let own = rule().is(iif(), 0).is(ct_direction(), ORIGINAL).is(ct_status().and(TRANSLATED), TRANSLATED);
    drop_for(own.is_not(map(names::WAYS, [saddr(v6)]), 0), drops::SEAL)
}

/// Without a flow there is no source NAT.
pub(super) fn untracked() -> Rule {
    drop_for(ours().is(iif(), 0).is_not(ct_state().and(NO_FLOW), 0), drops::SEAL)
}

/// A look at a socket's control group, to be tried: where the kernel has no such thing, everybody else can be bound all the same.
pub fn trial() -> Vec<Change> {
    let chain = "trial".to_owned();
    let base = Base { kind: ChainKind::Route, hook: Hook::Output, priority: PRIORITY_OUTPUT };
    let rule = rule().is(socket_cgroup(1), 0).done();
    vec![Change::AddChain(Family::Ip, chain.clone(), Some(base)), Change::AddRule(Family::Ip, chain, rule)]
}

/// What of a program's socket is looked up in one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    User,
    /// At that level.
    Cgroup(u32),
}

impl By {
    fn of(entry: Entry) -> Option<(Self, Bytes)> {
        match entry {
            Entry::User { uid } => Some((Self::User, Bytes::of_number(uid))),
            Entry::Cgroup { id, level } => Some((Self::Cgroup(level), Bytes::of_cgroup(id))),
            Entry::Port { .. } | Entry::Routed { .. } | Entry::Socket | Entry::Everybody => None,
        }
    }

    fn operand(self) -> Operand {
        match self {
            Self::User => socket_user(),
            Self::Cgroup(level) => socket_cgroup(level),
        }
    }

    fn datatype(self) -> Datatype {
        match self {
            Self::User => Datatype::Uid,
            Self::Cgroup(_) => Datatype::Cgroup,
        }
    }

    fn set(self, tier: usize) -> String {
        match self {
            Self::User => format!("{OF_PROGRAMS}{tier}-users"),
            Self::Cgroup(level) => format!("{OF_PROGRAMS}{tier}-cgroups-{level}"),
        }
    }
}

/// One look-up: a set of policies, of the kinds of traffic that some are limited to, and of those whose connections may have to end.
#[derive(Debug, Default)]
struct Lookup {
    policies: Elements,
    limited: Elements,
    resets: Elements,
}

/// Look-ups that follow one another: those of users, or those of control groups, of bindings none of which takes precedence over one of the
/// other kind in between. The deepest group comes first: its binding is the one that takes precedence of its own and those above it.
type Tier = BTreeMap<By, Lookup>;

/// Adds the chains and sets of programs to a table of that family; nothing when there are none.
pub fn add(table: &mut Table, outcome: &Outcome, v6: bool) {
    let programs = &outcome.programs;
    let (tiers, reset) = (tiers(programs, v6), bound(programs, v6).any(|(row, _)| is_reset(row)));
    let mut first: Vec<Rule> = left_alone(has_inside(table), v6);
    // Ahead of all look-ups: a new group below a bound one may be another binding's, and would leave by the exit of the group above.
    guards(table, programs, &mut first);
    let (mut later, mut in_zones): (Vec<Rule>, Vec<Rule>) = Default::default();
    for (number, tier) in tiers.into_iter().enumerate() {
        for (by, Lookup { policies, limited, resets }) in tier.into_iter().rev() {
            let set = by.set(number);
            if !limited.is_empty() {
                let limits = format!("{set}-limited");
                first.push(rule().vmap(limits.as_str(), [by.operand()]));
                table.sets.insert(limits, Set { elements: limited, ..Set::map([by.datatype()], Datatype::Verdict) });
            }
            first.push(rule().set_mark(map(set.as_str(), [by.operand()])).goto("program"));
            in_zones.push(rule().is(l4proto(), UDP).vmap(zones::set(&set).as_str(), [by.operand()]));
            if reset && !resets.is_empty() {
                let ended = resets::set(&set);
                later.push(rule().is(l4proto(), TCP).vmap(ended.as_str(), [by.operand()]));
                table.sets.insert(ended, Set { elements: resets, ..Set::map([by.datatype()], Datatype::Verdict) });
            }
            later.push(rule().is_not(map(set.as_str(), [by.operand()]), FREE).goto("bound_flow"));
            table.sets.insert(set, Set { elements: policies, ..Set::map([by.datatype()], Datatype::Mark) });
        }
    }
    if let Some(rules) = everybody::add(table, programs, v6) {
        first.push(rule().goto(everybody::CHAIN));
        later.extend(everybody::later(table, programs, v6));
        table.chains.insert(everybody::CHAIN.to_owned(), Chain::regular(rules));
    }
    if !table.sets.keys().any(|name| names::is_of_programs(name)) {
        return;
    }
    begun::add(table);
    if reset {
        resets::add(table, outcome, v6);
    }
    if !in_zones.is_empty() && !programs.no_zones {
        zones::add(table, in_zones);
    }
    for (exit, number) in programs.marks.iter().filter(|(exit, _)| exit.address.is_ipv6() == v6) {
        let key = Bytes::of_number(exit.interface).number(ways::mark(*number));
        insert(table, names::PROGRAM_EXITS, key, Data::address(exit.address));
        exit.ports.into_iter().for_each(|ports| insert(table, names::PROGRAM_PORTS, key, source_ports::program_jump(ports)));
    }
    for (policy, shares) in programs.spreads.iter().filter(|(_, shares)| shares.shares.iter().any(|one| one.exit.address.is_ipv6() == v6)) {
        spread(table, *policy, shares, programs, v6);
    }
    for (row, policy) in bound(programs, v6) {
        if let State::Bound(exit) = &row.state
            && let Some(number) = programs.marks.get(exit)
        {
            insert(table, names::PROGRAM_MARKS, Bytes::of_number(policy), Data::mark(ways::mark(*number)));
        }
    }
    let spreads = !programs.spreads.is_empty();
    table.chains.extend([
        ("programs".to_owned(), Chain::regular(first)),
        ("program_flows".to_owned(), Chain::regular(later)),
        ("program".to_owned(), Chain::regular(choose(spreads, v6))),
    ]);
}

/// The kinds of traffic that bindings of programs are limited to, by the names of their chains.
pub fn traffics(programs: &Programs, v6: bool) -> impl Iterator<Item = (String, &Traffic)> {
    rows(programs, v6).filter_map(|row| limits(row)).map(|traffic| (traffic::name(traffic), traffic))
}

fn rows(programs: &Programs, v6: bool) -> impl Iterator<Item = &Row> {
    programs.rows.iter().filter(move |row| row.address.is_some_and(|net| net.addr().is_ipv6() == v6))
}

fn bound(programs: &Programs, v6: bool) -> impl Iterator<Item = (&Row, u32)> {
    rows(programs, v6).filter_map(|row| if let Standing::Bound(policy) = standing(row) { Some((row, policy)) } else { None })
}

/// What a row's binding is for, unless it is everything. What is wrong with a binding is wrong with all that it is for.
fn limits(row: &Row) -> Option<&Traffic> {
    let valid = !matches!(standing(row), Standing::Bound(NO_EXIT));
    row.binding.as_ref().map(|binding| &binding.traffic).filter(|traffic| valid && !traffic.is_everything())
}

fn tiers(programs: &Programs, v6: bool) -> Vec<Tier> {
    let mut tiers: Vec<(bool, Tier)> = Vec::new();
    for row in rows(programs, v6) {
        let Some((by, key)) = row.entry.and_then(By::of) else { continue };
        let policy = match standing(row) {
            Standing::Bound(policy) => policy,
            Standing::Free => FREE,
            Standing::Unknown => continue,
        };
        let users = by == By::User;
        if tiers.last().is_none_or(|(of_users, _)| *of_users != users) {
            tiers.push((users, Tier::new()));
        }
        let Some((_, tier)) = tiers.last_mut() else { continue };
        let lookup = tier.entry(by).or_default();
        lookup.policies.insert(Key::one(key), Data::mark(policy));
        lookup.resets.extend(resets::verdict(row).map(|verdict| (Key::one(key), verdict)));
        if let Some(traffic) = limits(row) {
            lookup.limited.insert(Key::one(key), Data::Verdict(Verdict::Jump(traffic::name(traffic))));
        }
    }
    tiers.into_iter().map(|(_, tier)| tier).collect()
}

/// Destinations that no exit is for. In `output` the interface is still that of the unmarked packet's route.
pub(super) fn left_alone(inside: bool, v6: bool) -> Vec<Rule> {
    let mut rules = vec![
        rule().found(names::INSIDE_LINKS, [oif()]).accept(),
        rule().found(names::INSIDE_HOSTS, [oif(), daddr(v6)]).accept(),
        rule().found(ranges(names::INSIDE_ROUTES), [oif(), daddr(v6)]).accept(),
    ];
    rules.extend(on_the_link(v6).into_iter().map(|net| rule().within(daddr(v6), net).accept()));
    rules.extend(inside.then(|| to_inside(v6).accept()));
    rules
}

fn has_inside(table: &Table) -> bool {
    table.sets.get(names::INSIDE).is_some_and(|set| !set.elements.is_empty())
}

/// Multicast and broadcast (RFC 1112, RFC 919), link-local and multicast of IPv6 (RFC 4291).
fn on_the_link(v6: bool) -> [IpNet; 2] {
    let net = |address: [u16; 8], length| IpNet::new(address.into(), length).expect("the length is within an address");
    let net4 = |address: [u8; 4], length| IpNet::new(IpAddr::from(address), length).expect("the length is within an address");
    if v6 {
        [net([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), net([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)]
    } else {
        [net4([224, 0, 0, 0], 4), net4([255, 255, 255, 255], 32)]
    }
}

/// Children of guarded groups that nobody knows yet: a group that is made anew has another number.
fn guards(table: &mut Table, programs: &Programs, rules: &mut Vec<Rule>) {
    let levels: BTreeSet<u32> = programs.guarded.iter().map(|guarded| guarded.level).collect();
    for level in levels {
        let (groups, known) = (format!("{OF_PROGRAMS}guarded-{level}"), format!("{OF_PROGRAMS}known-{}", level + 1));
        let guarded = || programs.guarded.iter().filter(|guarded| guarded.level == level);
        let set = |ids: Elements| Set { elements: ids, ..Set::of([Datatype::Cgroup]) };
        let element = |id: u64| (Key::one(Bytes::of_cgroup(id)), Data::None);
        table.sets.insert(groups.clone(), set(guarded().map(|guarded| element(guarded.id)).collect()));
        table.sets.insert(known.clone(), set(guarded().flat_map(|guarded| &guarded.known).map(|id| element(*id)).collect()));
        let in_group = rule().found(groups.as_str(), [socket_cgroup(level)]);
        rules.push(drop_for(in_group.not_found(known.as_str(), [socket_cgroup(level + 1)]), drops::GUARD));
    }
}

/// From the policy, which stands in the mark, to the mark of an exit.
fn choose(spreads: bool, v6: bool) -> Vec<Rule> {
    let mut rules = vec![rule().is(mark(), FREE).accept()];
    if !v6 {
        // To all of a subnet that some NIC is in, which is its own business.
        rules.push(rule().is(fib_type(), BROADCAST).set_mark(constant(0)).accept());
    }
    if spreads {
        rules.push(rule().vmap(names::PROGRAM_SPREADS, [mark()]));
    }
    rules.push(rule().set_mark(map(names::PROGRAM_MARKS, [mark()])).done());
    rules.push(begun::keep());
    rules.push(rule().is(mark().and(FLAG_MASK), FLAG).accept());
    // A call by TCP is told of its first packet's fate by an answer alone; what else is sent gets the error of the way that leads nowhere.
    rules.push(rule().is(l4proto(), TCP).goto(&drops::chain_of_refused_calls()));
    rules.push(no_way_of_program());
    rules
}

/// A policy's slots lead to marks: one of an exit is all that both the route and the translation need.
fn spread(table: &mut Table, policy: u32, shares: &Shares, programs: &Programs, v6: bool) {
    let chain = format!("program-{policy:08x}");
    let mut choose = |shares: &Shares, kind: &str, name: &str, mut rules: Vec<Rule>| {
        let exits: Vec<Exit> = shares.slots().into_iter().filter(|exit| programs.marks.contains_key(exit)).collect();
        if exits.is_empty() {
            return false;
        }
        let set = format!("{kind}{}{name}", slots(policy));
        let elements = numbered(&exits, |exit| Data::mark(ways::mark(programs.marks.get(exit).copied().unwrap_or_default())));
        rules.push(rule().set_mark(map(set.as_str(), [slot(shares.spread, exits.len(), v6)])).done());
        table.chains.insert(format!("{chain}{name}"), Chain::regular(rules));
        table.sets.insert(set, Set { elements, ..Set::map([Datatype::Mark], Datatype::Mark) });
        true
    };
    let (spill, full) = (Spill::of(shares), spill::set_name("marks", policy));
    if !choose(shares, "", "", vec![spill::look_up(&full, v6)]) {
        return;
    }
    for (closed, name) in spill.choices() {
        choose(&shares.without(closed), "spill-", &format!("-{name}"), Vec::new());
    }
    table.sets.insert(full, spill.set(v6, |name| Data::Verdict(Verdict::Goto(format!("{chain}-{name}")))));
    insert(table, names::PROGRAM_SPREADS, Bytes::of_number(policy), Data::Verdict(Verdict::Jump(chain)));
}

fn insert(table: &mut Table, set: &str, key: Bytes, data: Data) {
    table.sets.entry(set.to_owned()).and_modify(|set| _ = set.elements.insert(Key::one(key), data));
}
