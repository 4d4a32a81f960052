//! What `egressd exec` waits for: the rules of a control group, before a program is in it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Teller;
use super::question::{Question, Response, put};
use crate::model::known::Facts;
use crate::model::outcome::Outcome;
use crate::model::programs::Started;
use crate::model::reason::Reason;
use crate::model::workload::{Entry, State};

/// How long it may take until the rules of a new control group are there. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the loop is asked.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until the rules are there, or it is known that they will not be; `None` when the loop stops.
pub(super) async fn await_ready(started: Started, tell: &Teller) -> Option<Response> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match put(Question::Exec(started.clone()), tell).await? {
            Response::Ready(false) if Instant::now() < deadline => sleep(PAUSE).await,
            answer => return Some(answer),
        }
    }
}

/// Whether programs that are started so leave by an exit already, or why they will not.
pub(super) fn readiness(started: &Started, facts: &Facts, outcome: &Outcome) -> Response {
    if let Some(why) = &facts.programs.no_cgroups {
        return Response::Refused(Reason::NoCgroups { why: why.clone() }.to_string());
    }
    if let Started::By(name) = started {
        let Some(binding) = facts.manifests.bindings.iter().find(|binding| binding.name.name == *name) else {
            return Response::Refused(format!("no file has a binding {name}; see `egressd status` for those there are"));
        };
        if let Some(error) = binding.errors.first() {
            return Response::Refused(format!("the binding {name} is invalid: {error}"));
        }
    }
    let id = facts.programs.cgroups.get(&started.cgroup());
    let of_group = |entry: Option<Entry>| matches!(entry, Some(Entry::Cgroup { id: of, .. }) if Some(&of) == id);
    let rows = || outcome.programs.rows.iter().filter(|row| of_group(row.entry));
    if rows().any(|row| matches!(row.state, State::Bound(_) | State::FellBack(_))) {
        return Response::Ready(true);
    }
    // A family that it has no exit for is not what is wrong.
    let reasons = || rows().filter_map(|row| row.state.reason());
    let worst = reasons().find(|reason| !matches!(reason, Reason::NoExitInFamily(_))).or_else(|| reasons().next());
    worst.map_or(Response::Ready(false), |reason| Response::Refused(reason.to_string()))
}
