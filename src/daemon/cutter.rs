//! Ends flows, and looks at which exits flows bear, beside the loop: conntrack's table may be long.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, info, warn};

use super::{Event, EventSender, threads};
use crate::effects::connections::Connections;
use crate::effects::conntrack::{Ended, Error, Flow, Flows};
use crate::effects::kernel::Failure;
use crate::facts::cause::with_causes;
use crate::plan::flows::{Cut, ends};
use crate::plan::inbound::ServerCut;
use crate::plan::resets::Resets;

/// A look takes the time of a walk through the whole of conntrack's hash, 10 ms where it is empty and has the size of a large machine's. Jobs
/// that come right after one wait this many times as long as it took, and then go together: a hundred starts at once are no hundred walks.
const REST: u32 = 4;
/// The longest that flows wait for their end because of that.
const REST_MOST: Duration = Duration::from_millis(100);

/// How long a daemon that is told to stop waits for flows to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What failures of it are known by.
pub(super) const STEP: &str = "ending the flows of old addresses";

/// Work for the thread.
pub(super) enum Job {
    Cut(Vec<Cut>, Vec<ServerCut>),
    /// End connections of programs, with their sockets. What is asked last holds.
    Reset(Resets),
    /// Tell the loop which addresses flows were translated to.
    Survey,
    /// Try again what failed.
    Again,
    /// Say when all jobs before this one are done.
    Tell(mpsc::Sender<()>),
}

/// What the loop is told of the thread's work.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What failed, and is kept for [`Job::Again`].
    pub failure: Option<Failure>,
    /// Sources whose flows have been ended, as far as the kernel let them.
    pub ended: Vec<IpNet>,
    /// Addresses that flows were translated to, if they were asked for.
    pub borne: Option<BTreeSet<IpAddr>>,
}

/// What a failure left to do.
#[derive(Default)]
struct Left {
    /// The table could not be read: the cuts, oldest first.
    cuts: Vec<Cut>,
    server_cuts: Vec<ServerCut>,
    resets: Option<Resets>,
    /// The kernel refused to delete them.
    flows: Vec<Flow>,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(tell: EventSender) -> mpsc::Sender<Job> {
    threads::start("cutter", move |jobs: &mpsc::Receiver<Job>| {
        let mut rested = Instant::now();
        let mut left = Left::default();
        let mut failed = false;
        while let Ok(first) = jobs.recv() {
            std::thread::sleep(rested.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            let mut survey = false;
            let mut asked = Vec::new();
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Cut(cuts, server_cuts) => {
                        left.cuts.extend(cuts);
                        left.server_cuts.extend(server_cuts);
                    }
                    Job::Reset(resets) => left.resets = Some(resets),
                    Job::Survey => survey = true,
                    Job::Again => {}
                    Job::Tell(done) => asked.push(done),
                }
            }
            let report = work_off(Flows::open(), &mut left, survey);
            let fails = report.failure.is_some();
            if fails || failed || report.borne.is_some() || !report.ended.is_empty() {
                let _ = tell.send(Event::Cut(report));
            }
            // Whoever asked may have given up.
            asked.into_iter().for_each(|done| _ = done.send(()));
            failed = fails;
            rested = Instant::now() + (began.elapsed() * REST).min(REST_MOST);
        }
    })
}

/// Waits until the jobs so far are done, for a second at most: nobody would end those flows later.
pub(super) fn finish(cutter: &mpsc::Sender<Job>) {
    let (done, told) = mpsc::channel();
    if cutter.send(Job::Tell(done)).is_ok() {
        let _ = told.recv_timeout(PATIENCE);
    }
}

/// Ends flows before anything else is done, and says how many.
///
/// # Errors
/// When not all of them could be ended.
pub(super) fn cut_now(cuts: &[Cut], server_cuts: &[ServerCut]) -> Result<usize, Error> {
    let left = Left { cuts: cuts.to_vec(), server_cuts: server_cuts.to_vec(), ..Left::default() };
    let (_, ended) = round(Flows::open(), &left, Vec::new()).map_err(|(error, _)| error)?;
    ended.error.map_or(Ok(ended.gone.len()), Err)
}

