//! `kubectl egress status`: every binding with its exits, how many of its workloads leave by them, and why not all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;

use super::super::columns::columns;
use super::super::fold::READY;
use super::super::table::below;
use super::cell;
use crate::api::binding::EgressBinding;
use crate::api::status::EgressBindingStatus;

/// A binding as `-o json` and `-o yaml` have it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding<'a> {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a EgressBindingStatus>,
}

/// For machines: a list of bindings with their status.
pub fn listed(bindings: &[EgressBinding]) -> impl Serialize {
    let bindings = sorted(bindings).into_iter().map(|binding| Binding {
        namespace: binding.namespace().unwrap_or_default(),
        name: binding.name_any(),
        pool: pool(binding),
        status: binding.status.as_ref(),
    });
    bindings.collect::<Vec<_>>()
}

/// For people: a table, and sentences with cures below it.
pub fn status(bindings: &[EgressBinding]) -> String {
    if bindings.is_empty() {
        return "No EgressBinding found.\n".to_owned();
    }
    let bindings = sorted(bindings);
    let header = ["NAMESPACE", "NAME", "POOL", "EXITS", "NODES", "WORKLOADS", "PROGRAMMED", "FAILING", "STATE"];
    let table = columns(header, bindings.iter().map(|binding| row(binding)));
    table + &below(&bindings.iter().flat_map(|binding| notes(binding)).collect::<Vec<_>>())
}

fn sorted(bindings: &[EgressBinding]) -> Vec<&EgressBinding> {
    let mut sorted: Vec<&EgressBinding> = bindings.iter().collect();
    sorted.sort_by_key(|binding| (binding.namespace(), binding.name_any()));
    sorted
}

fn pool(binding: &EgressBinding) -> Option<&str> {
    binding.spec.pool.as_ref().map(|pool| pool.name.as_str())
}

fn row(binding: &EgressBinding) -> [String; 9] {
    let status = binding.status.clone().unwrap_or_default();
    let state = verdict(&status.conditions).map_or("Unknown", |condition| &condition.reason);
    [
        binding.namespace().unwrap_or_default(),
        binding.name_any(),
        cell(pool(binding)),
        cell(&status.exits),
        status.summary.nodes.to_string(),
        status.summary.workloads.to_string(),
        status.summary.programmed.to_string(),
        status.summary.failing.to_string(),
        state.to_owned(),
    ]
}

/// What all conditions come to.
pub(super) fn verdict(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == READY)
}

fn notes(binding: &EgressBinding) -> Vec<String> {
    let name = format!("{}/{}", binding.namespace().unwrap_or_default(), binding.name_any());
    let Some(status) = &binding.status else {
        return vec![format!("{name}: no agent has seen it yet; check that egressd runs in this cluster")];
    };
    let mut notes = Vec::new();
    if let Some(condition) = verdict(&status.conditions).filter(|condition| condition.status != "True") {
        notes.push(format!("{name}: {}", condition.message));
    }
    if status.observed_generation != binding.metadata.generation {
        notes.push(format!("{name}: this is about an earlier generation of the binding; no agent has seen the current one"));
    }
    notes.extend(status.failing_nodes.iter().map(|node| format!("{name}: {} failing on {}: {}", node.failing, node.node, node.message)));
    notes
}
