//! Ends flows, and looks at what marks flows carry, beside the loop: conntrack's table may be long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, info};

use super::{Teller, Told};
use crate::contract::{FLAG, FLOW_MASK};
use crate::effects::conntrack::{Ended, Error, Flow, Flows};
use crate::effects::kernel::Failure;
use crate::plan::flows::{Cut, ends, is_bound};

/// A look takes the time of a walk through the whole of conntrack's hash, 10 ms where it is empty and has the size of a large machine's. Jobs
/// that come right after one wait this many times as long as it took, and then go together: a hundred starts at once are no hundred walks.
const REST: u32 = 4;
/// The longest that flows wait for their end because of that.
const REST_MOST: Duration = Duration::from_millis(100);

/// What failures of it are known by.
pub(super) const STEP: &str = "ending the flows of old addresses";

/// Work for the thread.
pub(super) enum Job {
    Cut(Vec<Cut>),
    /// End flows that have an exit and whose source nobody is (after a restart).
    Orphans(BTreeSet<IpNet>),
    /// Tell the loop which of our marks flows carry.
    Survey,
    /// Try again what failed.
    Again,
}

/// What the loop is told of the thread's work.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What failed, and is kept for [`Job::Again`].
    pub failure: Option<Failure>,
    /// Orphans were not looked for. The sources that are known now are asked for again: those of then would end newer flows.
    pub orphans_missed: bool,
    /// Marks that flows carry, if they were asked for.
    pub carried: Option<BTreeSet<u32>>,
}

/// What a failure left to do.
#[derive(Default)]
struct Left {
    /// The table could not be read: the cuts, oldest first.
    cuts: Vec<Cut>,
    /// The kernel refused to delete them.
    flows: Vec<Flow>,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(tell: Teller) -> mpsc::Sender<Job> {
    let (send, jobs) = mpsc::channel::<Job>();
    let work = move || {
        let mut rested = Instant::now();
        let mut left = Left::default();
        let mut failed = false;
        while let Ok(first) = jobs.recv() {
            std::thread::sleep(rested.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            let mut sources = None;
            let mut survey = false;
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Cut(more) => left.cuts.extend(more),
                    Job::Orphans(known) => sources = Some(known),
                    Job::Survey => survey = true,
                    Job::Again => {}
                }
            }
            let report = work_off(Flows::open(), &mut left, sources.as_ref(), survey);
            let fails = report.failure.is_some();
            if fails || failed || report.carried.is_some() {
                let _ = tell.send(Told::Cut(report));
            }
            failed = fails;
            rested = Instant::now() + (began.elapsed() * REST).min(REST_MOST);
        }
    };
    // Without the thread flows would not be ended: better to say so than to go on.
    std::thread::Builder::new().name("cutter".to_owned()).spawn(work).expect("a thread can be started");
    send
}

/// Ends flows before anything else is done.
///
/// # Errors
/// When not all of them could be ended.
pub(super) fn cut_now(cuts: &[Cut]) -> Result<(), Failure> {
    let mut left = Left { cuts: cuts.to_vec(), flows: Vec::new() };
    work_off(Flows::open(), &mut left, None, false).failure.map_or(Ok(()), Err)
}

/// Carries out what is to do; what cannot be done stays in `left`.
fn work_off(flows: Result<Flows, Error>, left: &mut Left, sources: Option<&BTreeSet<IpNet>>, survey: bool) -> Report {
    let fails = |error: &Error| Failure::of(STEP, error);
    let refused = std::mem::take(&mut left.flows);
    match round(flows, &left.cuts, refused, sources) {
        Ok((carried, ended)) => {
            left.cuts.clear();
            left.flows = ended.left;
            Report { failure: ended.error.as_ref().map(fails), orphans_missed: false, carried: survey.then_some(carried) }
        }
        Err((error, refused)) => {
            left.flows = refused;
            Report { failure: Some(fails(&error)), orphans_missed: sources.is_some(), carried: None }
        }
    }
}

