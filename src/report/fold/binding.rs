//! The status of one binding: from what it says, what its pool lends, and what the nodes report of it.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::condition::{Verdict, conditions, find};
use super::count::{count, nodes, verb};
use crate::api::node::{NodeBinding, NodeService};
use crate::api::status::{EgressBindingStatus, FailingNode, PublishedPort, Summary};
use crate::model::binding::ExitSpec;
use crate::model::inbound::Inbound;
use crate::model::reason::Reason;

/// The spec is well written and may be used here.
pub const ACCEPTED: &str = "Accepted";
/// What it refers to is there, and lent to it.
pub const RESOLVED: &str = "ResolvedRefs";
/// Its workloads leave by its exits.
pub const PROGRAMMED: &str = "Programmed";
/// The ports that it publishes are served; a condition of bindings that publish some.
pub const PUBLISHED: &str = "Published";
/// Reason of [`PROGRAMMED`] when nobody is selected: nothing is left to do.
pub const NO_WORKLOADS: &str = "NoWorkloads";

/// As many failing nodes as the resource's schema lets through.
const MAX_NODES: usize = 10;
/// As many services.
const MAX_SERVICES: usize = 64;

/// Reason of [`PROGRAMMED`] when it is not known what the workloads of a node do, as its agent reports nothing any more.
pub const AGENT_SILENT: &str = "AgentSilent";

/// What a node says of a binding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    pub node: &'a str,
    pub binding: &'a NodeBinding,
    /// It said so last, and has fallen silent since.
    pub silent: bool,
}

/// What is known of a binding.
pub(super) struct Case<'a> {
    pub generation: i64,
    /// Its conditions as they are.
    pub before: &'a [Condition],
    pub accepted: Verdict,
    /// What it leaves with, or why it has nothing.
    pub exits: Result<Vec<ExitSpec>, Reason>,
    /// The pool that it names.
    pub pool: Option<String>,
    /// Addresses that stay allocated to it though it cannot use them.
    pub kept: Vec<IpAddr>,
    /// How many of the addresses that it asks for by number are missing, and of which pool.
    pub missing: Option<Reason>,
    /// What it publishes, with what nobody lends to it; empty when it publishes nothing.
    pub inbound: Vec<Inbound>,
    /// By node, in the order of names.
    pub reports: &'a [Report<'a>],
    /// Every node has had the time to report.
    pub settled: bool,
}

