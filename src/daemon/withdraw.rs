//! The end of all that is ours: the plan whose outcome is that nothing is bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ipvs;
use crate::effects;
use crate::effects::boot;
use crate::effects::conntrack::{self, Flow, Flows};
use crate::effects::isolation;
use crate::effects::kernel::{Done, Failure, Kernel};
use crate::effects::nft;
use crate::effects::programs;
use crate::effects::route_back;
use crate::model::facts::{KernelFacts, LinkKind};
use crate::model::resolve::Outcome;
use crate::netlink;
use crate::plan::flows::ends;
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
    #[error("failed to take the fast path away: {0}")]
    FastPath(Failure),
    #[error("failed to delete the virtual services of IPVS")]
    Ipvs(#[source] effects::ipvs::Error),
    #[error("failed to take away the link to a program of `egressd exec --namespace`")]
    Link(#[source] netlink::Error),
    #[error("failed to take the bound sources out of the tables")]
    Disarm(#[source] nft::CommitError),
    #[error("failed to end the flows that had an exit")]
    Flows(#[source] conntrack::Error),
    #[error("failed to forget what the next boot is to guard")]
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
    let cuts: Vec<_> = plan.cuts.iter().collect();
    let is_served = |flow: &Flow| {
        let mut cuts = plan.server_cuts.iter().filter(|cut| cut.server == flow.reply_source);
        cuts.any(|cut| cut.hits(flow.destination, flow.protocol, flow.destination_port))
    };
    let has_exit = |flow: &Flow| ends(&cuts, flow.source, flow.is_open_connection(), flow.reply_destination) || is_served(flow);
    let ended = Flows::open().and_then(|mut flows| flows.end(has_exit)).map_err(Error::Flows)?;
    // Without the tables they would go on by the host's NIC with the exit's address.
    ended.error.map_or(Ok(()), Err).map_err(Error::Flows)?;
    let flows = ended.gone.len();
    let (mut done, mut left) = kernel.withdraw(plan, bridges);
    done.steps += served;
    left.extend(programs::clean());
    left.extend(route_back::withdraw(state));
    boot_guard.map_or(Ok(()), boot::remove).map_err(Error::BootGuard)?;
    Ok(Withdrawn { done, left, flows })
}
