//! One round for one pool: read, plan, carry out call by call, and remember what was answered.
//!
//! What was answered counts until a later reading must show it; so a reading that lags behind makes no call twice. A call that would do
//! something else when it is made twice waits, after a start and after each call that got no answer, until such a reading is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use egressd::facts::backoff::Backoff;
use egressd::model::cloud::CloudPool;
use tracing::{info, warn};

use crate::model::answers::supposed;
use crate::model::call::{Answer, Call, Plan, Planned};
use crate::model::facts::Facts;
use crate::model::outcome::{self, Failed};
use crate::model::plan::plan;
use crate::model::release::Kept;
use crate::model::report::PoolReport;
use crate::provider::{Error, Provider};
use crate::stop::Stop;

/// After a call that failed, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(300)];
/// Calls of one round. A plan needs a few for each address.
const MAX_CALLS: usize = 2000;

/// What was answered and may not be shown yet.
#[derive(Debug)]
pub struct Memory {
    /// So much later all readings show what was answered.
    window: Duration,
    answers: Vec<(Instant, Call, Answer)>,
    /// Until then something may have been done that nobody was told of.
    settled: Instant,
}

impl Memory {
    /// Of a process that starts: one before it may have been killed in the midst of a call.
    pub fn new(window: Duration) -> Self {
        Self { window, answers: Vec::new(), settled: Instant::now() + window }
    }

    /// What is known after a reading that began at `read`.
    fn apply(&mut self, facts: &mut Facts, read: Instant) {
        let window = self.window;
        self.answers.retain(|(at, ..)| *at + window > read);
        self.answers.iter().for_each(|(_, call, answer)| facts.learn(call, answer));
    }

    fn note(&mut self, call: &Call, answer: &Answer) {
        self.answers.push((Instant::now(), call.clone(), answer.clone()));
    }

    /// A call got no answer.
    fn unsettle(&mut self) {
        self.settled = Instant::now() + self.window;
    }

    /// When a reading shows all that was done.
    fn shown(&self) -> Option<Instant> {
        self.answers.last().map(|(at, ..)| *at + self.window)
    }
}

/// Calls of a pool that failed, until they succeed or are not due any more.
#[derive(Debug, Default)]
pub struct Failures {
    calls: BTreeMap<Call, Failure>,
    /// One call for all addresses was refused: until they are assigned each has its own.
    one_by_one: bool,
}

#[derive(Debug)]
struct Failure {
    failed: Failed,
    again: Instant,
    backoff: Backoff,
}

impl Failures {
    fn may(&self, call: &Call, now: Instant) -> bool {
        self.calls.get(call).is_none_or(|failure| failure.again <= now)
    }

    fn note(&mut self, planned: &Planned, error: &Error, now: Instant) {
        self.one_by_one |= matches!(&planned.call, Call::Assign { addresses, .. } if addresses.len() > 1) && error.may_be_about_one();
        let failed = Failed { planned: planned.clone(), reason: error.reason(), message: error.to_string() };
        match self.calls.get_mut(&planned.call) {
            Some(failure) => {
                failure.failed = failed;
                failure.again = now + failure.backoff.wait();
            }
            None => {
                let mut backoff = Backoff::new(RETRY[0], RETRY[1]);
                self.calls.insert(planned.call.clone(), Failure { failed, again: now + backoff.wait(), backoff });
            }
        }
    }

    fn retain(&mut self, plan: &Plan) {
        self.one_by_one &= plan.calls.iter().any(|planned| matches!(planned.call, Call::Assign { .. }));
        self.calls.retain(|call, _| plan.calls.iter().any(|planned| planned.call == *call));
    }

    /// The plan by the calls that may succeed.
    fn order(&self, mut plan: Plan) -> Plan {
        if self.one_by_one {
            plan.assign_one_by_one();
        }
        plan
    }

    fn list(&self) -> Vec<Failed> {
        self.calls.values().map(|failure| failure.failed.clone()).collect()
    }

    /// When the first of the calls that are possible may be made again.
    fn due(&self, possible: impl Fn(&Call) -> bool) -> Option<Instant> {
        self.calls.iter().filter(|(call, _)| possible(call)).map(|(_, failure)| failure.again).min()
    }
}

/// What a round came to.
#[derive(Debug)]
pub struct Round {
    pub report: PoolReport,
    /// When there is something to do or to see again; `None`: not before the pool or the cloud changes.
    pub due: Option<Instant>,
    /// Nothing is left to do but calls that failed.
    pub over: bool,
}

