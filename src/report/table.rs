//! The report as a table for a terminal.

use std::net::IpAddr;

use super::columns::columns;
use super::services;
use super::status::{Status, Workload};

/// Lines of text below a table, after a blank one.
pub(super) fn below(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!("\n{}\n", notes.join("\n")) }
}

/// `egressd status` without `-o json`.
pub fn render(status: &Status) -> String {
    let header = ["WORKLOAD", "NETWORK", "ADDRESS", "BINDING", "EXIT", "PUBLIC", "NIC", "GATEWAY", "STATE", "FLOWS", "REASON"];
    let table = match status.workloads.as_slice() {
        [] => "No workload is bound.\n".to_owned(),
        workloads => columns(header, workloads.iter().map(row)),
    };
    table + &services::render(&status.services) + &below(&notes(status))
}

fn row(w: &Workload) -> [String; 11] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let network = w.network.clone().map(|n| if w.default_route { format!("{n}*") } else { n });
    [
        w.workload.clone(),
        or_dash(network),
        or_dash(w.address.clone()),
        or_dash(w.binding.clone()),
        or_dash(w.exit.map(|first| exits(first, &w.exits))),
        or_dash(w.public_address.map(|public| public.to_string())),
        or_dash(w.nic.clone()),
        or_dash(w.gateway.map(|g| g.to_string())),
        w.state.clone(),
        w.flows.to_string(),
        or_dash(w.reason.clone()),
    ]
}

/// The first exit, and how many others.
fn exits(first: IpAddr, all: &[IpAddr]) -> String {
    match all.len() {
        0 | 1 => first.to_string(),
        several => format!("{first} +{}", several - 1),
    }
}

/// What does not fit into a cell: sentences with cures, losers, warnings.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    for w in &status.workloads {
        let who = match &w.address {
            Some(address) if *address != w.workload => format!("{} ({address})", w.workload),
            _ => w.workload.clone(),
        };
        notes.extend(w.message.iter().map(|m| format!("{who}: {m}")));
        notes.extend(
            w.also_asked_by
                .iter()
                .map(|b| format!("{who}: {b} asked for it too, and {} takes precedence", w.binding.as_deref().unwrap_or("-"))),
        );
        notes.extend(w.warnings.iter().map(|m| format!("{who}: {m}")));
    }
    for b in status.bindings.iter().filter(|b| b.workloads == 0) {
        notes.extend(b.errors.iter().map(|e| format!("{}: {e}", b.binding)));
    }
    let dropped: Vec<_> =
        status.dropped.iter().filter(|d| d.packets > 0).map(|d| format!("{} {} ({})", d.packets, d.reason, d.family)).collect();
    if !dropped.is_empty() {
        notes.push(format!("packets dropped: {}", dropped.join(", ")));
    }
    notes.extend(status.problems.iter().cloned());
    notes.dedup();
    notes
}
