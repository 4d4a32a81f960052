//! The one writer of this node's `EgressNode`.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::MANAGER;
use super::error::Error;
use super::pace::Pace;
use crate::api::node::{EgressNode, EgressNodeSpec};
use crate::model::cluster::Node;

/// How often the report is written anew though nothing changed, because somebody may have deleted it.
const REFRESH: Duration = Duration::from_secs(3600);
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
    /// Needs the verb `patch` on `egressnodes`.
    pub fn start(client: Client) -> Self {
        let (reports, told) = watch::channel(None);
        let api: Api<EgressNode> = Api::all(client);
        Self { reports, task: tokio::spawn(write(api.clone(), told)), api }
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
            Ok(Ok(())) => debug!(node = report.name, "last report written"),
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

/// Until nobody reports any more.
async fn write(api: Api<EgressNode>, mut told: watch::Receiver<Option<Report>>) {
    let mut pace = Pace::default();
    let mut written: Option<Report> = None;
    let mut failed: Option<String> = None;
    loop {
        if failed.is_none() {
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = sleep(REFRESH), if written.is_some() => written = None,
            }
        }
        if let Some(due) = pace.next() {
            sleep_until(due).await;
        }
        let Some(report) = told.borrow_and_update().clone() else { continue };
        if written.as_ref() == Some(&report) {
            failed = None;
            continue;
        }
        match apply(&api, &report).await {
            Ok(()) => {
                debug!(node = report.name, "report written");
                pace.wrote(Instant::now());
                (written, failed) = (Some(report), None);
            }
            Err(error) => {
                pace.failed(Instant::now());
                let error = error.to_string();
                if failed.as_ref() != Some(&error) {
                    warn!(node = report.name, error, "failed to write the node's report; trying again");
                }
                failed = Some(error);
            }
        }
    }
}

async fn apply(api: &Api<EgressNode>, report: &Report) -> Result<(), Error> {
    let mut node = EgressNode::new(&report.name, report.spec.clone());
    node.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: report.name.clone(),
        uid: report.uid.clone(),
        ..OwnerReference::default()
    }]);
    let applied = api.patch(&report.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&node)).await;
    applied.map(drop).map_err(|error| Error::of("patch", "egressnodes.egressd.dev", error))
}
