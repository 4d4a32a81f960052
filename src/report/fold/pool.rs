//! The status of one pool: how much of it is lent, and to whom it owes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::binding::ACCEPTED;
use super::condition::Verdict;
use crate::api::pool::EgressPoolStatus;
use crate::model::pool::Pool;

/// Every binding has as many addresses of it as it asks for.
pub const AVAILABLE: &str = "Available";
/// Reason of [`AVAILABLE`] being False.
pub const EXHAUSTED: &str = "PoolExhausted";

/// So many of the bindings that it owes addresses are named.
const MAX_NAMED: usize = 3;

/// What bindings have of a pool by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent<'a> {
    pub addresses: usize,
    /// Bindings that have too few, with how many are missing, in the order of names.
    pub owed: Vec<(&'a str, usize)>,
}

pub(super) fn status(pool: &Pool, lent: &Lent<'_>, before: &[Condition], now: Timestamp) -> EgressPoolStatus {
    let accepted = match pool.errors.as_slice() {
        [] => Verdict::yes(ACCEPTED, "it is well written".to_owned()),
        errors => Verdict::invalid(errors),
    };
    let available = match () {
        () if accepted.status != "True" => accepted.clone(),
        () if lent.owed.is_empty() => Verdict::yes(AVAILABLE, "every binding has as many addresses as it asks for".to_owned()),
        () => Verdict::no(EXHAUSTED, owed(&lent.owed)),
    };
    let conditions = [(ACCEPTED, accepted), (AVAILABLE, available)];
    EgressPoolStatus {
        observed_generation: Some(pool.generation),
        conditions: conditions.map(|(kind, verdict)| verdict.condition(kind, pool.generation, before, now)).into(),
        addresses: i64::try_from(pool.size()).unwrap_or(i64::MAX),
        allocated: i64::try_from(lent.addresses).unwrap_or(i64::MAX),
    }
}

fn owed(owed: &[(&str, usize)]) -> String {
    let named: Vec<String> = owed.iter().take(MAX_NAMED).map(|(binding, missing)| format!("{binding} ({missing})")).collect();
    let more = owed.len().saturating_sub(MAX_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} other bindings") };
    format!("addresses are missing for {}{more}; add a block, or let a binding go", named.join(", "))
}
