//! Pods, and what a container runtime runs: plain data that the sources fill in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::binding::Asked;
use super::labels::Labels;

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    /// `status.podIPs`: known only once it has started, and kept when it is over.
    pub addresses: Vec<IpAddr>,
    /// It uses the node's own network.
    pub host_network: bool,
    /// `Succeeded` or `Failed`: what its status says of addresses is somebody else's by now.
    pub finished: bool,
    /// Its deletion was asked for (`metadata.deletionTimestamp`).
    pub terminating: bool,
    /// When a container of it that runs was started last (RFC 3339), by its status. With a new one its network namespace may be another one.
    pub started: Option<String>,
}

impl Pod {
    /// It is about to end, or has ended: nobody is to call it any more.
    pub fn leaves(&self) -> bool {
        self.terminating || self.finished
    }
}

/// What has a network namespace in a container runtime: a pod's sandbox, or a container by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub owner: Owner,
    pub network: NetworkNamespace,
    /// Seconds since the epoch.
    pub created: u64,
}

/// Whose a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As the runtime was told of it: with the labels of that moment, and no addresses.
    Pod(Arc<Pod>),
    /// A container that no kubelet made (`nerdctl`, `ctr`).
    Container {
        /// The runtime's namespace and the container's name, or its id when it has none: `default/web`.
        name: String,
        /// What its `egress.` labels ask for; `None` when it bears none.
        asked: Option<Arc<Asked>>,
        /// Its network as Docker would call it, where that is a reason to refuse it: `host`, `none`, `container:PID`; else empty.
        mode: String,
        /// Names of the bridges that it asks for an exit on, if its client said so ahead: they are guarded until its record is deleted.
        bridges: Vec<String>,
    },
}

impl Owner {
    /// Whether it is known, with no task, which bridges it asks for an exit on.
    pub fn announces(&self) -> bool {
        matches!(self, Self::Container { bridges, .. } if !bridges.is_empty())
    }
}

/// Where a sandbox's addresses are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// The node's own.
    Host,
    /// A file of that name under `/run/netns`, which the kernel's facts have a number for.
    Named(String),
    /// The number by which this namespace knows it (`RTM_GETNSID`).
    Numbered(i32),
    /// It has none yet, or it cannot be known: the task does not run.
    Unknown,
    /// There is no task: one was not begun, or is over.
    Absent,
}

/// What a container runtime said since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeChange {
    /// The whole truth as of now: what is not in it is gone.
    Snapshot(Vec<Sandbox>),
    Sandbox(Box<Sandbox>),
    /// By id.
    Gone(String),
    /// What of the runtime's answers could not be read or had: all of it, by what it is about.
    Problems(BTreeMap<String, String>),
    /// The runtime is away, and why; what was known of it stays.
    Lost(String),
}
