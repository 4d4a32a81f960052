//! What an agent knows: the source under test, and the model that hears it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use egressd::{
    facts::kubernetes::{Scope, Source, client},
    model::cluster::{Cluster, ClusterChange},
};
use tokio::runtime::{Builder, Runtime};

use crate::objects::{AGENTS, NODE};

/// Many times what anything takes: the longest is a source's pause of at most 60 s between two attempts.
const PATIENCE: Duration = Duration::from_secs(150);

/// An agent that reads and does nothing. It does so only while a scenario waits for it.
pub struct Agent {
    runtime: Runtime,
    source: Source,
    pub cluster: Cluster,
    /// Why the API server is away.
    away: Option<String>,
}

impl Agent {
    pub fn start(kubeconfig: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        let client = runtime.block_on(client(Some(Path::new(kubeconfig)))).expect("the kubeconfig is good");
        let scope = Scope { node: NODE.to_owned(), namespace: AGENTS.to_owned(), daemonset: Some("egressd".to_owned()) };
        Self { runtime, source: Source::new(client, scope), cluster: Cluster::new(true, &[]), away: None }
    }

    /// Listens until what is known is so, and returns what was heard.
    pub fn until(&mut self, what: &str, so: impl Fn(&Cluster) -> bool) -> Vec<ClusterChange> {
        self.until_it(what, |agent| so(&agent.cluster))
    }

    /// Listens until the API server is away.
    pub fn until_away(&mut self) -> Vec<ClusterChange> {
        self.until_it("it is away", |agent| agent.away.is_some())
    }

    /// Listens until the API server answers on all kinds.
    pub fn until_back(&mut self) {
        self.until_it("it is back", |agent| agent.away.is_none());
    }

    fn until_it(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Vec<ClusterChange> {
        let start = Instant::now();
        let mut heard = Vec::new();
        while !so(self) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let next = self.runtime.block_on(async { tokio::time::timeout(left, self.source.next()).await });
            let batch = next.unwrap_or_else(|_| panic!("never: {what}; heard {heard:#?}; known: {:#?}", self.cluster));
            assert!(!batch.is_empty(), "a batch has something in it");
            for change in batch {
                heard.push(change.clone());
                self.take(change);
            }
        }
        heard
    }

    fn take(&mut self, change: ClusterChange) {
        match &change {
            ClusterChange::Lost(why) => self.away = Some(why.clone()),
            ClusterChange::Found => self.away = None,
            _ => {}
        }
        self.cluster.apply(change);
    }

    /// Listens until all kinds were told.
    pub fn until_whole(&mut self) {
        self.until("all is listed", |cluster| cluster.whole() && !cluster.node.uid.is_empty() && cluster.daemonset.is_some());
    }

    /// Listens for so long, whatever is heard.
    pub fn listen(&mut self, time: Duration) {
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed());
            let next = self.runtime.block_on(async { tokio::time::timeout(left, self.source.next()).await });
            let Ok(batch) = next else { return };
            batch.into_iter().for_each(|change| self.take(change));
        }
    }
}

/// Names of the bindings that are known.
pub fn bindings(cluster: &Cluster) -> Vec<&str> {
    cluster.bindings.iter().flatten().map(|(_, binding)| binding.name.as_str()).collect()
}

/// Names of the pods that are known.
pub fn pods(cluster: &Cluster) -> Vec<&str> {
    let mut names: Vec<&str> = cluster.pods.iter().flatten().map(|(_, seen)| seen.pod.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Whether some trouble has these words.
pub fn troubled(cluster: &Cluster, words: &str) -> bool {
    cluster.troubles.values().any(|trouble| trouble.contains(words))
}
