//! Ends flows, and looks at which exits flows bear, beside the loop: conntrack's table may be long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, info, warn};

use super::{Teller, Told};
use crate::effects::conntrack::{Error, Flows};
use crate::plan::flows::{Cut, ends};

/// A look takes the time of a walk through the whole of conntrack's hash, 10 ms where it is empty and has the size of a large machine's. Jobs
/// that come right after one wait this many times as long as it took, and then go together: a hundred starts at once are no hundred walks.
const REST: u32 = 4;
/// The longest that flows wait for their end because of that.
const REST_MOST: Duration = Duration::from_millis(100);

/// Work for the thread.
pub(super) enum Job {
    Cut(Vec<Cut>),
    /// Tell the loop which addresses flows were translated to.
    Survey,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(tell: Teller) -> mpsc::Sender<Job> {
    let (send, jobs) = mpsc::channel::<Job>();
    let work = move || {
        let mut rested = Instant::now();
        while let Ok(first) = jobs.recv() {
            std::thread::sleep(rested.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            let mut cuts = Vec::new();
            let mut survey = false;
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Cut(more) => cuts.extend(more),
                    Job::Survey => survey = true,
                }
            }
            match round(&cuts) {
                Ok(borne) => {
                    if survey {
                        let _ = tell.send(Told::Borne(borne));
                    }
                    if !cuts.is_empty() {
                        let _ = tell.send(Told::Ended(cuts.iter().map(|cut| cut.source).collect()));
                    }
                }
                Err(error) => warn!(%error, "failed to look at conntrack; flows of old addresses may go on"),
            }
            rested = Instant::now() + (began.elapsed() * REST).min(REST_MOST);
        }
    };
    // Without the thread flows would not be ended: better to say so than to go on.
    std::thread::Builder::new().name("cutter".to_owned()).spawn(work).expect("a thread can be started");
    send
}

/// Ends flows before anything else is done.
pub(super) fn cut_now(cuts: &[Cut]) {
    if let Err(error) = round(cuts) {
        warn!(%error, "failed to look at conntrack; flows of old addresses may go on");
    }
}

/// One pass over the table: ends what is to end, and returns the addresses that the others were translated to.
fn round(cuts: &[Cut]) -> Result<BTreeSet<IpAddr>, Error> {
    // There may be thousands of both: a flow is looked up by its source, and only subnets are gone through.
    let mut of: HashMap<IpNet, Vec<&Cut>> = HashMap::new();
    cuts.iter().for_each(|cut| of.entry(cut.source).or_default().push(cut));
    let is_subnet = |net: &IpNet| net.prefix_len() < net.max_prefix_len();
    let subnets: Vec<&Vec<&Cut>> = of.iter().filter(|(source, _)| is_subnet(source)).map(|(_, cuts)| cuts).collect();
    let mut borne = BTreeSet::new();
    let ended = Flows::open()?.end(|flow| {
        let (source, translated) = (IpNet::from(flow.source), flow.reply_destination);
        let mut asked = of.get(&source).into_iter().chain(subnets.iter().copied());
        let ends = asked.any(|cuts| ends(cuts, flow.source, flow.protocol, translated));
        if !ends && translated != flow.source {
            borne.insert(translated);
        }
        ends
    })?;
    for flow in &ended {
        debug!(source = %flow.source, destination = %flow.destination, protocol = flow.protocol, "ended flow");
    }
    if !ended.is_empty() {
        info!(flows = ended.len(), "ended flows of old addresses");
    }
    Ok(borne)
}

/// Open flows by original source, for status.
pub(super) fn count() -> BTreeMap<IpAddr, u64> {
    let mut counts = BTreeMap::new();
    let counted = Flows::open().and_then(|mut flows| flows.for_each(|flow| *counts.entry(flow.source).or_default() += 1));
    if let Err(error) = counted {
        debug!(%error, "failed to count flows");
    }
    counts
}
