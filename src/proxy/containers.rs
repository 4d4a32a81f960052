//! Containers of a Docker engine in which ports are opened: those that run and that a manifest selects, each with the file of its network
//! namespace. The engine is followed only while a manifest asks for it.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tracing::debug;

use crate::facts::docker::{AskError, Client, Source};
use crate::model::facts::{Container, EngineChange};
use crate::model::proxy::{InContainers, Running};

/// How long an answer may take. The engine gives none while the container is being started.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions for a namespace that the engine does not tell yet, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// Follows them.
pub struct Containers {
    socket: PathBuf,
    client: Client,
    selected: Vec<InContainers>,
    source: Option<Source>,
    /// Those that run, by id.
    known: BTreeMap<String, RunningContainer>,
    questions: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Runs of containers that were seen so far.
    runs: u64,
    /// Why the engine is away.
    lost: Option<String>,
}

/// A container that runs.
struct RunningContainer {
    container: Arc<Container>,
    /// Which run it is; `None` until its namespace is asked for. An answer about an older run says nothing.
    run: Option<u64>,
    file: Option<PathBuf>,
}

/// What the engine says of one run's namespace.
struct Answer {
    id: String,
    run: u64,
    pause: Duration,
    file: Result<Option<PathBuf>, AskError>,
}

impl Containers {
    /// Follows nothing yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: Client::new(socket, PATIENCE),
            selected: Vec::new(),
            source: None,
            known: BTreeMap::new(),
            questions: FuturesUnordered::new(),
            runs: 0,
            lost: None,
        }
    }

    /// Says which ones are of interest from now on.
    pub fn want(&mut self, selected: Vec<InContainers>) {
        self.selected = selected;
        if self.selected.is_empty() {
            *self = Self::new(&self.socket);
            return;
        }
        if self.source.is_none() {
            // What its labels ask for is the agent's.
            self.source = Some(Source::new(&self.socket, |_| None));
        }
        self.ask();
    }

    /// Those that run and that a port is asked for in, as far as their namespaces are known.
    pub fn running(&self) -> Vec<Running> {
        let known = self.known.values().filter_map(|RunningContainer { container, file, .. }| Some((container, file.as_ref()?)));
        known.map(|(container, file)| Running { container: Arc::clone(container), file: file.clone() }).collect()
    }

    /// What is wrong with the engine.
    pub fn problem(&self) -> Option<String> {
        let why = self.lost.as_ref()?;
        Some(format!("Docker at {}: {why}; containers that start meanwhile are not served (see --docker-socket)", self.socket.display()))
    }

    /// Waits until something has changed. May be dropped while it waits.
    pub async fn changed(&mut self) {
        let Some(source) = &mut self.source else { return pending().await };
        tokio::select! {
            changes = source.next() => {
                changes.into_iter().for_each(|change| self.take(change));
                self.ask();
            }
            Some(answer) = self.questions.next() => self.answered(answer),
        }
    }

    fn take(&mut self, change: EngineChange) {
        match change {
            EngineChange::Snapshot { containers, .. } => {
                self.lost = None;
                self.known.retain(|id, _| containers.iter().any(|container| container.id == *id));
                // It may have been started anew unseen.
                self.known.values_mut().for_each(|known| known.run = None);
                containers.into_iter().for_each(|container| self.container(container));
            }
            EngineChange::Container(container) => self.container(*container),
            EngineChange::ContainerGone(id) => drop(self.known.remove(&id)),
            EngineChange::Lost(why) => self.lost = Some(why),
            EngineChange::Made { .. } | EngineChange::Network(_) | EngineChange::NetworkGone(_) | EngineChange::Problems(_) => {}
        }
    }

    fn container(&mut self, container: Container) {
        if !container.running {
            self.known.remove(&container.id);
            return;
        }
        let container = Arc::new(container);
        let known = self.known.entry(container.id.clone());
        known.and_modify(|known| known.container = Arc::clone(&container)).or_insert_with(|| RunningContainer {
            container,
            run: None,
            file: None,
        });
    }

    /// Asks for the namespaces of selected containers that were not asked for yet.
    fn ask(&mut self) {
        for (id, known) in &mut self.known {
            if known.run.is_none() && self.selected.iter().any(|ports| ports.fits(&known.container)) {
                self.runs += 1;
                known.run = Some(self.runs);
                self.questions.push(question(self.client.clone(), id.clone(), self.runs, Duration::ZERO));
            }
        }
    }

    fn answered(&mut self, Answer { id, run, pause, file }: Answer) {
        let Some(known) = self.known.get_mut(&id).filter(|known| known.run == Some(run)) else { return };
        match file {
            Ok(Some(file)) => known.file = Some(file),
            other => {
                let pause = (pause * 2).clamp(PAUSES[0], PAUSES[1]);
                debug!(container = known.container.name, ?other, "the engine does not report the network namespace yet");
                self.questions.push(question(self.client.clone(), id, run, pause));
            }
        }
    }
}

fn question(client: Client, id: String, run: u64, pause: Duration) -> BoxFuture<'static, Answer> {
    async move {
        tokio::time::sleep(pause).await;
        let file = client.namespace_of(&id).await;
        Answer { id, run, pause, file }
    }
    .boxed()
}
