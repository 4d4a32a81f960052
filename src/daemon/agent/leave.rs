//! How an agent ends: for a while, or for good.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::info;

use super::Agent;
use crate::daemon::{Error, Event, cutter, withdraw};
use crate::model::resolve::Outcome;
use crate::report::node;

/// How long an agent that is told to stop listens for the end of its DaemonSet.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Agent {
    /// Ends what was begun: after a stop nobody would.
    pub fn finish(&self) {
        cutter::finish(&self.cutter);
    }

    /// Whether the agent goes for good. What makes it go is told by two ways, and may come later than the order to stop.
    pub async fn is_dismissed(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> bool {
        let deadline = Instant::now() + LAST_WORDS;
        let enough = |agent: &Self| agent.facts.cluster.daemonset.is_none() || agent.facts.cluster.dismissed();
        self.handle_until(deadline, events, enough).await;
        self.facts.cluster.dismissed()
    }

    /// Takes everything of ours out of the kernel.
    pub fn withdraw(&mut self, state: &Path, boot_guard: Option<&Path>) -> Result<(), Error> {
        info!("this node needs no agent any more; removing everything of egressd from the kernel");
        // It would make the file anew.
        if let Some(keeper) = self.boot_guard.take() {
            keeper.end();
        }
        let withdrawn = withdraw::withdraw(&mut self.kernel, &self.facts.kernel, state, boot_guard)?;
        info!(changes = withdrawn.done.steps, flows = withdrawn.flows, failures = ?withdrawn.done.failures, left = ?withdrawn.left, "withdrawn");
        Ok(())
    }

    /// Tells the cluster that nothing is bound here any more.
    pub async fn take_leave(&mut self) {
        if let Some(reporter) = self.reporter.take() {
            reporter.last(&self.facts.cluster.node, node::spec(&self.facts, &Outcome::default(), [])).await;
        }
    }
}
