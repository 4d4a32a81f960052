//! A Docker engine as a source of facts: which containers and networks there are, with labels and addresses.
//!
//! Labels are known at a container's `create`, addresses at `network connect`: 10 to 290 ms before its first instruction. See `session` for
//! how they are read, `state` for what is made of them.

mod client;
mod question;
mod read;
mod session;
mod state;
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::follow::{Change, Followed};
use crate::model::binding::Asked;
use crate::model::facts::{Container, EngineChange};
use state::Parse;

pub use client::{AskError, Client};
pub use read::{BRIDGE_NAME, MANAGED, address, network, own_name};

/// One engine, followed for as long as this is kept.
pub struct Source {
    socket: PathBuf,
    parse: Parse,
    followed: Option<Followed<EngineChange>>,
}

impl Source {
    /// `parse` reads what a container's labels ask for (its `asked` is `None` then); it is called once for a container and its name.
    pub fn new(socket: &Path, parse: impl Fn(&Container) -> Option<Arc<Asked>> + Send + Sync + 'static) -> Self {
        Self { socket: socket.to_owned(), parse: Arc::new(parse), followed: None }
    }

    /// Waits for changes and gives all that are there, in order. May be dropped and called again without loss.
    ///
    /// Never fails: while the engine is away nothing is said but [`EngineChange::Lost`], once for each reason, and a batch that begins with a
    /// [`EngineChange::Snapshot`] is the first word of each connection.
    pub async fn next(&mut self) -> Vec<EngineChange> {
        let (socket, parse) = (&self.socket, &self.parse);
        let followed = self.followed.get_or_insert_with(|| {
            let (socket, parse) = (socket.clone(), parse.clone());
            Followed::start(format!("docker engine at {}", socket.display()), move |tell| {
                let (socket, parse) = (socket.clone(), parse.clone());
                async move { session::run(&socket, parse, |change| tell.say(change)).await }
            })
        });
        followed.next().await
    }
}

impl Change for EngineChange {
    fn lost(why: String) -> Self {
        Self::Lost(why)
    }

    fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot { .. })
    }
}

/// Reads bytes as each of the engine's answers, whatever they are (see [`crate::fuzzing`]).
pub fn read_any(bytes: &[u8]) {
    let containers = wire::list(bytes).map(|list| list.entries).unwrap_or_default();
    containers.into_iter().for_each(|one| drop(read::container(one)));
    let networks = wire::list(bytes).map(|list| list.entries).unwrap_or_default();
    networks.into_iter().for_each(|one| drop(network(one)));
    if let Ok(one) = serde_json::from_slice::<wire::Network>(bytes) {
        let _ = read::addresses(&one, "0123456789ab");
    }
    let _ = serde_json::from_slice(bytes).map(read::event);
    let _ = wire::list::<wire::LibpodNetwork>(bytes);
    let _ = serde_json::from_slice::<wire::Inspected>(bytes);
}
