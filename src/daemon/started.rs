//! What `egressd exec` waits for: the rules of a control group or of a network namespace, before a program is in it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EventSender;
use super::question::{Question, Response, put};
use crate::model::facts::IfIndex;
use crate::model::isolated;
use crate::model::known::Facts;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::started::Started;
use crate::model::workload::{Entry, Row, State};

/// How long it may take until the rules of a new group or namespace are there. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the loop is asked.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until the rules are there, or it is known that they will not be; `None` when the loop stops.
pub(super) async fn await_ready(question: impl Fn() -> Question, tell: &EventSender) -> Option<Response> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match put(question(), tell).await? {
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
            return Response::Refused(isolated::missing(name));
        };
        if let Some(error) = binding.errors.first() {
            return Response::Refused(format!("the binding {name} is invalid: {error}"));
        }
        if let Some(rate) = binding.rate {
            let cure = "add --namespace";
            return Response::Refused(format!("binding {name} has a rate limit ({rate}), which works for forwarded packets only: {cure}"));
        }
    }
    let id = facts.programs.cgroups.get(&started.cgroup());
    let of_group = |entry: Option<Entry>| matches!(entry, Some(Entry::Cgroup { id: of, .. }) if Some(&of) == id);
    let rows = || outcome.programs.rows.iter().filter(|row| of_group(row.entry));
    of_rows(rows)
}

/// The same for the program behind a link: its ports are served, too, and `open` says that others' firewalls let it through.
pub(super) fn readiness_behind(link: IfIndex, facts: &Facts, outcome: &Outcome, open: bool) -> Response {
    let of_link = |entry: Option<Entry>| entry == Some(Entry::Routed { interface: link });
    let ready = of_rows(|| outcome.rows.iter().filter(|row| of_link(row.entry)));
    let Some((link, Response::Ready(true))) = facts.kernel.links.get(&link).map(|link| (link, &ready)) else { return ready };
    let name = isolated::name(&link.name);
    if let Some(problem) = outcome.inbound.problems.iter().find(|problem| problem.binding == name) {
        return Response::Refused(problem.error.to_string());
    }
    let published = link.isolated.iter().flat_map(|program| &program.inbound).map(|inbound| inbound.ports);
    let serves =
        |ports| outcome.inbound.all.iter().any(|service| service.binding == name && service.ports == ports && !service.servers.is_empty());
    Response::Ready(open && published.into_iter().all(serves))
}

fn of_rows<'a, I: Iterator<Item = &'a Row>>(rows: impl Fn() -> I) -> Response {
    if rows().any(|row| matches!(row.state, State::Bound(_) | State::FellBack(_))) {
        return Response::Ready(true);
    }
    // A family that it has no exit for is not what is wrong.
    let reasons = || rows().filter_map(|row| row.state.reason());
    let worst = reasons().find(|reason| !matches!(reason, Reason::NoExitInFamily(_))).or_else(|| reasons().next());
    worst.map_or(Response::Ready(false), |reason| Response::Refused(reason.to_string()))
}
