//! All programs of the host that no other binding names.
//!
//! Theirs is what leaves by the default route from a socket that some process opened, and whose address it has not chosen. The rest stays as it
//! was: what the kernel sends by itself (tunnels, resets), what has an address of its own, what another program marked for a route, what
//! conntrack does not follow, DHCP, and link-local destinations.

use super::{FREE, TCP, UDP, bound, limits, resets, rows};
use crate::model::outcome::Programs;
use crate::model::policy::{Standing, standing};
use crate::model::workload::Entry;
use crate::nft::build::{RuleBuilder, ct_state, daddr, dport, iif, l4proto, map, mark, oif, rule, saddr, socket_user, sport};
use crate::nft::{Bytes, Chain, Data, Datatype, Key, Rule, Set, Table, Verdict};
use crate::plan::datapath::flow::NO_FLOW;
use crate::plan::datapath::traffic;
use crate::plan::resets::is_reset;

/// Behind all other look-ups.
pub const CHAIN: &str = "every_program";
/// The policy. The key is the input interface, of which what the host sends has none.
pub const POLICY: &str = "programs-all";
/// The chain of what the binding is limited to.
const LIMITED: &str = "programs-all-limited";
/// The chain of connections that may have to end.
const RESETS: &str = "every_program_resets";
/// Output interface and source of sockets that have not chosen their address.
const PICKED: &str = "programs-all-picked";
/// No user has it (`INVALID_UID`): what has a socket of a process has another one, and what has none has no user at all.
const NOBODY: u32 = u32::MAX;
/// Ports of a client and a server of DHCP (RFC 2131), and of DHCPv6 (RFC 8415).
const DHCP: [[u32; 2]; 2] = [[68, 67], [546, 547]];

/// Adds the sets, and returns the rules of the chain; `None`: no binding is for all programs.
pub fn add(table: &mut Table, programs: &Programs, v6: bool) -> Option<Vec<Rule>> {
    let row = rows(programs, v6).find(|row| row.entry == Some(Entry::Everybody))?;
    let own = key();
    let mut policies = Set::map([Datatype::IfIndex], Datatype::Mark);
    // Who falls back is not looked up: a mark of another program's stays.
    if let Standing::Bound(policy) = standing(row) {
        policies.elements.insert(own, Data::mark(policy));
    }
    let mut rules = left_alone(v6);
    if let Some(traffic) = limits(row) {
        let mut limited = Set::map([Datatype::IfIndex], Datatype::Verdict);
        limited.elements.insert(own, Data::Verdict(Verdict::Jump(traffic::name(traffic))));
        table.sets.insert(LIMITED.to_owned(), limited);
        rules.push(of_a_process().vmap(LIMITED, [iif()]));
    }
    rules.push(of_a_process().set_mark(map(POLICY, [iif()])).goto("program"));
    let mut picked = Set::of([Datatype::IfIndex, Datatype::address(v6)]);
    let of_family = programs.picked.iter().filter(|(_, address)| address.is_ipv6() == v6);
    picked.elements.extend(of_family.map(|(nic, address)| (Key::one(Bytes::of_number(*nic).address(*address)), Data::None)));
    table.sets.extend([(POLICY.to_owned(), policies), (PICKED.to_owned(), picked)]);
    Some(rules)
}

/// The key of the sets: the host's packets come in by no interface.
pub fn key() -> Key {
    Key::one(Bytes::of_number(0))
}

/// Later packets of flows that were not translated: those whose exit is the address that they had already, and those from before the binding.
pub fn later(table: &mut Table, programs: &Programs, v6: bool) -> Vec<Rule> {
    let mut later = Vec::new();
    if let Some((_, policy)) = bound(programs, v6).find(|(row, _)| row.entry == Some(Entry::Everybody) && is_reset(row)) {
        let rules = left_alone(v6).into_iter().chain([of_a_process().goto(&resets::chain(policy))]);
        table.chains.insert(RESETS.to_owned(), Chain::regular(rules.collect::<Vec<_>>()));
        later.push(rule().is(l4proto(), TCP).is_not(map(POLICY, [iif()]), FREE).jump(RESETS));
    }
    later.push(rule().is_not(map(POLICY, [iif()]), FREE).goto("bound_flow"));
    later
}

fn of_a_process() -> RuleBuilder {
    rule().is_not(socket_user(), NOBODY)
}

fn left_alone(v6: bool) -> Vec<Rule> {
    let [client, server] = DHCP[usize::from(v6)];
    let mut rules = vec![
        rule().is_not(mark(), 0).accept(),
        rule().is_not(ct_state().and(NO_FLOW), 0).accept(),
        rule().not_found(PICKED, [oif(), saddr(v6)]).accept(),
        rule().is(l4proto(), UDP).is(sport(), client).is(dport(), server).accept(),
    ];
    if !v6 {
        // RFC 3927; clouds answer there for names, time and what a machine is.
        rules.push(rule().within(daddr(v6), ipnet::IpNet::V4("169.254.0.0/16".parse().expect("it is a subnet"))).accept());
    }
    rules
}
