//! The states that addresses of workloads are counted by.

use std::collections::HashSet;

use super::status::word;
use crate::model::resolve::Outcome;
use crate::model::workload::{Row, State};

/// An address of a family that the binding has no exit for, of a workload that leaves by the other one: as it was asked for.
const OTHER_FAMILY: &str = "OtherFamily";
/// All that there are.
pub const STATES: [&str; 7] = ["Bound", "Dropped", "Fallback", "Unbound", "Waiting", "Refused", OTHER_FAMILY];

/// The state of each row.
pub fn states(outcome: &Outcome) -> impl Iterator<Item = &'static str> {
    let leaves = |row: &&Row| row.entry.is_some() && matches!(row.state, State::Bound(_));
    let some = outcome.all_rows().any(Row::is_of_no_family);
    let bound: HashSet<String> = outcome.all_rows().filter(|_| some).filter(leaves).map(|row| row.subject.to_string()).collect();
    outcome.all_rows().map(
        move |row| {
            if row.is_of_no_family() && bound.contains(&row.subject.to_string()) { OTHER_FAMILY } else { word(row) }
        },
    )
}
