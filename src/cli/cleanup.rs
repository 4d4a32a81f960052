//! `egressd cleanup`: the plan whose outcome is that nothing is bound.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

use crate::daemon::hold;
use crate::effects::boot;
use crate::effects::conntrack::Flows;
use crate::effects::kernel::Kernel;
use crate::facts::kernel::Source;
use crate::model::facts::{KernelFacts, LinkKind};
use crate::model::resolve::Outcome;
use crate::plan::flows::is_bound;
use crate::plan::{Observed, Plan};

/// Takes tables, rules, routes and link groups away, ends the flows that had an exit, and puts sysctls back. The next boot guards nothing.
pub async fn cleanup(state: &Path, sysctls: &Path, boot_guard: Option<&Path>) -> anyhow::Result<()> {
    let _held = hold(state)?;
    let mut facts = KernelFacts::default();
    for change in Source::open()?.next().await? {
        facts.apply(change);
    }
    let mut kernel = Kernel::open(state, sysctls)?;
    let observed = kernel.ruleset().context("failed to read the tables that are to go")?.clone();
    let observed = Observed { kernel: &facts, ruleset: &observed, sysctls: &BTreeMap::new() };
    let plan = Plan::make(&Outcome::default(), &observed, true);
    // Other bridges may live by the forwarding that we turned on.
    let bridges = facts.links.values().any(|l| l.kind == LinkKind::Bridge);
    // While the rest of the tables is there, flows that had an exit leave by its NIC or not at all.
    kernel.disarm(&plan.disarm).context("failed to take the claims out of the tables")?;
    let flows = Flows::open()?.end(|flow| is_bound(flow.mark))?.len();
    let (done, left) = kernel.withdraw(plan, bridges);
    boot_guard.map_or(Ok(()), boot::remove)?;
    println!("{} changes taken back, {flows} flows ended", done.steps);
    for line in left {
        println!("left as it is: {line}");
    }
    if done.failures.is_empty() {
        return Ok(());
    }
    bail!("some could not be taken back: {}", done.failures.join("; "))
}
