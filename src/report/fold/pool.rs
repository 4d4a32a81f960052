//! The status of one pool: how much of it is lent, and to whom it owes.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::binding::ACCEPTED;
use super::condition::{Verdict, conditions};
use super::placed::ASSIGNED;
use super::record::RECORD;
use crate::api::object::FORCE;
use crate::api::places;
use crate::api::pool::EgressPoolStatus;
use crate::model::pool::{Places, Pool};

/// Every binding has as many addresses of it as it asks for.
pub const AVAILABLE: &str = "Available";
/// Reason of [`AVAILABLE`] being False.
pub const EXHAUSTED: &str = "PoolExhausted";

/// Reason of [`ACCEPTED`] when bindings have addresses that the pool lent before it became smaller.
pub const LENT_OUTSIDE: &str = "LentOutsideBlocks";

/// So many of the bindings that it owes addresses are named.
const MAX_NAMED: usize = 3;

/// What bindings have of a pool by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent<'a> {
    pub addresses: usize,
    /// Bindings that have too few, with how many are missing, in the order of names.
    pub owed: Vec<(&'a str, usize)>,
    /// How many bindings leave by its addresses.
    pub bindings: usize,
    /// Addresses that are in no block of it any more, and whose they still are.
    pub outside: Vec<(IpAddr, &'a str)>,
    /// Addresses that are kept for bindings which are not there, or have not got them back yet.
    pub kept: Vec<(IpAddr, &'a str)>,
}

/// `placed`: the node of each address, and what became of them there.
pub(super) fn status(
    pool: &Pool,
    lent: &Lent<'_>,
    (places, assigned): (&Places, Option<Verdict>),
    before: &[Condition],
    now: Timestamp,
) -> EgressPoolStatus {
    let accepted = match pool.errors.as_slice() {
        [] if lent.outside.is_empty() => Verdict::yes(ACCEPTED, "the spec is valid".to_owned()),
        [] => Verdict::yes(LENT_OUTSIDE, outside(&pool.name, &lent.outside)),
        errors => Verdict::invalid(errors),
    };
    let available = match () {
        () if accepted.status != "True" => accepted.clone(),
        () if lent.owed.is_empty() => Verdict::yes(AVAILABLE, "every binding has the addresses that it asks for".to_owned()),
        () => Verdict::no(EXHAUSTED, owed(lent)),
    };
    let assigned = assigned.map(|assigned| (ASSIGNED, if accepted.status == "True" { assigned } else { accepted.clone() }));
    let verdicts = [(ACCEPTED, accepted), (AVAILABLE, available)].into_iter().chain(assigned);
    EgressPoolStatus {
        observed_generation: Some(pool.generation),
        conditions: conditions(verdicts, pool.generation, before, now),
        addresses: i64::try_from(pool.size()).unwrap_or(i64::MAX),
        allocated: i64::try_from(lent.addresses).unwrap_or(i64::MAX),
        bindings: i64::try_from(lent.bindings).unwrap_or(i64::MAX),
        nodes: places::write(places),
        cloud: None,
    }
}

fn outside(pool: &str, outside: &[(IpAddr, &str)]) -> String {
    format!(
        "the spec is valid; no block has these addresses any more, and they stay lent until their bindings release them: {}; to release them now: kubectl annotate egresspool {pool} {FORCE}=true",
        named(outside)
    )
}

fn owed(lent: &Lent<'_>) -> String {
    let names: Vec<String> = lent.owed.iter().take(MAX_NAMED).map(|(binding, missing)| format!("{binding} ({missing})")).collect();
    let more = lent.owed.len().saturating_sub(MAX_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let kept = match lent.kept.as_slice() {
        [] => String::new(),
        kept => format!(
            "; kept for an hour for bindings that a restore may bring back: {}; to free them now, delete their lines from ConfigMap {RECORD}",
            named(kept)
        ),
    };
    format!("addresses are missing for {}{more}; add a block, or delete a binding{kept}", names.join(", "))
}

/// The first of them, each with its binding, and how many more there are.
fn named(addresses: &[(IpAddr, &str)]) -> String {
    let named: Vec<String> = addresses.iter().take(MAX_NAMED).map(|(address, binding)| format!("{address} ({binding})")).collect();
    let more = addresses.len().saturating_sub(MAX_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", named.join(", "))
}
