//! `egressd cleanup`: takes everything of egressd out of the kernel.

use std::path::Path;

use anyhow::bail;

use crate::daemon::{hold, withdraw};
use crate::effects::kernel::Kernel;
use crate::facts::kernel::Source;
use crate::model::facts::KernelFacts;

/// Withdraws all, and says what was done and what was left. No daemon may run.
pub async fn cleanup(state: &Path, sysctls: &Path, boot_guard: Option<&Path>) -> anyhow::Result<()> {
    let _held = hold(state)?;
    let mut facts = KernelFacts::default();
    for change in Source::open()?.next().await? {
        facts.apply(change);
    }
    let withdrawn = withdraw::withdraw(&mut Kernel::open(state, sysctls)?, &facts, state, boot_guard)?;
    println!("{} changes undone, {} flows ended", withdrawn.done.steps, withdrawn.flows);
    for line in withdrawn.left {
        println!("left as it is: {line}");
    }
    for link in facts.links.values().filter(|link| link.isolated.is_some()) {
        println!("link {} is gone: the program of `egressd exec --namespace` behind it has no network any more; start it again", link.name);
    }
    if withdrawn.done.failures.is_empty() {
        return Ok(());
    }
    bail!("some could not be undone: {}", withdrawn.done.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}
