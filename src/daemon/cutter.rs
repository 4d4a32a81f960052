//! Ends flows, and looks at what marks flows carry, beside the loop: conntrack's table may be long.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;

use tracing::{debug, info, warn};

use super::{Teller, Told};
use crate::contract::{FLAG, FLOW_MASK};
use crate::effects::conntrack::{Error, Flow, Flows};
use crate::model::facts::Family;
use crate::plan::flows::{Cut, is_bound};

/// Work for the thread.
pub(super) enum Job {
    Cut(Vec<Cut>),
    /// End flows that have an exit and whose source nobody is (after a restart).
    Orphans(BTreeSet<ipnet::IpNet>),
    /// Tell the loop which of our marks flows carry.
    Survey,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(tell: Teller) -> mpsc::Sender<Job> {
    let (send, jobs) = mpsc::channel::<Job>();
    let work = move || {
        while let Ok(first) = jobs.recv() {
            let mut cuts = Vec::new();
            let mut sources = None;
            let mut survey = false;
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Cut(more) => cuts.extend(more),
                    Job::Orphans(known) => sources = Some(known),
                    Job::Survey => survey = true,
                }
            }
            match round(&cuts, sources.as_ref()) {
                Ok(carried) if survey => drop(tell.send(Told::Carried(carried))),
                Ok(_) => {}
                Err(error) => warn!(%error, "failed to look at conntrack; flows of old addresses may go on"),
            }
        }
    };
    // Without the thread flows would not be ended: better to say so than to go on.
    std::thread::Builder::new().name("cutter".to_owned()).spawn(work).expect("a thread can be started");
    send
}

/// Ends flows before anything else is done.
pub(super) fn cut_now(cuts: &[Cut]) {
    if let Err(error) = round(cuts, None) {
        warn!(%error, "failed to look at conntrack; flows of old addresses may go on");
    }
}

/// One pass over the table: ends what is to end, and returns the marks of what stays.
fn round(cuts: &[Cut], sources: Option<&BTreeSet<ipnet::IpNet>>) -> Result<BTreeSet<u32>, Error> {
    let mut flows = Flows::open()?;
    let mut ends: Vec<Flow> = Vec::new();
    let mut carried = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        flows.for_each(family, |flow| {
            let orphan = sources.is_some_and(|known| is_bound(flow.mark) && !known.iter().any(|net| net.contains(&flow.source)));
            if orphan || cuts.iter().any(|cut| cut.hits(flow.source, flow.protocol, flow.mark)) {
                ends.push(flow);
            } else if flow.mark & FLAG != 0 {
                carried.insert(flow.mark & FLOW_MASK);
            }
        })?;
    }
    for flow in &ends {
        debug!(source = %flow.source, destination = %flow.destination, protocol = flow.protocol, "end flow");
        flows.delete(flow)?;
    }
    if !ends.is_empty() {
        info!(flows = ends.len(), "ended flows of old addresses");
    }
    Ok(carried)
}

/// Open flows by original source, for status.
pub(super) fn count() -> BTreeMap<IpAddr, u64> {
    let mut counts = BTreeMap::new();
    let counted = Flows::open().and_then(|mut flows| {
        for family in [Family::V4, Family::V6] {
            flows.for_each(family, |flow| *counts.entry(flow.source).or_default() += 1)?;
        }
        Ok(())
    });
    if let Err(error) = counted {
        debug!(%error, "failed to count flows");
    }
    counts
}
