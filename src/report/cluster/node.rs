//! `kubectl egress node`: what a node has, and what became of each binding there.

use kube::ResourceExt;

use super::super::columns::columns;
use super::super::table::below;
use super::cell;
use crate::api::node::EgressNode;

/// A node's report in words.
pub fn node(node: &EgressNode) -> String {
    let spec = &node.spec;
    let mut out = format!("{} (egressd {}): {} workloads bound, {} failing\n", node.name_any(), spec.version, spec.bound, spec.failing);
    if !spec.nics.is_empty() {
        out.push('\n');
        out.push_str(&columns(
            ["NIC", "STATE", "ADDRESSES", "GATEWAYS", "EXITS IN USE"],
            spec.nics.iter().map(|nic| {
                let state = if nic.up { "Up" } else { "Down" };
                [nic.name.clone(), state.to_owned(), cell(&nic.addresses), cell(&nic.gateways), cell(&nic.exits)]
            }),
        ));
    }
    if !spec.bindings.is_empty() {
        out.push('\n');
        out.push_str(&columns(
            ["NAMESPACE", "BINDING", "WORKLOADS", "PROGRAMMED", "FAILING", "REASON"],
            spec.bindings.iter().map(|b| {
                let counts = [b.workloads, b.programmed, b.failing].map(|count| count.to_string());
                let [workloads, programmed, failing] = counts;
                [b.namespace.clone(), b.name.clone(), workloads, programmed, failing, cell(&b.reason)]
            }),
        ));
    }
    let services: Vec<_> = spec.bindings.iter().flat_map(|b| b.services.iter().map(move |service| (b, service))).collect();
    if !services.is_empty() {
        out.push('\n');
        out.push_str(&columns(
            ["SERVICE", "NAMESPACE", "BINDING", "SERVERS", "READY"],
            services.into_iter().map(|(b, service)| {
                let counts = [service.servers, service.ready].map(|count| count.to_string());
                let [servers, ready] = counts;
                [service.service.clone(), b.namespace.clone(), b.name.clone(), servers, ready]
            }),
        ));
    }
    let reasons = spec.bindings.iter().flat_map(|b| {
        let told = b.message.iter().chain(b.unserved.iter().map(|unserved| &unserved.message));
        told.map(move |message| format!("{}/{}: {message}", b.namespace, b.name))
    });
    out + &below(&reasons.chain(spec.problems.iter().cloned()).collect::<Vec<_>>())
}
