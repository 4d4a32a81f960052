//! The one writer of this node's `EgressNode`.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::MANAGER;
use super::error::{Error, ask};
use super::pace::Pace;
use crate::api::node::{EgressNode, EgressNodeSpec};
use crate::facts::backoff::at_random;
use crate::facts::kubernetes::store::Said;
use crate::facts::kubernetes::stream::{Heard, Kind, follow};
use crate::model::cluster::{Node, Update};

/// How often the report is written anew though nothing changed, so that a silent agent is told from one that has nothing to say: this, and up
/// to half as much again.
const REFRESH: Duration = Duration::from_secs(80);
/// How long the last report may take: what took the agent away may have taken its rights, or the API server, too.
const LAST: Duration = Duration::from_secs(3);

/// Writes the reports of one node, for as long as this is kept.
///
/// Reports that come faster than they may be written replace each other; one that says what the last one said is not written.
pub struct Reporter {
    api: Api<EgressNode>,
    reports: watch::Sender<Option<Report>>,
    task: JoinHandle<()>,
}

#[derive(Clone, PartialEq)]
struct Report {
    name: String,
    uid: String,
    spec: EgressNodeSpec,
}

impl Reporter {
    /// Needs the verbs `create`, `patch`, `list` and `watch` on `egressnodes`.
    pub fn start(client: Client) -> Self {
        let (reports, told) = watch::channel(None);
        let api: Api<EgressNode> = Api::all(client.clone());
        Self { reports, task: tokio::spawn(write(client, api.clone(), told)), api }
    }

    /// Says what the report is now. Cheap: nothing is written here. Without the node's uid nothing is, as the report goes with its node.
    pub fn report(&self, node: &Node, spec: EgressNodeSpec) {
        let report = Report::of(node, spec);
        if report.is_none() {
            return;
        }
        self.reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }

    /// Writes the report of a node that has no agent any more, so that nobody takes the one before for what is.
    pub async fn last(mut self, node: &Node, spec: EgressNodeSpec) {
        self.task.abort();
        // What it was writing would come later.
        let _ = (&mut self.task).await;
        let Some(report) = Report::of(node, spec) else { return };
        match timeout(LAST, apply(&self.api, &report)).await {
            Ok(Ok(_)) => debug!(node = report.name, "last report written"),
            Ok(Err(error)) => info!(node = report.name, %error, "failed to write the node's last report"),
            Err(_) => info!(node = report.name, "failed to write the node's last report in time"),
        }
    }
}

impl Report {
    fn of(node: &Node, spec: EgressNodeSpec) -> Option<Self> {
        (!node.uid.is_empty()).then(|| Self { name: node.name.clone(), uid: node.uid.clone(), spec })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The node's EgressNode as it is, if it is there.
#[derive(Clone, PartialEq)]
struct Own {
    /// Later ones are greater.
    version: Option<u64>,
    spec: EgressNodeSpec,
}

/// What was written last.
struct Written {
    report: Report,
    version: Option<u64>,
}

impl Written {
    /// Whether somebody else has deleted or changed what was written.
    fn is_undone(&self, own: Option<&Own>) -> bool {
        let Some(own) = own else { return true };
        // An update that is older than the write says nothing of it.
        own.version > self.version && EgressNodeSpec { reported_at: None, ..own.spec.clone() } != self.report.spec
    }
}

/// Follows the node's own EgressNode: whoever deletes it gets it back at once.
fn follow_own(client: Client, name: &str) -> (JoinSet<()>, mpsc::UnboundedReceiver<Option<Own>>) {
    let read = |object: DynamicObject| {
        let spec = EgressNodeSpec::deserialize(object.data.get("spec").unwrap_or(&Value::Null)).unwrap_or_default();
        (object.name_any(), Ok(Own { version: version(&object), spec }))
    };
    let api = Api::all_with(client, &ApiResource::erase::<EgressNode>(&()));
    let kind = Kind { api, fields: Some(format!("metadata.name={name}")), read };
    let (tell, told) = mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(follow(kind, move |heard| {
        let own = match heard {
            Heard::Said(Said::Update(Update::All(all))) => all.into_iter().next(),
            Heard::Said(Said::Update(Update::One(own))) => Some(own),
            Heard::Said(Said::Update(Update::Gone(_))) => None,
            // Those who read all nodes say what is wrong.
            Heard::Said(Said::Trouble { .. }) | Heard::Problem(_) => return,
        };
        // Fails only when nobody reports any more, and this task ends.
        let _ = tell.send(own);
    }));
    (task, told)
}

fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version().and_then(|version| version.parse().ok())
}

/// Until nobody reports any more.
async fn write(client: Client, api: Api<EgressNode>, mut told: watch::Receiver<Option<Report>>) {
    let mut pace = Pace::default();
    let mut written: Option<Written> = None;
    let mut failed: Option<String> = None;
    let mut own = None;
    loop {
        if failed.is_none() {
            let (refresh, undone) = (REFRESH + at_random(REFRESH / 2), undone(&mut own, written.as_ref()));
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = sleep(refresh), if written.is_some() => written = None,
                () = undone => written = None,
            }
        }
        if let Some(due) = pace.next() {
            sleep_until(due).await;
        }
        let Some(report) = told.borrow_and_update().clone() else { continue };
        if written.as_ref().is_some_and(|written| written.report == report) {
            failed = None;
            continue;
        }
        match apply(&api, &report).await {
            Ok(node) => {
                debug!(node = report.name, "report written");
                pace.wrote(Instant::now());
                own.get_or_insert_with(|| follow_own(client.clone(), &report.name));
                (written, failed) = (Some(Written { report, version: version(&node) }), None);
            }
            Err(error) => {
                pace.failed(Instant::now());
                let error = error.to_string();
                if failed.as_ref() != Some(&error) {
                    warn!(node = report.name, error, "failed to write the node's report; retrying");
                }
                failed = Some(error);
            }
        }
    }
}

/// Waits until what was written is gone, or another.
async fn undone(own: &mut Option<(JoinSet<()>, mpsc::UnboundedReceiver<Option<Own>>)>, written: Option<&Written>) {
    let (Some((_, told)), Some(written)) = (own, written) else { return std::future::pending().await };
    while let Some(own) = told.recv().await {
        if written.is_undone(own.as_ref()) {
            return;
        }
    }
    std::future::pending().await
}

async fn apply(api: &Api<EgressNode>, report: &Report) -> Result<EgressNode, Error> {
    let spec = EgressNodeSpec { reported_at: Some(Time(Timestamp::now())), ..report.spec.clone() };
    let mut node = EgressNode::new(&report.name, spec);
    node.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: report.name.clone(),
        uid: report.uid.clone(),
        ..OwnerReference::default()
    }]);
    let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(&node));
    let request = api.patch(&report.name, &parameters, &patch);
    ask("patch", "egressnodes.egressd.dev", request).await
}