impl Case<'_> {
    pub fn status(self, now: Timestamp) -> EgressBindingStatus {
        let resolved = self.resolved();
        let programmed = self.programmed(&resolved);
        let reports = self.spoken().map(|(_, report)| report);
        let summary = reports.filter(|report| report.workloads > 0).fold(Summary::default(), |sum, report| Summary {
            nodes: sum.nodes + 1,
            workloads: sum.workloads + report.workloads,
            programmed: sum.programmed + report.programmed,
            failing: sum.failing + report.failing,
        });
        let exits: Vec<String> = match &self.exits {
            Ok(exits) => exits.iter().map(|exit| exit.address.to_string()).collect(),
            Err(_) => self.kept.iter().map(ToString::to_string).collect(),
        };
        let published = self.published().map(|verdict| (PUBLISHED, verdict));
        let verdicts =
            [(ACCEPTED, self.accepted.clone()), (RESOLVED, resolved)].into_iter().chain(published).chain([(PROGRAMMED, programmed)]);
        EgressBindingStatus {
            observed_generation: Some(self.generation),
            conditions: conditions(verdicts, self.generation, self.before, now),
            failing_nodes: self.failing().take(MAX_NODES).map(|(node, report)| failing_node(node, report)).collect(),
            services: self.services().take(MAX_SERVICES).collect(),
            pool: self.pool.filter(|_| !exits.is_empty()),
            exits,
            summary,
        }
    }

    /// The ports that are served.
    fn services(&self) -> impl Iterator<Item = PublishedPort> {
        let all = self.spoken().flat_map(|(node, report)| report.services.iter().map(move |service| (node, service)));
        all.map(|(node, NodeService { service, servers, ready })| PublishedPort {
            service: service.clone(),
            node: node.to_owned(),
            servers: *servers,
            ready: *ready,
        })
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.status == "True"
    }

    fn resolved(&self) -> Verdict {
        match (&self.exits, &self.missing) {
            _ if !self.is_accepted() => Verdict::pending("the binding is not accepted".to_owned()),
            (_, Some(reason)) | (Err(reason), None) => Verdict::because(reason),
            (Ok(_), None) => Verdict::yes(RESOLVED, "all references are resolved".to_owned()),
        }
    }

    fn programmed(&self, resolved: &Verdict) -> Verdict {
        if !self.is_accepted() {
            return self.accepted.clone();
        }
        if self.exits.is_err() {
            return resolved.clone();
        }
        let sum = |of: fn(&NodeBinding) -> i64| self.spoken().map(|(_, report)| of(report)).sum::<i64>();
        let (workloads, programmed) = (sum(|report| report.workloads), sum(|report| report.programmed));
        if let Some((node, report)) = self.failing().find(|(_, report)| !self.is_behind(report)) {
            let FailingNode { reason, message, .. } = failing_node(node, report);
            let (failing, nodes) = (sum(|report| report.failing), self.failing().count());
            let text = format!(
                "{failing} of {} {} no usable exit, on {}; {node}: {message}",
                count(workloads, "workload"),
                verb(workloads, "has", "have"),
                count(nodes, "node")
            );
            return Verdict::no(&reason, text);
        }
        let mut silent = self.reports.iter().filter(|report| report.silent && report.binding.workloads > 0).map(|report| report.node);
        if let Some(first) = silent.next() {
            let nodes = nodes(silent.count() + 1, first);
            let text = format!("no report from {nodes} with pods of this binding; check the agent's pod and log there");
            return Verdict::unknown(AGENT_SILENT, text);
        }
        let mut behind = self.spoken().filter(|(_, report)| self.is_behind(report)).map(|(node, _)| node);
        if let Some(first) = behind.next() {
            let nodes = nodes(behind.count() + 1, first);
            return Verdict::pending(format!("waiting for {nodes} to report on the binding's current generation"));
        }
        match (workloads, programmed) {
            (0, _) if let Some((word, message)) = self.overlap() => {
                Verdict::no(word, format!("another binding takes precedence: {message}"))
            }
            (0, _) if self.settled || self.stood() => Verdict::yes(NO_WORKLOADS, "no pods match".to_owned()),
            (0, _) => Verdict::pending("no node has reported on this binding yet".to_owned()),
            (_, 0) => Verdict::pending(format!(
                "{} {} waiting for an address, or for an interface that has it",
                count(workloads, "pod"),
                verb(workloads, "is", "are")
            )),
            (all, some) if all == some => Verdict::yes(PROGRAMMED, "all its workloads leave through its exits".to_owned()),
            (all, some) => Verdict::yes(
                PROGRAMMED,
                format!("{some} of {} leave through its exits; the others are waiting for an address", count(all, "workload")),
            ),
        }
    }

    fn failing(&self) -> impl Iterator<Item = (&str, &NodeBinding)> {
        self.spoken().filter(|(_, report)| report.failing > 0)
    }

    /// What is said by nodes whose word counts.
    pub(super) fn spoken(&self) -> impl Iterator<Item = (&str, &NodeBinding)> {
        self.reports.iter().filter(|report| !report.silent).map(|report| (report.node, report.binding))
    }

    /// What the first node says on whose pods are another binding's.
    fn overlap(&self) -> Option<(&'static str, &str)> {
        let word = Reason::Overlap { with: String::new() }.word();
        let report = self.spoken().find(|(_, report)| report.reason.as_deref() == Some(word));
        report.map(|(_, report)| (word, report.message.as_deref().unwrap_or_default()))
    }

    /// The node speaks of an earlier generation, or has not heard yet which addresses the binding was given.
    pub(super) fn is_behind(&self, report: &NodeBinding) -> bool {
        let waits = report.reason.as_deref() == Some(Reason::NotAllocated { pool: String::new() }.word());
        report.generation != self.generation || (waits && self.exits.is_ok())
    }

    /// It was in order before, as it is written now.
    fn stood(&self) -> bool {
        find(self.before, PROGRAMMED).is_some_and(|c| c.status == "True" && c.observed_generation == Some(self.generation))
    }
}

fn failing_node(node: &str, report: &NodeBinding) -> FailingNode {
    FailingNode {
        node: node.to_owned(),
        failing: report.failing,
        // An older agent may not say why.
        reason: report.reason.clone().unwrap_or_else(|| "Unknown".to_owned()),
        message: report.message.clone().unwrap_or_default(),
    }
}
