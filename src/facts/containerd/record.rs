//! A container's record, as far as it matters. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use containerd_client::services::v1::Container as Wire;
use serde::Deserialize;

use crate::model::pod::Pod;

/// What containerd's CRI plugin says of a record: `sandbox` or `container`.
const KIND: &str = "io.cri-containerd.kind";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
/// What `nerdctl run --name` gives; the record's id is a number.
const NERDCTL_NAME: &str = "nerdctl/name";
/// Where CNI runtimes keep network namespaces, by both of the folder's names.
const NAMED: [&str; 2] = ["/var/run/netns/", "/run/netns/"];

/// Leaves out the containers in pods: nine of ten records of a node, and of no use.
pub const LIST_FILTER: &str = "labels.\"io.cri-containerd.kind\"!=container";
/// Docker's containers: the engine tells of them, and has their labels.
pub const DOCKER: &str = "moby";

/// A container's id is its own only in its containerd namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub namespace: String,
    pub id: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub subject: Subject,
    pub network: Network,
    /// Seconds since the epoch.
    pub created: u64,
}

/// Whose a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Pod(Arc<Pod>),
    /// A container that no kubelet made.
    Alone {
        name: String,
        labels: BTreeMap<String, String>,
    },
}

/// The network namespace that the OCI spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    Host,
    /// A file of that name under `/run/netns`.
    Named(String),
    /// One that has no name: that of its task.
    OfTask,
    /// The one that another process is in (`nerdctl run --network container:OTHER`).
    Joined {
        pid: u32,
    },
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it has no OCI spec")]
    NoSpec,
    #[error("failed to read its OCI spec: {0}")]
    Spec(#[source] serde_json::Error),
    #[error("it is a pod's sandbox without the label {0}")]
    NoLabel(&'static str),
}

#[derive(Deserialize)]
struct Spec {
    /// Missing for a container that is not Linux'.
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

/// Reads a record; `None` for a container in a pod, which is in its sandbox's network namespace.
///
/// # Errors
/// When it is not one that containerd's clients write.
pub fn read(namespace: &str, wire: Wire) -> Result<Option<Record>, Fault> {
    let Wire { id, labels, spec, created_at, .. } = wire;
    let kind = labels.get(KIND).map(String::as_str);
    if kind == Some("container") {
        return Ok(None);
    }
    let network = network(&spec.ok_or(Fault::NoSpec)?.value)?;
    let created = created_at.and_then(|time| time.seconds.try_into().ok()).unwrap_or_default();
    let (subject, network) = if kind == Some("sandbox") {
        // A sandbox joins nobody.
        let network = if matches!(network, Network::Joined { .. }) { Network::OfTask } else { network };
        (Subject::Pod(Arc::new(pod(labels, network == Network::Host)?)), network)
    } else {
        let name = labels.get(NERDCTL_NAME).filter(|name| !name.is_empty()).unwrap_or(&id);
        (Subject::Alone { name: format!("{namespace}/{name}"), labels: labels.into_iter().collect() }, network)
    };
    Ok(Some(Record { subject, network, created }))
}

fn pod(mut labels: HashMap<String, String>, host_network: bool) -> Result<Pod, Fault> {
    let mut take = |label| labels.remove(label).filter(|value| !value.is_empty()).ok_or(Fault::NoLabel(label));
    let (uid, namespace, name) = (take(POD_UID)?, take(POD_NAMESPACE)?, take(POD_NAME)?);
    labels.remove(KIND);
    Ok(Pod {
        uid,
        namespace,
        name,
        labels: labels.into_iter().collect(),
        addresses: Vec::new(),
        host_network,
        finished: false,
        terminating: false,
        started: None,
    })
}

fn network(spec: &[u8]) -> Result<Network, Fault> {
    let spec: Spec = serde_json::from_slice(spec).map_err(Fault::Spec)?;
    let namespaces = spec.linux.map(|linux| linux.namespaces).unwrap_or_default();
    let Some(Namespace { path, .. }) = namespaces.into_iter().find(|one| one.r#type == "network") else { return Ok(Network::Host) };
    if let Some(name) = NAMED.iter().find_map(|folder| path.strip_prefix(folder)).filter(|name| !name.is_empty() && !name.contains('/')) {
        return Ok(Network::Named(name.to_owned()));
    }
    let of = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/ns/net")).and_then(|pid| pid.parse().ok());
    Ok(match of {
        Some(1) => Network::Host,
        Some(pid) => Network::Joined { pid },
        None => Network::OfTask,
    })
}

#[cfg(test)]
mod tests;
