//! Why the datapath drops a packet. Each rule that does so counts, and bears one of these as the first word of its comment: so the counters
//! can be read back by reason, and `nft list ruleset` shows them with it.
//!
//! What is dropped is counted by interface, and by interface and source, too: in sets that rules fill, ahead of the rule that drops. They are read
//! when somebody asks, and are no drift.

use std::net::IpAddr;

use super::flow::{NO_FLOW, ORIGINAL, REPLY};
use super::shape::Shape;
use crate::contract::FLAG;
use crate::model::facts::IfIndex;
use crate::nft::build::{
    Operand, RuleBuilder, constant, ct_direction, ct_original_saddr, ct_reply_saddr, ct_state, fib_oif, fib_type, iif, rule, saddr,
};
use crate::nft::{Bytes, Chain, Datatype, Family, Key, Refusal, Rule, Set, Table};
use crate::plan::elements::{number_at, source_of};

/// A source that nobody vouches for, on its way to somewhere that is not known to be inside.
pub const GUARD: &str = "Guard";
/// A bound source without a usable exit: the program gets "unreachable" (RFC 792, 4443).
pub const NO_EXIT: &str = "NoExit";
/// What has a way would leave by another NIC than that way's, or with another address than that NIC's.
pub const SEAL: &str = "Seal";
/// A bound source's packet that bears no mark of ours: another program took it away, or conntrack does not know the flow.
pub const FOREIGN_MARK: &str = "ForeignMark";
/// What a binding's workloads send is more than its `rate`.
pub const RATE: &str = "Rate";
/// A flow of who was bound until just now, while it is being ended.
pub const DEPARTED: &str = "Departed";
/// A new flow to a server that has as many as it may have, or to a port whose servers all have: the client is refused.
pub const SERVER_LIMIT: &str = "ServerLimit";
/// A new flow of a client that has begun as many in this second as it may.
pub const CLIENT_LIMIT: &str = "ClientLimit";
/// An owned address as the source of another port of a bridge.
pub const SPOOFED: &str = "Spoofed";

/// The reasons of the ip families, whatever is bound.
const ALWAYS: [&str; 5] = [GUARD, NO_EXIT, SEAL, FOREIGN_MARK, DEPARTED];
/// `RTN_UNICAST` of `linux/rtnetlink.h`: not this host's, and not for many.
const UNICAST: u32 = 1;
/// Milliseconds that the packets of a source, or of an interface, are remembered after the last one.
const REMEMBERED: u64 = 24 * 60 * 60 * 1000;
/// Sources of one reason, at most: whoever sends with invented addresses fills no more. What finds no room is counted by interface and reason.
const MOST_SOURCES: u32 = 4096;
/// Interfaces of one reason, at most.
const MOST_LINKS: u32 = 1024;

/// The reasons that a family's table counts, each with whether its sources are IPv6's.
pub fn counted(family: Family) -> impl Iterator<Item = (&'static str, bool)> {
    let (reasons, versions): (&[&str], &[bool]) = match family {
        Family::Ip => (&[GUARD, NO_EXIT, SEAL, FOREIGN_MARK, DEPARTED, SERVER_LIMIT, CLIENT_LIMIT], &[false]),
        Family::Ip6 => (&[GUARD, NO_EXIT, SEAL, FOREIGN_MARK, DEPARTED, SERVER_LIMIT, CLIENT_LIMIT], &[true]),
        Family::Inet => (&[RATE], &[false, true]),
        Family::Bridge => (&[SPOOFED], &[false, true]),
    };
    reasons.iter().flat_map(|reason| versions.iter().map(move |v6| (*reason, *v6)))
}

/// The set of a reason's interfaces, filled by rules.
pub fn links(reason: &'static str) -> String {
    format!("dropped-{reason}-links")
}

/// The same of its interfaces and sources.
pub fn sources(reason: &'static str, v6: bool) -> String {
    format!("dropped-{reason}-{}", if v6 { 6 } else { 4 })
}

/// The interface and the source that a key of [`sources`] stands for.
pub fn source_in(key: Bytes, v6: bool) -> Option<(IfIndex, IpAddr)> {
    source_of(&Key::one(key), v6)
}

/// The interface that a key of [`links`] stands for.
pub fn link_in(key: Bytes) -> Option<IfIndex> {
    number_at(&Key::one(key), 0)
}

/// Ends a rule for packets that are dropped for this reason: they are counted in a chain of its own, so what is not dropped passes no more rules.
/// A rule that found a set full would end ahead of its verdict, so each set has a rule for itself.
pub fn drop_for(rule: RuleBuilder, reason: &'static str) -> Rule {
    rule.goto(&chain(reason))
}

/// The policy has no usable exit: the workload is answered so. The inside still works.
pub fn no_way(bits: u32) -> Rule {
    drop_for(rule().set_mark(constant(FLAG | bits)), NO_EXIT)
}

/// The same of a program of the host: the way's table ends in `unreachable`, so it gets an error at once.
pub fn no_way_of_program() -> Rule {
    rule().set_mark(constant(FLAG)).goto(&chain_of_program())
}

