//! What `egressd exec` asks for: a control group whose rules are in the kernel before a program is in it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Teller;
use super::control::{Question, Response, put};
use crate::effects::programs::{leave, make};
use crate::model::known::Facts;
use crate::model::outcome::Outcome;
use crate::model::programs::Started;
use crate::model::reason::Reason;
use crate::model::workload::{Entry, State};

/// How long it may take until the rules of a new control group are there. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the loop is asked.
const PAUSE: Duration = Duration::from_millis(2);

/// Makes the control group and waits for its rules.
pub(super) async fn prepare(started: Started, tell: &Teller) -> Response {
    let stops = || Response::Refused("egressd is being stopped; start it again".to_owned());
    let deadline = Instant::now() + PATIENCE;
    let mut folder: Option<PathBuf> = None;
    loop {
        match put(Question::Exec(started.clone()), tell).await {
            Some(Response::Ready(ready)) => match &folder {
                Some(folder) if ready => return Response::Cgroup(folder.clone()),
                Some(_) => {}
                None => match make(&started.cgroup()) {
                    Ok(made) => folder = Some(made),
                    Err(error) => return Response::Refused(format!("failed to make control group {}: {error}", started.cgroup())),
                },
            },
            Some(refused) => {
                folder.iter().for_each(|folder| leave(folder));
                return refused;
            }
            None => return stops(),
        }
        if Instant::now() >= deadline {
            folder.iter().for_each(|folder| leave(folder));
            return Response::Refused("its rules are not in the kernel yet; see the problems of `egressd status`".to_owned());
        }
        sleep(PAUSE).await;
    }
}

/// Whether programs that are started so leave by an exit already, or why they will not.
pub(super) fn readiness(started: &Started, facts: &Facts, outcome: &Outcome) -> Response {
    let refused = |why: String| Response::Refused(why);
    if let Some(why) = &facts.programs.no_cgroups {
        return refused(Reason::NoCgroups { why: why.clone() }.to_string());
    }
    if let Started::By(name) = started {
        let Some(binding) = facts.manifests.bindings.iter().find(|binding| binding.name.name == *name) else {
            return refused(format!("no file has a binding {name}; see `egressd status` for those there are"));
        };
        if let Some(error) = binding.errors.first() {
            return refused(format!("the binding {name} is invalid: {error}"));
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
    worst.map_or(Response::Ready(false), |reason| refused(reason.to_string()))
}
