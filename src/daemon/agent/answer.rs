//! What the loop answers: status, explanations, metrics, and whether all is well.

use tokio::sync::watch;

use super::Agent;
use crate::daemon::metrics::Now;
use crate::daemon::question::{Call, Question, Response};
use crate::daemon::sources;
use crate::daemon::started;
use crate::model::binding::{Binding, Source};
use crate::model::leaving::leaving;
use crate::plan::engine;
use crate::report::explain;
use crate::report::status::{Status, bindings};

/// Who is told of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Node,
    /// Not that its API server is away: when that is written it is over. What is wrong with ports of its bindings is told with these.
    Cluster,
}

impl Agent {
    /// A number that goes up whenever an answer may have changed.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.transitions.revisions()
    }

    pub(super) fn answer(&self, question: Question) -> Response {
        match question {
            Question::Status(counted) => {
                let since = |row: &_| self.transitions.since(row);
                let status = Status::of(&self.facts, &self.outcome, counted, self.problems(), since);
                Response::Status(Status { fast_path: self.fast_path.status(&self.kernel), ..status })
            }
            Question::Changes => Response::Changes(self.transitions.last()),
            Question::Explain { workload, destination, drops } => {
                let explained = explain::explain(&self.facts, &self.outcome, &drops, &workload, destination);
                explained.map_or(Response::Unknown(workload), Response::Text)
            }
            Question::ExplainInbound(Call { called, protocol, client }) => {
                Response::Text(explain::inbound::explain(&self.facts, &self.outcome, called, protocol, client))
            }
            Question::Metrics(counted) => Response::Text(self.metrics.text(&Now {
                facts: &self.facts,
                outcome: &self.outcome,
                sources: self.sources.up().collect(),
                counted,
                failing: self.failing.len() + self.beside.len(),
                problems: self.problems().len(),
            })),
            Question::Exec(started) => started::readiness(&started, &self.facts, &self.outcome),
            Question::Isolated(link) => started::readiness_behind(link, &self.facts, &self.outcome, self.gates.is_settled()),
            Question::Leave(_) if self.silent.any() => Response::Ready(false),
            Question::Leave(asked) => Response::Leaving(leaving(&asked, &self.facts, &self.outcome)),
            Question::Ready => {
                let well = self.failing.is_empty() && self.beside.is_empty() && self.sources.are_fresh();
                Response::Ready(!self.silent.any() && !self.outcome.inbound.pending && well)
            }
        }
    }

    /// What is wrong with bindings, and what else could not be read or done.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> + '_ {
        let of = |binding: &Binding| binding.errors.iter().map(|error| format!("{}: {error}", binding.name)).collect::<Vec<_>>();
        bindings(&self.facts).flat_map(of).chain(self.problems())
    }

    /// What could not be read or done, each with its cure.
    pub(super) fn problems(&self) -> Vec<String> {
        self.problems_for(Audience::Node)
    }

    /// The problems that this audience is shown.
    pub(super) fn problems_for(&self, audience: Audience) -> Vec<String> {
        let in_cluster = audience == Audience::Cluster;
        let mut problems: Vec<String> = self.facts.manifests.errors.iter().map(|e| format!("{}: {}", e.object, e.error)).collect();
        problems.extend(self.sources.problems(in_cluster.then_some(sources::KUBERNETES)));
        problems.extend(self.facts.cluster.troubles.values().cloned());
        problems.extend(self.outcome.uplinks.problems.iter().cloned());
        let ports = self.outcome.inbound.problems.iter().filter(|problem| !in_cluster || problem.binding.source != Source::Api);
        problems.extend(ports.map(ToString::to_string));
        problems.extend(self.facts.listeners.iter().filter_map(|listeners| listeners.problem.clone()));
        let unread = self.facts.engine_problems.iter().chain(&self.facts.runtime_problems);
        problems.extend(unread.map(|(object, problem)| format!("{object}: {problem}")));
        problems.extend(engine::problems(&self.facts));
        problems.extend(self.failing.problems());
        problems.extend(self.beside.problems());
        problems.extend(self.calls.problems());
        problems.extend(self.nat.problems().iter().cloned());
        problems.extend(self.gates.problems().iter().cloned());
        problems.extend(self.ipvs.problems());
        problems.extend(self.addresses.problems());
        problems.extend(self.gateways.problems(&self.facts.kernel));
        problems.extend(self.unserved.iter().map(|(_, problem)| problem.clone()));
        problems
    }
}