fn chain_of_program() -> String {
    format!("{}-program", chain(NO_EXIT))
}

/// The chain that answers a connection of the host for which there is no exit.
pub fn chain_of_refused_calls() -> String {
    format!("{}-tcp", chain(NO_EXIT))
}

/// The chain that counts what is dropped for a reason, and drops it.
fn chain(reason: &'static str) -> String {
    format!("drop-{reason}")
}

/// Adds the sets that a table of an ip family always has.
pub fn add_sets(table: &mut Table, v6: bool) {
    ALWAYS.iter().for_each(|reason| add_sets_of(table, reason, &[v6]));
}

fn add_sets_of(table: &mut Table, reason: &'static str, versions: &[bool]) {
    for v6 in versions {
        let set = Set::of([Datatype::IfIndex, Datatype::address(*v6)]).filled_by_rules(MOST_SOURCES);
        table.sets.insert(sources(reason, *v6), set);
    }
    table.sets.insert(links(reason), Set::of([Datatype::IfIndex]).filled_by_rules(MOST_LINKS));
}

/// The chains of a table of an ip family: those that it always has, and those of programs and sockets of the host.
pub fn chains(shape: Shape) -> impl Iterator<Item = (String, Chain)> {
    let v6 = shape.v6;
    let by_source = [GUARD, FOREIGN_MARK, DEPARTED]
        .map(|reason| (chain(reason), [count(reason, v6, [iif(), saddr(v6)]).as_slice(), &[rule().counter(reason).drop()]].concat()));
    // Its mark says already that there is no way, but what is inside is reached all the same. The route that ends its table would answer, too, and
    // less often than a connection is tried: the kernel holds both that a packet has no route, and the answer, against one limit of a second.
    let inside = [rule().is_not(fib_type(), UNICAST).accept(), rule().is_not(fib_oif(), 0).accept()];
    let end = rule().counter(NO_EXIT).reject(Refusal::Host { v6 });
    let counted = count(NO_EXIT, v6, [iif(), saddr(v6)]);
    let no_exit = [inside.as_slice(), &counted, &[end]].concat();
    let of_program = [counted.as_slice(), &[rule().counter(NO_EXIT).accept()]].concat();
    let refused = [counted.as_slice(), &[rule().counter(NO_EXIT).reject(Refusal::Host { v6 })]].concat();
    let refused = (shape.programs || shape.sockets).then(|| (chain_of_refused_calls(), refused));
    let all = by_source
        .into_iter()
        .chain([(chain(NO_EXIT), no_exit), (chain_of_program(), of_program), (chain(SEAL), sealed(v6))])
        .chain(refused);
    all.map(|(name, rules)| (name, Chain::regular(rules)))
}

/// Counts by interface, and by interface and address.
fn count(reason: &'static str, v6: bool, [link, address]: [Operand; 2]) -> [Rule; 2] {
    [rule().count_in(&links(reason), [link.clone()], REMEMBERED).done(), source(rule(), reason, v6, [link, address])]
}

fn source(begin: RuleBuilder, reason: &'static str, v6: bool, key: [Operand; 2]) -> Rule {
    begin.count_in(&sources(reason, v6), key, REMEMBERED).done()
}

/// By then the source may be an exit already: the flow knows who sent the packet.
fn sealed(v6: bool) -> Vec<Rule> {
    let flow = |direction, address| source(rule().is(ct_direction(), direction), SEAL, v6, [iif(), address]);
    vec![
        rule().count_in(&links(SEAL), [iif()], REMEMBERED).done(),
        flow(ORIGINAL, ct_original_saddr(v6)),
        flow(REPLY, ct_reply_saddr(v6)),
        source(rule().is_not(ct_state().and(NO_FLOW), 0), SEAL, v6, [iif(), saddr(v6)]),
        rule().counter(SEAL).drop(),
    ]
}

/// Adds a chain that counts by another interface or address, and ends in a rule of its own; `place` tells such chains of one reason apart. Returns
/// its name.
pub fn add_end(table: &mut Table, (reason, place): (&'static str, &str), v6: bool, key: [Operand; 2], last: Rule) -> String {
    add_sets_of(table, reason, &[v6]);
    let name = format!("{}-{place}", chain(reason));
    let rules = [count(reason, v6, key).as_slice(), &[last]].concat();
    table.chains.insert(name.clone(), Chain::regular(rules));
    name
}

/// Adds the chain and the sets of a reason to a table of several families: how a packet of each is known, and its source.
pub fn add_families(table: &mut Table, reason: &'static str, sources: impl IntoIterator<Item = (RuleBuilder, bool, Operand)>) {
    add_sets_of(table, reason, &[false, true]);
    let by_link = rule().count_in(&links(reason), [iif()], REMEMBERED).done();
    let by_source = sources.into_iter().map(|(begin, v6, address)| source(begin, reason, v6, [iif(), address]));
    let rules = [by_link].into_iter().chain(by_source).chain([rule().counter(reason).drop()]);
    table.chains.insert(chain(reason), Chain::regular(rules.collect::<Vec<_>>()));
}