/// Carries out what is to do; what cannot be done stays in `left`.
fn work_off(flows: Result<Flows, Error>, left: &mut Left, survey: bool) -> Report {
    let fails = |error: &Error| Failure::of(STEP, error);
    let refused = std::mem::take(&mut left.flows);
    match round(flows, left, refused) {
        Ok((borne, ended)) => {
            let sources = left.cuts.drain(..).map(|cut| cut.source).collect();
            left.server_cuts.clear();
            left.resets = None;
            left.flows = ended.left;
            Report { failure: ended.error.as_ref().map(fails), ended: sources, borne: survey.then_some(borne) }
        }
        Err((error, refused)) => {
            left.flows = refused;
            Report { failure: Some(fails(&error)), ended: Vec::new(), borne: None }
        }
    }
}

/// One pass over the table: ends what is to end, `refused` among it, and returns the addresses that the others were translated to, and what
/// came of the deletions. On an error nothing was ended, and `refused` is given back.
fn round(flows: Result<Flows, Error>, left: &Left, refused: Vec<Flow>) -> Result<(BTreeSet<IpAddr>, Ended), (Error, Vec<Flow>)> {
    // There may be thousands of both: a flow is looked up by its source, and only subnets are gone through.
    let mut of: HashMap<IpNet, Vec<&Cut>> = HashMap::new();
    left.cuts.iter().for_each(|cut| of.entry(cut.source).or_default().push(cut));
    let mut of_server: HashMap<IpAddr, Vec<&ServerCut>> = HashMap::new();
    left.server_cuts.iter().for_each(|cut| of_server.entry(cut.server).or_default().push(cut));
    let is_subnet = |net: &IpNet| net.prefix_len() < net.max_prefix_len();
    let subnets: Vec<&Vec<&Cut>> = of.iter().filter(|(source, _)| is_subnet(source)).map(|(_, cuts)| cuts).collect();
    let mut sockets = left.resets.as_ref().and_then(|resets| Some((sockets()?, resets)));
    let mut borne = BTreeSet::new();
    let mut end = |flows: &mut Flows| {
        flows.end(|flow| {
            let (source, translated) = (IpNet::from(flow.source), flow.reply_destination);
            let mut asked = of.get(&source).into_iter().chain(subnets.iter().copied());
            let served = || of_server.get(&flow.reply_source).into_iter().flatten();
            let ends = asked.any(|cuts| ends(cuts, flow.source, flow.is_open_connection(), translated))
                || served().any(|cut| cut.hits(flow.destination, flow.protocol, flow.destination_port))
                || sockets.as_mut().is_some_and(|(sockets, resets)| sockets.end(flow, resets));
            if !ends && translated != flow.source {
                borne.insert(translated);
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
    // What was refused still bears its exit.
    borne.extend(ended.left.iter().map(|flow| flow.reply_destination));
    Ok((borne, ended))
}

/// The sockets of open connections, where the kernel tells of them.
fn sockets() -> Option<Connections> {
    let read = Connections::read().inspect_err(|error| {
        let error = with_causes(error);
        warn!(
            error,
            "failed to read open sockets (load the kernel's module tcp_diag): connections that a binding resets end with their next packet"
        );
    });
    read.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::Family;
    use crate::netlink::Channel;
    use crate::netlink::testing::alone;

    #[test]
    fn a_deletion_that_is_refused_is_kept_and_tried_again_and_its_exit_is_still_borne() {
        alone(|| {
            // An IPv6 tuple of IPv4 addresses is no tuple.
            let refused = Flow { family: Family::V6, ..Flow::sample() };
            let mut left = Left { flows: vec![refused], ..Left::default() };
            for _ in 0..2 {
                let report = work_off(Flows::open(), &mut left, true);
                assert!(report.failure.is_some_and(|failure| failure.error.contains("10.9.0.5")));
                assert!(report.borne.is_some_and(|borne| borne.contains(&refused.reply_destination)));
                assert_eq!(left.flows, [refused]);
            }
            // Gone by itself.
            left.flows = vec![Flow::sample()];
            assert!(work_off(Flows::open(), &mut left, false).failure.is_none());
            assert!(left.flows.is_empty());
        });
    }

    #[test]
    fn cuts_are_kept_while_the_table_cannot_be_read() {
        let cut = Cut::all("10.9.0.5/32".parse().unwrap());
        let mut left = Left { cuts: vec![cut.clone()], flows: vec![Flow::sample()], ..Left::default() };
        let report = work_off(Err(no_socket()), &mut left, true);
        assert!(report.failure.is_some() && report.ended.is_empty() && report.borne.is_none());
        assert_eq!((left.cuts, left.flows), (vec![cut], vec![Flow::sample()]));
    }

    fn no_socket() -> Error {
        // There is no such protocol.
        Error::Open(Channel::open(99).map(drop).unwrap_err())
    }
}
