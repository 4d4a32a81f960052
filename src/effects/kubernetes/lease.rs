//! The Lease that one controller holds, so that one alone writes what follows from all reports.
//!
//! Clocks of other nodes are not trusted: a Lease is over when this controller has seen the same record for as long as the Lease lasts, by its
//! own clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::error::{Error, ask};
use crate::facts::backoff::at_random;

/// Name of the controllers' Lease, in the namespace of agents and controllers.
pub const CONTROLLERS: &str = "egressd";
/// Name of the Lease of `egressd-cloud`, there as well.
pub const CLOUD: &str = "egressd-cloud";
const LEASES: &str = "leases.coordination.k8s.io";
/// A record that has not changed for so long is nobody's.
const LASTS: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long lets go: sooner than anybody else may take it.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt to renew it may take: there is time for another.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How often it is renewed, and asked for once it looks like nobody's.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is asked for while somebody renews it.
const PAUSE: Duration = Duration::from_secs(5);

/// What a controller is just now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// It holds the Lease.
    pub leads: bool,
    /// How many objects it could not write when it last tried.
    pub failing: usize,
    /// When it last read or renewed the Lease; `None`: never yet.
    pub heard: Option<Instant>,
}

/// One controller's view of the Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: &'static str,
    identity: String,
    /// The record as it was last seen, and since when it is so.
    seen: Option<(LeaseSpec, Instant)>,
    lease: Option<Lease>,
    /// When the last request that renewed it was begun: others count from a later moment.
    renewed: Instant,
    standing: watch::Sender<Standing>,
}

/// What a controller that does not hold the Lease does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Take,
    Wait(Duration),
}

impl Candidate {
    /// `name` is the Lease's, `identity` tells this controller from the others, and `standing` is told what it is. Needs the verbs `get`, `create` and `update` on `leases`.
    pub fn new(client: Client, namespace: &str, name: &'static str, identity: &str, standing: watch::Sender<Standing>) -> Self {
        let (api, identity) = (Api::namespaced(client, namespace), identity.to_owned());
        Self { api, name, identity, seen: None, lease: None, renewed: Instant::now(), standing }
    }

    /// Waits until this controller holds the Lease.
    pub async fn acquire(&mut self) {
        let mut said = String::new();
        loop {
            let pause = match self.try_acquire().await {
                Ok(Turn::Take) => {
                    info!(lease = self.name, identity = self.identity, "is the leader");
                    self.heard(true);
                    return;
                }
                Ok(Turn::Wait(pause)) => {
                    self.heard(false);
                    pause
                }
                Err(error) if error.is_conflict() => PAUSE,
                Err(error) => {
                    let error = error.to_string();
                    if error != said {
                        warn!(error, "failed to read the Lease; retrying");
                    }
                    said = error;
                    PAUSE
                }
            };
            sleep(pause + at_random(pause / 2)).await;
        }
    }

    async fn try_acquire(&mut self) -> Result<Turn, Error> {
        let begun = Instant::now();
        let Some(lease) = ask("get", LEASES, self.api.get_opt(self.name)).await? else {
            let lease = Lease { metadata: ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() }, spec: None };
            let lease = Lease { spec: Some(self.record(None)), ..lease };
            self.lease = Some(ask("create", LEASES, self.api.create(&PostParams::default(), &lease)).await?);
            self.renewed = begun;
            return Ok(Turn::Take);
        };
        let turn = self.look(lease.spec.clone().unwrap_or_default(), Instant::now(), Timestamp::now());
        if turn == Turn::Take {
            self.replace(lease).await?;
        }
        Ok(turn)
    }

    /// Whether the Lease is to be had, given the record that was read.
    fn look(&mut self, record: LeaseSpec, now: Instant, clock: Timestamp) -> Turn {
        let holder = record.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return Turn::Take;
        }
        let lasts = record.lease_duration_seconds.and_then(|s| s.try_into().ok()).map_or(LASTS, Duration::from_secs);
        // Only a hint to ask more often: that clock may go wrong.
        let renewed = record.renew_time.as_ref().map(|time| clock.duration_since(time.0).unsigned_abs());
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => now,
        };
        self.seen = Some((record, since));
        if now.duration_since(since) >= lasts {
            return Turn::Take;
        }
        let looks_dead = renewed.is_none_or(|ago| ago > DEADLINE);
        Turn::Wait(if looks_dead { RETRY } else { PAUSE })
    }

    /// Tells what this controller is, now that it has read or renewed the Lease.
    fn heard(&self, leads: bool) {
        self.standing.send_modify(|standing| {
            standing.leads = leads;
            standing.heard = Some(Instant::now());
        });
    }

    /// Until when this controller may act as the leader: nobody else takes the Lease before.
    pub fn until(&self) -> Instant {
        self.renewed + DEADLINE
    }

    /// Renews the Lease until that fails for too long, or somebody else has it. `until` is told each time until when this controller is the
    /// leader.
    pub async fn keep(&mut self, until: &watch::Sender<Instant>) {
        loop {
            sleep(RETRY).await;
            // The pause before it, and all of this attempt, are within the deadline: a renewal that is not answered, and the look that follows one
            // that is refused.
            let left = self.until().saturating_duration_since(Instant::now()).min(ATTEMPT);
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => {
                    until.send_replace(self.until());
                    self.heard(true);
                }
                Ok(Ok(false)) => {
                    warn!(identity = self.identity, "lost the Lease to another controller");
                    return;
                }
                Ok(Err(error)) => debug!(%error, "failed to renew the Lease; retrying"),
                Err(_) => debug!("no answer to the renewal of the Lease; retrying"),
            }
            if Instant::now() >= self.until() {
                warn!(identity = self.identity, "could not renew the Lease in time; no longer the leader");
                self.lease = None;
                return;
            }
        }
    }

    /// Renews the Lease; whether it is still this controller's.
    async fn renew(&mut self) -> Result<bool, Error> {
        let Some(lease) = self.lease.clone() else { return Ok(false) };
        match self.replace(lease).await {
            // Somebody changed the object, but perhaps not its holder.
            Err(error) if error.is_conflict() => {
                let lease = ask("get", LEASES, self.api.get(self.name)).await?;
                let mine = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.identity);
                self.lease = mine.then_some(lease);
                Ok(mine)
            }
            renewed => renewed.map(|()| true),
        }
    }

    /// Lets go of the Lease, so that another controller need not wait for its end.
    pub async fn release(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = ask("update", LEASES, self.api.replace(self.name, &PostParams::default(), &lease)).await {
            debug!(%error, "failed to release the Lease; it expires by itself");
        }
    }

    async fn replace(&mut self, mut lease: Lease) -> Result<(), Error> {
        lease.spec = Some(self.record(lease.spec.as_ref()));
        let begun = Instant::now();
        self.lease = Some(ask("update", LEASES, self.api.replace(self.name, &PostParams::default(), &lease)).await?);
        self.renewed = begun;
        Ok(())
    }

    /// The record of this controller holding the Lease, after the one that is there.
    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.filter(|before| before.holder_identity.as_ref() == Some(&self.identity));
        let turns = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LASTS.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: mine.and_then(|mine| mine.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if before.is_none() || mine.is_some() { turns } else { turns.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests;
