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
use crate::model::report::PoolReport;
use crate::provider::{Error, Provider};

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
pub struct Failures(BTreeMap<Call, Failure>);

#[derive(Debug)]
struct Failure {
    failed: Failed,
    again: Instant,
    backoff: Backoff,
}

impl Failures {
    fn may(&self, call: &Call, now: Instant) -> bool {
        self.0.get(call).is_none_or(|failure| failure.again <= now)
    }

    fn note(&mut self, planned: &Planned, error: &Error, now: Instant) {
        let failed = Failed { planned: planned.clone(), reason: error.reason(), message: error.to_string() };
        match self.0.get_mut(&planned.call) {
            Some(failure) => {
                failure.failed = failed;
                failure.again = now + failure.backoff.wait();
            }
            None => {
                let mut backoff = Backoff::new(RETRY[0], RETRY[1]);
                self.0.insert(planned.call.clone(), Failure { failed, again: now + backoff.wait(), backoff });
            }
        }
    }

    fn retain(&mut self, plan: &Plan) {
        self.0.retain(|call, _| plan.calls.iter().any(|planned| planned.call == *call));
    }

    fn list(&self) -> Vec<Failed> {
        self.0.values().map(|failure| failure.failed.clone()).collect()
    }

    fn due(&self) -> Option<Instant> {
        self.0.values().map(|failure| failure.again).min()
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

/// Reads, and carries out what is due. `stopped`: no more calls are begun.
///
/// # Errors
/// When the cloud could not be read: nothing is known then, and nothing done.
pub async fn round<P: Provider>(
    provider: &mut P,
    pool: &CloudPool,
    memory: &mut Memory,
    failures: &mut Failures,
    stopped: impl Fn() -> bool,
) -> Result<Round, Error> {
    let read = Instant::now();
    let shown = provider.read(pool).await?;
    let mut known = shown.clone();
    memory.apply(&mut known, read);
    let settled = memory.settled <= read;
    let mut due = planned(provider, pool, &mut known).await?;
    let mut broken = false;
    for _ in 0..MAX_CALLS {
        let now = Instant::now();
        let possible = |planned: &&Planned| (settled || planned.call.is_repeatable()) && failures.may(&planned.call, now);
        let Some(next) = due.calls.iter().find(possible).cloned().filter(|_| !stopped()) else { break };
        match provider.perform(pool, &next.call).await {
            Ok(answer) => {
                info!(pool = pool.name, call = %next.call, reason = next.reason, "done");
                failures.0.remove(&next.call);
                memory.note(&next.call, &answer);
                known.learn(&next.call, &answer);
                due = planned(provider, pool, &mut known).await?;
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
    let report = outcome::report(pool, &shown, &due, &failures.list());
    let unseen = memory.shown().filter(|_| !report.ready);
    let now = Instant::now();
    // What the failure has left is to be read at once: other calls do not wait for it.
    let again = if broken { Some(now) } else { failures.due() };
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
    let report = outcome::report(pool, &shown, &due, &[]);
    while let Some(next) = due.calls.first().cloned().filter(|_| calls.len() < MAX_CALLS) {
        known.learn(&next.call, &supposed(&next.call, calls.len() + 1));
        calls.push(next);
        due = planned(provider, pool, &mut known).await?;
    }
    Ok((calls, report))
}
