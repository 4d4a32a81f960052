//! The end of all that is ours: the plan whose outcome is that nothing is bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{cutter, ipvs};
use crate::effects;
use crate::effects::boot;
use crate::effects::conntrack;
use crate::effects::isolation;
use crate::effects::kernel::{Done, Failure, Kernel};
use crate::effects::nft;
use crate::effects::programs;
use crate::effects::route_back;
use crate::model::facts::{KernelFacts, LinkKind};
use crate::model::resolve::Outcome;
use crate::netlink;
use crate::plan::inbound::virtual_services;
use crate::plan::{Observed, Planner};

/// What was taken away.
#[derive(Debug)]
pub struct Withdrawn {
    pub done: Done,
    /// What was left alone, and why.
    pub left: Vec<String>,
    /// Flows that had an exit, and were ended.
    pub flows: usize,
}

/// Why nothing, or not all, was taken away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the tables that are to go")]
    Read(#[source] nft::ReadError),
    #[error("failed to remove the fast path: {0}")]
    FastPath(Failure),
    #[error("failed to delete the virtual services of IPVS")]
    Ipvs(#[source] effects::ipvs::Error),
    #[error("failed to remove the link to a program of `egressd exec --namespace`")]
    Link(#[source] netlink::Error),
    #[error("failed to remove the bound sources from the tables")]
    Disarm(#[source] nft::CommitError),
    #[error("failed to end the flows that had an exit")]
    Flows(#[source] conntrack::Error),
    #[error("failed to clear the record of what the next boot guards")]
    BootGuard(#[source] boot::Error),
}

/// Takes tables, rules, routes and link groups away, ends the flows that had an exit, and puts sysctls back. The next boot guards nothing. `state`
/// is the state directory.
///
/// # Errors
/// Steps that failed by themselves are in the result; an error means that what would have had to come first did not work.
pub fn withdraw(kernel: &mut Kernel, facts: &KernelFacts, state: &Path, boot_guard: Option<&Path>) -> Result<Withdrawn, Error> {
    kernel.remove_fast_path(facts).map_err(Error::FastPath)?;
    let observed = kernel.ruleset().map_err(Error::Read)?.clone();
    let observed = Observed { kernel: facts, ruleset: &observed, sysctls: &BTreeMap::new(), ahead: &[] };
    let plan = Planner::default().plan(&Outcome::default(), &observed, &BTreeSet::new(), true);
    let served = ipvs::withdraw(&virtual_services(observed.ruleset)).map_err(Error::Ipvs)?;
    // Without the tables what they send would leave by whatever NIC another program masquerades it on.
    for (link, _) in facts.isolated() {
        isolation::end(link.index).map_err(Error::Link)?;
    }
    // Other bridges may live by the forwarding that we turned on.
    let bridges = facts.links.values().any(|l| l.kind == LinkKind::Bridge);
    // While the rest of the tables is there, flows that had an exit leave by its NIC or not at all.
    kernel.disarm(&plan.disarm).map_err(Error::Disarm)?;
    // Without the tables they would go on by the host's NIC with the exit's address.
    let flows = cutter::cut_now(&plan.cuts, &plan.server_cuts).map_err(Error::Flows)?;
    let (mut done, mut left) = kernel.withdraw(plan, bridges);
    done.steps += served;
    left.extend(programs::clean());
    left.extend(route_back::withdraw(state));
    boot_guard.map_or(Ok(()), boot::remove).map_err(Error::BootGuard)?;
    Ok(Withdrawn { done, left, flows })
}
