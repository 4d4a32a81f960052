//! The questions that are asked of an engine.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::{AskError, Client, escaped};
use super::read::{self, Listed};
use super::wire::{self, Broken, List};
use crate::model::facts::Network;

/// Containers in one answer: bounds the memory of reading 10,000 of them.
const PAGE: usize = 500;

impl Client {
    /// The engine's version.
    ///
    /// # Errors
    /// As [`Client::get`]; so for all questions.
    pub async fn version(&self) -> Result<String, AskError> {
        Ok(serde_json::from_slice::<wire::Version>(&self.get("/version", &[]).await?.body)?.version)
    }

    /// A network by its name or id, with its containers; `None` when there is none.
    pub async fn network(&self, name: &str) -> Result<Option<wire::Network>, AskError> {
        match self.get(&format!("/networks/{}", escaped(name)), &[]).await {
            Ok(answer) => Ok(Some(serde_json::from_slice(&answer.body)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file of a running container's network namespace; nothing while the engine has none. It is made anew at each start, and goes with its
    /// end, which `/proc/PID` cannot promise: another process may have the number by then.
    pub async fn namespace_of(&self, container: &str) -> Result<Option<PathBuf>, AskError> {
        let inspected = self.inspect(container).await?;
        let inspected = match inspected.host_config.network_mode.strip_prefix("container:") {
            Some(owner) => self.inspect(owner).await?,
            None => inspected,
        };
        let file = inspected.network_settings.sandbox_key;
        Ok((!file.is_empty()).then(|| file.into()))
    }

    async fn inspect(&self, container: &str) -> Result<wire::Inspected, AskError> {
        Ok(serde_json::from_slice(&self.get(&format!("/containers/{}/json", escaped(container)), &[]).await?.body)?)
    }

    /// All networks, without their containers.
    pub async fn networks(&self) -> Result<List<Network>, AskError> {
        self.some_networks(None).await
    }

    /// One network, if it is there.
    pub async fn one_network(&self, id: &str) -> Result<Option<Network>, AskError> {
        // The filter takes prefixes too.
        let found = self.some_networks(Some(json!({ "id": [id] }))).await?.entries;
        Ok(found.into_iter().find(|network| network.id == id))
    }

    /// Containers by id, of those that are there.
    pub async fn some_containers(&self, ids: &[&str]) -> Result<List<wire::Container>, AskError> {
        self.containers(&[("filters", &json!({ "id": ids }).to_string())]).await
    }

    /// The newest first, page by page; one that is made meanwhile has an event. An engine that takes no note of where a page is to begin answers with
    /// what is known already: that is the end. A container that is gone begins no page: then the one that was listed ahead of it does.
    pub async fn all_containers(&self) -> Result<List<Listed>, AskError> {
        let mut all = List { entries: Vec::new(), broken: Vec::new() };
        let (mut listed, mut known): (Vec<String>, HashSet<String>) = (Vec::new(), HashSet::new());
        loop {
            let before = listed.last().map_or(Value::Object(Default::default()), |last| json!({ "before": [last] })).to_string();
            let page = match self.containers(&[("limit", &PAGE.to_string()), ("filters", &before)]).await {
                Err(error) if error.is_not_found() && listed.pop().is_some() => continue,
                page => page?,
            };
            let whole = page.entries.len() + page.broken.len() >= PAGE;
            listed.extend(page.entries.iter().map(|one| one.id.clone()));
            let before = known.len();
            all.entries.extend(page.entries.into_iter().filter(|one| known.insert(one.id.clone())).map(read::container));
            let is_news = known.len() > before;
            if is_news || before == 0 {
                all.broken.extend(page.broken);
            }
            if !whole || !is_news {
                return Ok(all);
            }
        }
    }

    async fn containers(&self, query: &[(&str, &str)]) -> Result<List<wire::Container>, AskError> {
        let query: Vec<_> = [("all", "true")].into_iter().chain(query.iter().copied()).collect();
        Ok(wire::list(&self.get("/containers/json", &query).await?.body)?)
    }

    async fn some_networks(&self, filters: Option<Value>) -> Result<List<Network>, AskError> {
        let filters = filters.map(|filters| filters.to_string());
        let query: Vec<_> = filters.iter().map(|filters| ("filters", filters.as_str())).collect();
        let answer = self.get("/networks", &query).await?;
        let List { entries, broken } = wire::list::<wire::Network>(&answer.body)?;
        let Some(version) = answer.libpod else {
            return Ok(List { entries: entries.into_iter().map(read::network).collect(), broken });
        };
        let devices = self.podman_devices(&version).await?;
        let named = |network: wire::Network| Network { bridge: devices.get(&network.id).cloned(), ..read::network(network) };
        Ok(List { entries: entries.into_iter().map(named).collect(), broken })
    }

    /// Podman tells a bridge's device in its own API alone, and names it by another rule than Docker.
    async fn podman_devices(&self, version: &str) -> Result<HashMap<String, String>, AskError> {
        let answer = self.get(&format!("/v{}/libpod/networks/json", escaped(version)), &[]).await?;
        let List { entries, broken } = wire::list::<wire::LibpodNetwork>(&answer.body)?;
        for Broken { name, error, .. } in broken {
            tracing::warn!(network = name, error, "failed to read a network of Podman");
        }
        Ok(entries.into_iter().filter(|one| !one.network_interface.is_empty()).map(|one| (one.id, one.network_interface)).collect())
    }
}
