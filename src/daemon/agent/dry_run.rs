//! `egressd run --dry-run`: the plan, printed instead of carried out.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::Agent;
use crate::daemon::{Error, Told};
use crate::plan::engine;

/// How long it waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

impl Agent {
    /// Prints the plan once every source has spoken.
    pub async fn dry_run(&mut self, told: &mut mpsc::UnboundedReceiver<Told>) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        self.hear_until(deadline, told, |agent| !agent.silent.any()).await;
        if self.silent.engine {
            warn!("the engine does not answer: the plan is without its containers, and takes nothing away");
        }
        if self.silent.runtime || self.silent.cluster {
            warn!("the container runtime or the API server does not answer: the plan is without its pods, and takes nothing away");
        }
        // A port that nobody served before is planned once it is known who listens there.
        let mut plan = self.plan(None);
        self.inbound.ask_ports(&self.outcome.inbound);
        self.ipvs.ask_first(&self.outcome, &mut self.kernel, &mut self.facts.ipvs);
        if self.outcome.inbound.pending {
            let known =
                |agent: &Self| agent.facts.listeners.as_ref().is_none_or(|listeners| listeners.asked == agent.outcome.inbound.asked);
            self.hear_until(deadline, told, known).await;
            plan = self.plan(None);
        }
        match plan {
            Ok(plan) => print!("{}", plan.words(&self.facts.kernel)),
            Err(failure) => warn!("{failure}"),
        }
        self.ipvs.planned(&self.outcome, &mut self.kernel).iter().for_each(|step| println!("{step}"));
        for step in engine::steps(&self.facts) {
            println!("{}: {step:?}", step.object());
        }
        Ok(())
    }
}
