//! A containerd as a source of facts: pods' sandboxes, and containers that no kubelet made, each with its network namespace.
//!
//! A sandbox's record names pod, labels and network namespace, and is there 70 ms before the pod's first instruction; of another container the
//! kernel tells the namespace once there is a task. See `session` for how they are read, `state` for what is made of them. Only questions are
//! asked: nothing is ever changed in containerd. A sandbox of a sandbox controller of its own (`sandboxer = "shim"`) has no such record: the
//! API server tells of its pod.

mod event;
mod namespaces;
mod nerdctl;
mod record;
mod session;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_client::services::v1::Container as Wire;
use containerd_client::types::Envelope;
use prost::Message;

use super::follow::{Change, Followed};
use crate::model::binding::Asked;
use crate::model::facts::Container;
use crate::model::pod::RuntimeChange;
use state::Parse;

/// One containerd, followed for as long as this is kept.
pub struct Source {
    socket: PathBuf,
    parse: Parse,
    followed: Option<Followed<RuntimeChange>>,
}

impl Source {
    /// `parse` reads what the labels of a container that no kubelet made ask for; it is called for each record of one that is read.
    pub fn new(socket: &Path, parse: impl Fn(&Container) -> Option<Arc<Asked>> + Send + Sync + 'static) -> Self {
        Self { socket: socket.to_owned(), parse: Arc::new(parse), followed: None }
    }

    /// Waits for changes and gives all that are there, in order. May be dropped and called again without loss.
    ///
    /// Never fails: while containerd is away nothing is said but [`RuntimeChange::Lost`], once for each reason, and a batch that begins with a
    /// [`RuntimeChange::Snapshot`] is the first word of each connection.
    pub async fn next(&mut self) -> Vec<RuntimeChange> {
        let (socket, parse) = (&self.socket, &self.parse);
        let followed = self.followed.get_or_insert_with(|| {
            let (socket, parse) = (socket.clone(), parse.clone());
            Followed::start(format!("containerd at {}", socket.display()), move |tell| {
                let (socket, parse) = (socket.clone(), parse.clone());
                async move { session::run(&socket, parse, |change| tell.say(change)).await }
            })
        });
        followed.next().await
    }
}

impl Change for RuntimeChange {
    fn lost(why: String) -> Self {
        Self::Lost(why)
    }

    fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }
}

/// Reads bytes as a record and as an event, whatever they are (see [`crate::fuzzing`]).
pub fn read_any(bytes: &[u8]) {
    if let Ok(record) = Wire::decode(bytes) {
        let _ = record::read("default", record);
    }
    if let Ok(envelope) = Envelope::decode(bytes) {
        let _ = event::read(&envelope);
    }
}