/// Reads, and carries out what is due. `kept`: what is still asked for. Told to stop it begins no more calls.
///
/// # Errors
/// When the cloud could not be read: nothing is known then, and nothing done.
pub async fn round<P: Provider>(
    provider: &mut P,
    pool: &CloudPool,
    kept: &Kept,
    memory: &mut Memory,
    failures: &mut Failures,
    stop: &Stop,
) -> Result<Round, Error> {
    let read = Instant::now();
    let shown = stop.or(provider.read(pool)).await?;
    let mut known = shown.clone();
    memory.apply(&mut known, read);
    let settled = memory.settled <= read;
    let mut due = failures.order(stop.or(planned(provider, pool, &mut known)).await?);
    let mut broken = false;
    for _ in 0..MAX_CALLS {
        let now = Instant::now();
        let possible = |planned: &&Planned| (settled || planned.call.is_repeatable()) && failures.may(&planned.call, now);
        let Some(next) = due.calls.iter().find(possible).cloned().filter(|_| !stop.is_told()) else { break };
        match provider.perform(pool, &next.call).await {
            Ok(answer) => {
                info!(pool = pool.name, call = %next.call, reason = next.reason, "done");
                failures.calls.remove(&next.call);
                memory.note(&next.call, &answer);
                known.learn(&next.call, &answer);
                due = failures.order(stop.or(planned(provider, pool, &mut known)).await?);
            }
            Err(error) => {
                warn!(pool = pool.name, call = %next.call, %error, "failed");
                if error.may_have_happened() {
                    memory.unsettle();
                }
                failures.note(&next, &error, Instant::now());
                broken = true;
                break;
            }
        }
    }
    failures.retain(&due);
    let waits = due.calls.iter().any(|planned| !planned.call.is_repeatable()).then_some(memory.settled);
    let report = outcome::report(pool, kept, &shown, &due, &failures.list());
    let unseen = memory.shown().filter(|_| !report.ready);
    let now = Instant::now();
    // What the failure has left is to be read at once: other calls do not wait for it.
    let again = if broken { Some(now) } else { failures.due(|call| settled || call.is_repeatable()) };
    let pending = waits.filter(|_| !settled).or(unseen);
    Ok(Round { over: !broken && pending.is_none(), due: [again, pending].into_iter().flatten().min(), report })
}

/// What is due, with the limits once they are needed.
async fn planned<P: Provider>(provider: &mut P, pool: &CloudPool, known: &mut Facts) -> Result<Plan, Error> {
    let first = plan(pool, known);
    if !first.needs_limits() || known.limits.is_some() {
        return Ok(first);
    }
    let missing: Vec<_> = pool.addresses.iter().copied().filter(|address| !known.nic.holds(*address)).collect();
    known.limits = Some(provider.limits(pool, known, &missing).await?);
    Ok(plan(pool, known))
}

/// The calls that would be made if each was answered, without any that changes something.
///
/// # Errors
/// When the cloud could not be read.
pub async fn rehearse<P: Provider>(provider: &mut P, pool: &CloudPool) -> Result<(Vec<Planned>, PoolReport), Error> {
    let shown = provider.read(pool).await?;
    let mut known = shown.clone();
    let mut calls = Vec::new();
    let mut due = planned(provider, pool, &mut known).await?;
    let report = outcome::report(pool, &Kept::of(pool, []), &shown, &due, &[]);
    while let Some(next) = due.calls.first().cloned().filter(|_| calls.len() < MAX_CALLS) {
        known.learn(&next.call, &supposed(&next.call, calls.len() + 1));
        calls.push(next);
        due = planned(provider, pool, &mut known).await?;
    }
    Ok((calls, report))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use egressd::model::cloud::{Aws, ElasticAddresses, Interface};

    use super::*;
    use crate::model::facts::{Limits, Nic, NicAddress};

    /// A cloud that never says whether it has allocated anything.
    #[derive(Default)]
    struct Silent {
        calls: Vec<Call>,
    }

    const EXIT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 94);

    impl Provider for Silent {
        async fn read(&mut self, _: &CloudPool) -> Result<Facts, Error> {
            let tags = [("egressd.dev/pool/web".to_owned(), String::new())].into();
            let nic = Nic { addresses: vec![NicAddress { address: EXIT, public: None }], tags, ..Nic::default() };
            Ok(Facts { nic, elastics: Vec::new(), gone: [].into(), tables: [].into(), limits: None })
        }

        async fn limits(&mut self, _: &CloudPool, _: &Facts, _: &[Ipv4Addr]) -> Result<Limits, Error> {
            Ok(Limits::default())
        }

        async fn perform(&mut self, _: &CloudPool, call: &Call) -> Result<Answer, Error> {
            self.calls.push(call.clone());
            Err(Error::Unanswered { action: "AllocateAddress", message: "nothing".to_owned() })
        }
    }

    #[tokio::test]
    async fn what_waits_until_readings_are_up_to_date_is_not_looked_after_before() {
        let aws = Aws {
            region: None,
            interface: Interface::InSubnet,
            elastic: Some(ElasticAddresses::Allocate),
            forwards: false,
            route_tables: Vec::new(),
        };
        let pool = CloudPool { name: "web".to_owned(), addresses: vec![EXIT], aws, host: None };
        let mut memory = Memory { window: Duration::from_secs(60), answers: Vec::new(), settled: Instant::now() };
        let (mut cloud, mut failures, kept, stop) = (Silent::default(), Failures::default(), Kept::of(&pool, []), Stop::default());
        let mut look = async || round(&mut cloud, &pool, &kept, &mut memory, &mut failures, &stop).await.expect("it reads");
        let first = look().await;
        assert!(first.due.is_some_and(|due| due <= Instant::now()), "other calls do not wait");
        let second = look().await;
        let wait = second.due.expect("it is made again").saturating_duration_since(Instant::now());
        assert!(wait > Duration::from_secs(50), "{wait:?}");
        assert_eq!(cloud.calls.len(), 1, "{:?}", cloud.calls);
    }
}
