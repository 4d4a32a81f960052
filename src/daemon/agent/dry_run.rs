//! `egressd run --dry-run`: the plan, printed instead of carried out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::Agent;
use crate::daemon::{Error, Event};
use crate::model::outcome::Outcome;
use crate::plan::engine;
use crate::report::status;

/// How long it waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

impl Agent {
    /// Prints the plan once every source has spoken.
    pub async fn dry_run(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        self.handle_until(deadline, events, |agent| !agent.silent.any()).await;
        if self.silent.engine {
            warn!("the engine does not answer: the plan lacks its containers, and removes nothing");
        }
        if self.silent.runtime || self.silent.cluster {
            warn!("the container runtime or the API server does not answer: the plan lacks its pods, and removes nothing");
        }
        // A port that nobody served before is planned once it is known who listens there.
        let mut plan = self.plan(None);
        self.inbound.ask_ports(&self.outcome.inbound);
        self.ipvs.ask_first(&self.outcome, &mut self.kernel, &mut self.facts.ipvs);
        if self.outcome.inbound.pending {
            let known =
                |agent: &Self| agent.facts.listeners.as_ref().is_none_or(|listeners| listeners.asked == agent.outcome.inbound.asked);
            self.handle_until(deadline, events, known).await;
            plan = self.plan(None);
        }
        let mut lines: Vec<String> = match plan {
            Ok(plan) if plan.is_empty() => Vec::new(),
            Ok(plan) => plan.words(&self.facts.kernel).lines().map(str::to_owned).collect(),
            Err(failure) => {
                warn!("{failure}");
                Vec::new()
            }
        };
        lines.extend(self.ipvs.planned(&self.outcome, &mut self.kernel).iter().map(ToString::to_string));
        lines.extend(engine::steps(&self.facts).iter().map(|step| format!("{}: {step:?}", step.object())));
        let changes = lines.len();
        lines.extend(self.faults().map(|fault| format!("# {fault}")));
        lines.push(if changes == 0 { "nothing to change".to_owned() } else { summary(changes, &self.outcome) });
        lines.iter().for_each(|line| println!("{line}"));
        Ok(())
    }
}

/// The last line: how much would change, and what would become of the workloads that ask for an exit.
fn summary(changes: usize, outcome: &Outcome) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for row in outcome.all_rows().filter(|row| row.binding.is_some()) {
        *states.entry(status::word(row)).or_default() += 1;
    }
    let states: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let of = if states.is_empty() {
        "no workload asks for an exit".to_owned()
    } else {
        format!("addresses of workloads: {}", states.join(", "))
    };
    format!("# {changes} lines of changes, none of them made; {of}")
}
