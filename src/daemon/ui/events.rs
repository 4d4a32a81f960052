//! Server-sent events: that status has changed, and what flows.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures::Stream;
use futures::stream::unfold;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::daemon::status_cache::StatusCache;
use crate::report::drops::Dropped;
use crate::report::flows::ExitFlows;

/// How often counters are looked at.
const TICK: Duration = Duration::from_secs(1);
/// When a client that lost its connection comes again.
const AGAIN: Duration = Duration::from_millis(500);

/// The data of an event `status`: another number means that `/api/v1/status` and `/api/v1/changes` have news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusEvent {
    /// Goes up when anything but a counter changes; begins anew with the daemon.
    pub number: u64,
}

/// The data of an event `flows`, once a second.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowsEvent {
    pub exits: Vec<ExitFlows>,
    /// Packets that were not let out, by reason.
    pub dropped: Vec<Dropped>,
}

struct Listener {
    cache: StatusCache,
    revisions: watch::Receiver<u64>,
    tick: Interval,
    /// The number that the client has.
    number: Option<u64>,
    /// It is to be told what flows.
    due: bool,
}

/// Events until the client goes.
pub(super) async fn events(State(cache): State<StatusCache>) -> impl IntoResponse {
    Sse::new(stream(cache))
}

fn stream(cache: StatusCache) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { revisions: cache.revisions(), cache, tick, number: None, due: false };
    unfold(listener, async |mut listener| Some((Ok(listener.next().await?), listener)))
}

impl Listener {
    /// The next event; `None` when the daemon stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let snapshot = self.cache.status().await?;
            if self.number.replace(snapshot.number) != Some(snapshot.number) {
                return Some(event("status", &StatusEvent { number: snapshot.number }).retry(AGAIN));
            }
            if std::mem::take(&mut self.due) {
                let exits = self.cache.flows().await?.exits;
                return Some(event("flows", &FlowsEvent { exits, dropped: snapshot.dropped.clone() }));
            }
            tokio::select! {
                changed = self.revisions.changed() => changed.ok()?,
                _ = self.tick.tick() => self.due = true,
            }
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).expect("events are plain data"))
}
