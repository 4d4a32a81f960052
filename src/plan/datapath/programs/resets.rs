//! Connections from before a binding that resets them: the next packet that their program sends ends them.
//!
//! conntrack leaves a connection the address that it began with, and one from before its program was bound was not translated: its address is
//! everybody's. So it is known by its socket, as a first packet is. Its program is told by a reset, whatever the daemon does meanwhile.

use super::{bound, has_inside, left_alone, limits};
use crate::model::policy::{Standing, standing};
use crate::model::resolve::Outcome;
use crate::model::workload::Row;
use crate::nft::build::{iif, rule, saddr};
use crate::nft::{Bytes, Chain, Data, Datatype, Key, Refusal, Rule, Set, Table, Verdict};
use crate::plan::datapath::drops::{self, add_end};
use crate::plan::datapath::traffic;
use crate::plan::resets::is_reset;

/// The chain that all others of this concern end in.
const CHAIN: &str = "program_resets";
/// What names of look-ups end in.
const SET: &str = "-resets";

/// What a row's programs are led to, in a look-up of those whose connections may have to end.
pub fn verdict(row: &Row) -> Option<Data> {
    match standing(row) {
        Standing::Bound(policy) if is_reset(row) => Some(Data::Verdict(Verdict::Goto(chain(policy)))),
        // Not what comes after it.
        Standing::Free => Some(Data::Verdict(Verdict::Accept)),
        Standing::Bound(_) | Standing::Unknown => None,
    }
}

/// The set beside the one that has the policies.
pub fn set(policies: &str) -> String {
    format!("{policies}{SET}")
}

/// Whether a set says whose connections may have to end, or which of them go on.
pub fn is_one(set: &str) -> bool {
    set.ends_with(SET) || set.starts_with(CHAIN)
}

/// The chain of a policy.
pub fn chain(policy: u32) -> String {
    format!("{CHAIN}-{policy:08x}")
}

/// Adds a chain for each policy of a binding that resets: connections whose address is an exit of it go on, and what it is not for.
pub fn add(table: &mut Table, outcome: &Outcome, v6: bool) {
    let mut rules = left_alone(has_inside(table), v6);
    let reset = rule().counter(drops::DEPARTED).reject(Refusal::TcpReset);
    for (row, policy) in bound(&outcome.programs, v6).filter(|(row, _)| is_reset(row)) {
        let (name, exits) = (chain(policy), outcome.borne_by(row));
        let own = Set::of([Datatype::address(v6)]);
        let elements = exits.into_iter().map(|exit| (Key::one(Bytes::default().address(exit)), Data::None)).collect();
        let limited = limits(row).map(|traffic| rule().jump(&traffic::name(traffic)));
        let chosen = [Some(rule().found(name.as_str(), [saddr(v6)]).goto("bound_flow")), limited, Some(rule().goto(CHAIN))];
        table.chains.insert(name.clone(), Chain::regular(chosen.into_iter().flatten().collect::<Vec<Rule>>()));
        table.sets.insert(name, Set { elements, ..own });
    }
    rules.push(rule().goto(&add_end(table, (drops::DEPARTED, "tcp"), v6, [iif(), saddr(v6)], reset)));
    table.chains.insert(CHAIN.to_owned(), Chain::regular(rules));
}
