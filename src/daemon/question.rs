//! What the loop is asked by those who serve people and programs, and what it answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::debug;

use super::{Event, EventSender, tally};
use crate::effects::nft::{drops, full};
use crate::model::facts::IfIndex;
use crate::model::leave::{Asked, Leaving};
use crate::model::ports::Protocol;
use crate::model::started::Started;
use crate::report::changes::Changes;
use crate::report::drops::Drops;
use crate::report::flows::Flows;
use crate::report::status::{Counted, Status};

/// A call to a port of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub called: SocketAddr,
    pub protocol: Protocol,
    /// Who calls.
    pub client: Option<IpAddr>,
}

/// What the loop is asked.
pub(crate) enum Question {
    /// With what is counted in the kernel: conntrack's table may be long, and the loop does not wait for it.
    Status(Counted),
    Explain {
        workload: String,
        destination: Option<IpAddr>,
        /// What the kernel has counted.
        drops: Drops,
    },
    /// The last changes of workloads.
    Changes,
    /// What becomes of a call to a port.
    ExplainInbound(Call),
    /// With the same as status.
    Metrics(Counted),
    /// Whether all sources have spoken and the kernel is as it should be.
    Ready,
    /// Whether programs that are started so leave so: it is ready, not yet, or refused.
    Exec(Started),
    /// The same of the program behind a link of this host.
    Isolated(IfIndex),
    /// By which exits connections leave that another process dials; not ready while sources have not spoken.
    Leave(Asked),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    Status(Status),
    Changes(Changes),
    Flows(Flows),
    Text(String),
    /// No such workload.
    Unknown(String),
    Ready(bool),
    Leaving(Leaving),
    /// Why it is not done, with the cure.
    Refused(String),
}

/// What the kernel has counted; nothing where that cannot be read.
pub(super) async fn counted() -> Counted {
    with_drops(spawn_blocking(tally::count).await.unwrap_or_default()).await
}

/// With the counters of what our rules have dropped, and the servers that are full.
pub(super) async fn with_drops(counted: Counted) -> Counted {
    let full = || {
        full().unwrap_or_else(|error| {
            debug!(%error, "failed to read which servers are full");
            BTreeSet::new()
        })
    };
    let (drops, full) = spawn_blocking(move || (read_drops(), full())).await.unwrap_or_default();
    Counted { drops, full, ..counted }
}

/// The counters of what our rules have dropped; nothing where they cannot be read.
pub(super) async fn dropped() -> Drops {
    spawn_blocking(read_drops).await.unwrap_or_default()
}

fn read_drops() -> Drops {
    drops().unwrap_or_else(|error| {
        debug!(%error, "failed to read the counters of drops");
        Drops::default()
    })
}

/// Puts a question to the loop; `None` when it stops.
pub(super) async fn put(question: Question, tell: &EventSender) -> Option<Response> {
    let (respond, response) = oneshot::channel();
    tell.send(Event::Question(question, respond)).ok()?;
    response.await.ok()
}
