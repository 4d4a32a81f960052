//! The report as a table for a terminal.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;

use super::columns::{columns, list, or_dash};
use super::services;
use super::status::{BindingStatus, Status, Workload};

/// Lines that are said of the exits of one binding.
const MANY: usize = 8;

/// Lines of text below a table, after a blank one.
pub(super) fn below(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!("\n{}\n", notes.join("\n")) }
}

/// `egressd status` without `-o json`. `now`: what SINCE counts from; `wide`: each exit of several, not only the first.
pub fn render(status: &Status, now: Timestamp, wide: bool) -> String {
    let header = ["WORKLOAD", "NETWORK", "ADDRESS", "BINDING", "EXIT", "PUBLIC", "NIC", "GATEWAY", "STATE", "SINCE", "FLOWS", "REASON"];
    let table = match status.workloads.as_slice() {
        [] => "No workload is bound.\n".to_owned(),
        workloads => columns(header, workloads.iter().map(|workload| row(workload, now, wide))),
    };
    table + &services::render(&status.services) + &below(&notes(status))
}

fn row(w: &Workload, now: Timestamp, wide: bool) -> [String; 12] {
    let network = w.network.clone().map(|n| if w.default_route { format!("{n}*") } else { n });
    [
        w.workload.clone(),
        or_dash(network),
        or_dash(w.address.clone()),
        or_dash(w.binding.clone()),
        or_dash(w.exit.map(|first| if wide { all_exits(first, w) } else { exits(first, &w.exits) })),
        or_dash(if wide && !w.exits.is_empty() { all_public(w) } else { w.public_address.map(|public| public.to_string()) }),
        or_dash(w.nic.clone()),
        or_dash(w.gateway),
        w.state.clone(),
        or_dash(w.since.as_deref().and_then(|since| since.parse().ok()).map(|since| age(since, now))),
        if is_everybodys(w) { "-".to_owned() } else { w.flows.to_string() },
        or_dash(w.reason.clone()),
    ]
}

/// A table's text with the words of its STATE column coloured, for a terminal (SGR of ECMA-48): what works green, what is dropped red, what is
/// neither yellow.
pub fn coloured(table: &str) -> String {
    let column = table.lines().next().and_then(|header| header.find("STATE"));
    let mut in_table = column.is_some();
    let lines = table.split_inclusive('\n').map(|line| {
        // Sentences follow after a blank line.
        in_table &= line != "\n";
        let Some((before, rest)) = column.filter(|_| in_table).and_then(|column| line.split_at_checked(column)) else {
            return line.to_owned();
        };
        let (word, after) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        let colour = match word {
            "Bound" => 32,
            "Dropped" | "Refused" => 31,
            "Fallback" | "Waiting" => 33,
            _ => return line.to_owned(),
        };
        format!("{before}\x1b[{colour}m{word}\x1b[0m{after}")
    });
    lines.collect()
}

/// The first exit, and how many others.
fn exits(first: IpAddr, all: &[IpAddr]) -> String {
    match all.len() {
        0 | 1 => first.to_string(),
        several => format!("{first} +{}", several - 1),
    }
}

/// All exits, each with its weight, and how new flows are spread over them; then those that drain.
fn all_exits(first: IpAddr, w: &Workload) -> String {
    let weighted = |exit: &IpAddr| match w.weights.get(exit) {
        Some(weight) => format!("{exit}*{weight}"),
        None => exit.to_string(),
    };
    let spread = w.spread.as_ref().map_or_else(String::new, |spread| format!(" ({spread})"));
    let taken = match w.exits.as_slice() {
        [] | [_] => first.to_string(),
        several => several.iter().map(weighted).collect::<Vec<_>>().join(",") + &spread,
    };
    w.draining.iter().fold(taken, |all, exit| format!("{all},{exit} (draining)"))
}

