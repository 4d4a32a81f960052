//! What the loop answers: status, explanations, metrics, and whether all is well.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Agent;
use crate::daemon::control::{Question, Response};
use crate::plan::engine;
use crate::report::explain::explain;
use crate::report::status::Status;

impl Agent {
    pub(super) fn answer(&self, question: Question) -> Response {
        match question {
            Question::Status(flows) => Response::Status(self.status(&flows)),
            Question::Explain { workload, destination } => match explain(&self.facts, &self.outcome, &workload, destination) {
                Some(text) => Response::Text(text),
                None => Response::Unknown(workload),
            },
            Question::Metrics => Response::Text(self.metrics.text(&self.outcome)),
            Question::Ready => Response::Ready(!self.silent.any() && self.failing.is_empty() && self.beside.is_empty()),
        }
    }

    fn status(&self, flows: &BTreeMap<IpAddr, u64>) -> Status {
        Status::of(&self.facts, &self.outcome, flows, self.problems())
    }

    /// What could not be read or done, each with its cure.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.facts.manifests.errors.iter().map(|e| format!("{}: {}", e.object, e.error)).collect();
        if self.silent.engine {
            problems.push("the engine has not answered yet: nothing is taken away until it has (see --docker-socket)".to_owned());
        }
        if self.silent.runtime {
            problems.push(
                "the container runtime has not answered yet: nothing is taken away until it has (see --containerd-socket)".to_owned(),
            );
        }
        if self.silent.cluster {
            problems.push("the API server has not told all yet: nothing is taken away until it has".to_owned());
        }
        problems.extend(self.facts.cluster.troubles.values().cloned());
        problems.extend(self.outcome.uplinks.problems.iter().cloned());
        problems.extend(engine::problems(&self.facts));
        problems.extend(self.failing.problems());
        problems.extend(self.beside.problems());
        problems.extend(self.calls.problems());
        problems.extend(self.nat.problems().iter().cloned());
        problems.extend(self.no_metrics.clone());
        problems
    }
}