/// One pass over the table: ends what is to end, `refused` among it, and returns the marks of what stays, and what came of the deletions. On an
/// error nothing was ended, and `refused` is given back.
fn round(
    flows: Result<Flows, Error>,
    cuts: &[Cut],
    refused: Vec<Flow>,
    sources: Option<&BTreeSet<IpNet>>,
) -> Result<(BTreeSet<u32>, Ended), (Error, Vec<Flow>)> {
    // There may be thousands of each, and of flows: a flow is looked up by its source, and only subnets are gone through.
    let mut of: HashMap<IpNet, Vec<&Cut>> = HashMap::new();
    cuts.iter().for_each(|cut| of.entry(cut.source).or_default().push(cut));
    let subnets: Vec<&Vec<&Cut>> = of.iter().filter(|(source, _)| is_subnet(source)).map(|(_, cuts)| cuts).collect();
    let known_subnets: Vec<&IpNet> = sources.into_iter().flatten().filter(|net| is_subnet(net)).collect();
    let mut carried = BTreeSet::new();
    let mut end = |flows: &mut Flows| {
        flows.end(|flow| {
            let source = IpNet::from(flow.source);
            let known = |known: &BTreeSet<IpNet>| known.contains(&source) || known_subnets.iter().any(|net| net.contains(&flow.source));
            let orphan = sources.is_some_and(|sources| is_bound(flow.mark) && !known(sources));
            let mut asked = of.get(&source).into_iter().chain(subnets.iter().copied());
            let ends = orphan || asked.any(|cuts| ends(cuts, flow.source, flow.protocol, flow.mark));
            if !ends && flow.mark & FLAG != 0 {
                carried.insert(flow.mark & FLOW_MASK);
            }
            ends
        })
    };
    let (mut flows, mut ended) = match flows.and_then(|mut flows| end(&mut flows).map(|ended| (flows, ended))) {
        Ok(done) => done,
        Err(error) => return Err((error, refused)),
    };
    let again = flows.delete_all(refused);
    ended.gone.extend(again.gone);
    ended.left.extend(again.left);
    ended.error = ended.error.or(again.error);
    for flow in &ended.gone {
        debug!(source = %flow.source, destination = %flow.destination, protocol = flow.protocol, "ended flow");
    }
    if !ended.gone.is_empty() {
        info!(flows = ended.gone.len(), "ended flows of old addresses");
    }
    // What was refused still carries its mark, whose number nobody else may get.
    carried.extend(ended.left.iter().filter(|flow| flow.mark & FLAG != 0).map(|flow| flow.mark & FLOW_MASK));
    Ok((carried, ended))
}

fn is_subnet(net: &IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::Family;
    use crate::netlink::Channel;
    use crate::netlink::testing::alone;

    fn flow() -> Flow {
        Flow {
            family: Family::V4,
            protocol: 17,
            source: [10, 9, 0, 5].into(),
            destination: [198, 51, 100, 1].into(),
            source_port: 5001,
            destination_port: 53,
            reply_destination: [172, 31, 0, 8].into(),
            mark: FLAG | 1 | 1 << 24,
            status: 0,
            id: 7,
            timeout: 30,
            zone: 0,
        }
    }

    #[test]
    fn a_deletion_that_is_refused_is_kept_and_tried_again_and_its_number_is_not_free() {
        alone(|| {
            // An IPv6 tuple of IPv4 addresses is no tuple.
            let refused = Flow { family: Family::V6, ..flow() };
            let mut left = Left { cuts: Vec::new(), flows: vec![refused] };
            for _ in 0..2 {
                let report = work_off(Flows::open(), &mut left, None, true);
                assert!(report.failure.is_some_and(|failure| failure.error.contains("10.9.0.5")));
                assert!(report.carried.is_some_and(|carried| carried.contains(&refused.mark)));
                assert_eq!(left.flows, [refused]);
            }
            // Gone by itself.
            left.flows = vec![flow()];
            assert!(work_off(Flows::open(), &mut left, None, false).failure.is_none());
            assert!(left.flows.is_empty());
        });
    }

    #[test]
    fn cuts_are_kept_while_the_table_cannot_be_read() {
        let cut = Cut { source: "10.9.0.5/32".parse().unwrap(), keep: None, only_bound: false, only_datagrams: false };
        let mut left = Left { cuts: vec![cut], flows: vec![flow()] };
        let report = work_off(Err(no_socket()), &mut left, Some(&BTreeSet::new()), true);
        assert!(report.failure.is_some() && report.orphans_missed && report.carried.is_none());
        assert_eq!((left.cuts, left.flows), (vec![cut], vec![flow()]));
    }

    fn no_socket() -> Error {
        // There is no such protocol.
        Error::Open(Channel::open(99).map(drop).unwrap_err())
    }
}