/// What the outside sees of each exit, in their order; nothing where nobody says it of any.
fn all_public(w: &Workload) -> Option<String> {
    let all = w.exits.iter().map(|exit| or_dash(w.public_addresses.get(exit)));
    (!w.public_addresses.is_empty()).then(|| all.collect::<Vec<_>>().join(","))
}

/// Programs of the host, whose source tells nobody which flows are theirs.
fn is_everybodys(w: &Workload) -> bool {
    w.address.as_deref().is_some_and(|address| address.ends_with("/0"))
}

/// How long ago, in the two largest units, as kubectl's AGE.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |whole: String, rest: i64, unit: &str| if rest == 0 { whole } else { format!("{whole}{rest}{unit}") };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => with(format!("{minutes}m"), seconds % 60, "s"),
        (0, ..) => with(format!("{hours}h"), minutes % 60, "m"),
        _ => with(format!("{days}d"), hours % 24, "h"),
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
        // `egressd exec --ip` asks for one address, and for nothing of the other family.
        let asked = !(w.is_of_exec() && w.reason.as_deref() == Some("NoExitInFamily"));
        notes.extend(w.message.iter().filter(|_| asked).map(|m| format!("{who}: {m}")));
        if !w.dropped.is_empty() {
            notes.push(format!("{who}: packets dropped: {}", list(&w.dropped)));
        }
        notes.extend(
            w.also_asked_by
                .iter()
                .map(|b| format!("{who}: {b} asks for it too, but {} takes precedence", w.binding.as_deref().unwrap_or("-"))),
        );
        notes.extend(w.warnings.iter().map(|m| format!("{who}: {m}")));
    }
    // A row that waits for whom it is for tells that, and nothing of what its binding has wrong besides.
    let told: BTreeSet<&str> = status.workloads.iter().filter_map(|w| w.message.as_deref()).collect();
    for b in &status.bindings {
        notes.extend(b.errors.iter().filter(|error| !told.contains(error.as_str())).map(|e| format!("{}: {e}", b.binding)));
        let nobody = b
            .fits_nobody
            .iter()
            .map(|demands| format!("{}: its containerSelector matches no container of this host ({demands})", b.binding));
        notes.extend(nobody);
        notes.extend(lost_exits(b));
    }
    let dropped: Vec<_> = status.dropped.iter().filter(|d| d.packets > 0).collect();
    if !dropped.is_empty() {
        notes.push(format!("packets dropped: {}", list(&dropped)));
    }
    notes.extend(status.fast_path.iter().map(|state| format!("fast path: {state}")));
    notes.extend(status.problems.iter().cloned());
    notes.dedup();
    notes
}

/// What is said of a binding's exits that are not used: of many the first ones.
fn lost_exits(b: &BindingStatus) -> impl Iterator<Item = String> + '_ {
    let told = b.lost_exits.iter().take(MANY).map(|lost| format!("{}: exit {} is not used: {}", b.binding, lost.exits, lost.message));
    let more = b.lost_exits.len().checked_sub(MANY).filter(|more| *more > 0);
    told.chain(more.map(|more| format!("{}: {more} more exits are not used, see `egressd status -o json`", b.binding)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_coloured_in_their_column_alone() {
        let table = "WORKLOAD  STATE    REASON\nBound     Dropped  X\nweb       Bound    -\nother     Unbound  -\n\nBound     Bound\n";
        let shown = coloured(table);
        let expected = "WORKLOAD  STATE    REASON\nBound     \x1b[31mDropped\x1b[0m  X\nweb       \x1b[32mBound\x1b[0m    -\nother     Unbound  -\n\nBound     Bound\n";
        assert_eq!(shown, expected);
        assert_eq!(coloured("No workload is bound.\n"), "No workload is bound.\n");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        let age_of = |seconds| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        let shown = [0, 59, 60, 61, 3600, 3661, 86_400, 90_061, -5].map(age_of);
        assert_eq!(shown, ["0s", "59s", "1m", "1m1s", "1h", "1h1m", "1d", "1d1h", "0s"], "a clock that was set back is no age");
    }
}
