//! `kubectl egress explain`: which binding has a pod, what it gives it, and what the pod's node says of that.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::status::verdict;
use crate::api::binding::EgressBinding;
use crate::api::node::EgressNode;
use crate::api::object::{self, Lenient};
use crate::api::status::PublishedPort;
use crate::model::binding::Binding;
use crate::model::pod;
use crate::model::select::PodIndex;
use crate::model::served::refuse_host_network;

/// What becomes of a pod. `bindings` are those of its namespace; `node` is what its node reports, if it does.
pub fn explain(pod: &Pod, bindings: &[EgressBinding], node: Option<&EgressNode>) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut out, pod, bindings, node);
    out
}

fn write(out: &mut String, pod: &Pod, bindings: &[EgressBinding], node: Option<&EgressNode>) -> std::fmt::Result {
    let namespace = pod.namespace().unwrap_or_default();
    let status = pod.status.as_ref();
    let addresses: Vec<&str> =
        status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|address| address.ip.as_str()).collect();
    let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let addresses = if addresses.is_empty() { "no address yet".to_owned() } else { addresses.join(", ") };
    writeln!(out, "pod/{namespace}/{} ({addresses})", pod.name_any())?;

    let held = held(pod, bindings);
    let Some((winner, losers)) = held.split_first() else {
        writeln!(out, "  binding   none selects it: it uses its node's default route")?;
        let names: Vec<String> = bindings.iter().map(ResourceExt::name_any).collect();
        if !names.is_empty() {
            writeln!(out, "            (in {namespace} there are: {})", names.join(", "))?;
        }
        return Ok(());
    };
    writeln!(out, "  binding   {}", winner.name_any())?;
    for loser in losers {
        writeln!(
            out,
            "            {} selects it too, but this binding takes precedence (priority, then age, then name)",
            loser.name_any()
        )?;
    }
    if pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default() {
        return writeln!(out, "  refused   {}", refuse_host_network());
    }
    if let Some(phase) = status.and_then(|status| status.phase.as_deref()).filter(|phase| matches!(*phase, "Succeeded" | "Failed")) {
        return writeln!(out, "  over      it has {}; its address may belong to another pod by now", phase.to_lowercase());
    }
    if let Some(pool) = &winner.spec.pool {
        writeln!(out, "  pool      {}", pool.name)?;
    }
    let exits = winner.status.as_ref().map(|status| status.exits.as_slice()).unwrap_or_default();
    writeln!(out, "  exits     {}", if exits.is_empty() { "none".to_owned() } else { exits.join(", ") })?;
    match winner.status.as_ref().and_then(|status| verdict(&status.conditions)) {
        Some(condition) => writeln!(out, "  state     {}: {}", condition.reason, condition.message)?,
        None => writeln!(out, "  state     no agent has seen the binding yet; check that egressd runs in this cluster")?,
    }
    for port in winner.status.iter().flat_map(|status| &status.services) {
        let PublishedPort { service, node, servers, ready } = port;
        writeln!(out, "  serves    {service} on {node}, with {servers} pods, of which {ready} get new connections")?;
    }
    match (place, node) {
        (None, _) => writeln!(out, "  node      it is on no node yet"),
        (Some(place), None) => writeln!(out, "  node      {place} does not report; check that egressd runs there"),
        (Some(place), Some(node)) => on_node(out, place, node, winner, exits),
    }
}

fn on_node(out: &mut String, place: &str, node: &EgressNode, winner: &EgressBinding, exits: &[String]) -> std::fmt::Result {
    let spec = &node.spec;
    let exits: Vec<IpAddr> = exits.iter().filter_map(|exit| exit.parse().ok()).collect();
    let mut nics = Vec::new();
    for nic in &spec.nics {
        let state = if nic.up { "" } else { ", which is down" };
        nics.extend(exits.iter().filter(|exit| nic.addresses.contains(exit)).map(|exit| format!("{exit} on {}{state}", nic.name)));
    }
    let held = if nics.is_empty() { "has none of the exits".to_owned() } else { format!("holds {}", nics.join(", ")) };
    writeln!(out, "  node      {place} {held}")?;
    let report = spec.bindings.iter().find(|b| Some(&b.namespace) == winner.namespace().as_ref() && b.name == winner.name_any());
    let Some(report) = report else {
        return writeln!(out, "            it has reported no workload of the binding yet");
    };
    if Some(report.generation) != winner.metadata.generation {
        writeln!(out, "            its report is about an earlier generation of the binding")?;
    }
    writeln!(out, "            workloads of the binding there that leave through an exit: {} of {}", report.programmed, report.workloads)?;
    if let (Some(reason), Some(message)) = (&report.reason, &report.message) {
        writeln!(out, "            {} do not: {reason}: {message}", report.failing)?;
    }
    Ok(())
}

/// The bindings that select a pod, the winner first.
fn held<'a>(pod: &Pod, bindings: &'a [EgressBinding]) -> Vec<&'a EgressBinding> {
    let read = bindings.iter().filter_map(|binding| object::binding(&Lenient { object: binding.clone(), unread: Vec::new() }).ok());
    let index = PodIndex::new(read.map(|api| Binding::clone(&api.binding)).collect());
    let namespace = pod.namespace().unwrap_or_default();
    let subject = pod::Pod { namespace: namespace.clone(), labels: pod.labels().clone(), ..pod::Pod::default() };
    let named = |name: &str| bindings.iter().find(|binding| format!("{namespace}/{}", binding.name_any()) == name);
    index.of(&subject).iter().filter_map(|held| named(&held.name.name)).collect()
}
