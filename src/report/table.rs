//! The report as a table for a terminal.

use comfy_table::{ContentArrangement, Table, presets};

use super::status::{Status, Workload};

/// `egressd status` without `-o json`.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["WORKLOAD", "NETWORK", "ADDRESS", "BINDING", "EXIT", "NIC", "GATEWAY", "STATE", "FLOWS", "REASON"]);
    for w in &status.workloads {
        table.add_row(row(w));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if status.workloads.is_empty() {
        out.push_str("No workload is bound.\n");
    } else {
        for line in table.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    let notes = notes(status);
    if !notes.is_empty() {
        out.push('\n');
        for note in notes {
            out.push_str(&note);
            out.push('\n');
        }
    }
    out
}

fn row(w: &Workload) -> [String; 10] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let network = w.network.clone().map(|n| if w.default_route { format!("{n}*") } else { n });
    [
        w.workload.clone(),
        or_dash(network),
        or_dash(w.address.clone()),
        or_dash(w.binding.clone()),
        or_dash(w.exit.map(|e| e.to_string())),
        or_dash(w.nic.clone()),
        or_dash(w.gateway.map(|g| g.to_string())),
        w.state.clone(),
        w.flows.to_string(),
        or_dash(w.reason.clone()),
    ]
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
    notes.extend(status.problems.iter().cloned());
    notes.dedup();
    notes
}
