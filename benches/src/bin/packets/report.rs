//! What was measured, as a page and as raw values.

use std::{collections::BTreeMap, fmt::Write, fs};

use world::command;

use crate::{
    Metric, Sample, WORKLOADS,
    control::Control,
    stats,
    way::{EGRESSD, PASSES, PLAIN, Way},
};

const HOW: &str = include_str!("how.md");

/// One line for each value: round, way, metric, value.
pub fn csv(samples: &[Sample]) -> String {
    let mut text = String::from("round,way,metric,value\n");
    for Sample { round, way, metric, value } in samples {
        writeln!(text, "{round},\"{way}\",\"{}\",{value:.1}", metric.name()).expect("a String takes all");
    }
    text
}

/// docs/benchmarks.md.
pub fn page(ways: &[Way], samples: &[Sample], rounds: usize, control: &Control) -> String {
    let mut text = String::from("<!-- Written by `make bench`. -->\n# Benchmarks\n\n");
    writeln!(text, "{}, {rounds} rounds, {WORKLOADS} bound workloads. {}\n", machine(), load()).expect("a String takes all");
    text.push_str("## Packets\n\n| egressd | ratio to masquerade [95 % interval] | goal | verdict |\n|---|---|---|---|\n");
    for metric in Metric::ALL {
        let (middle, low, high) = stats::interval(&ratios(samples, EGRESSD, PLAIN, metric));
        let (goal, cost) = goal(metric);
        let reached = if cost { high <= goal } else { low >= goal };
        let missed = if cost { low > goal } else { high < goal };
        let verdict = if reached {
            "reached"
        } else if missed {
            "**missed**"
        } else {
            "not shown"
        };
        let sign = if cost { "<=" } else { ">=" };
        writeln!(text, "| {} | {middle:.3} [{low:.3}, {high:.3}] | {sign} {goal} | {verdict} |", metric.name())
            .expect("a String takes all");
    }
    text.push_str("\nAll that stood side by side; in brackets the 95 % interval:\n\n| | ");
    text.push_str(&Metric::ALL.map(Metric::name).join(" | "));
    text.push_str(" |\n|---|---|---|---|---|\n");
    for way in ways {
        write!(text, "| {} |", way.name).expect("a String takes all");
        for metric in Metric::ALL {
            let mut values: Vec<f64> = by_round(samples, way.name, metric).into_values().collect();
            if values.is_empty() {
                text.push_str(" |");
                continue;
            }
            let base = if way.name == "egressd, each source in turn" { "masquerade, each source in turn" } else { PLAIN };
            let (middle, low, high) = stats::interval(&ratios(samples, way.name, base, metric));
            write!(text, " {} = {middle:.3} [{low:.3}, {high:.3}] |", short(stats::median(&mut values))).expect("a String takes all");
        }
        text.push('\n');
    }
    text.push_str("\n## Control plane\n\n| | measured | goal | verdict |\n|---|---|---|---|\n");
    for (what, measured, unit, goal) in lines(control) {
        let verdict = match goal {
            Some(goal) if measured <= goal => "reached",
            Some(_) => "**missed**",
            None => "",
        };
        let goal = goal.map_or(String::new(), |goal| format!("<= {goal} {unit}"));
        writeln!(text, "| {what} | {measured:.1} {unit} | {goal} | {verdict} |").expect("a String takes all");
    }
    text.push('\n');
    text + &HOW.replace("{PASSES}", &PASSES.to_string())
}

fn lines(control: &Control) -> [(&'static str, f64, &'static str, Option<f64>); 9] {
    let mut sorted = control.changes.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied();
    let at = |share| at(share).expect("addresses came");
    [
        ("Start to ready, with all to be programmed", control.start, "ms", None),
        ("The round that programs all", control.load, "ms", Some(100.0)),
        ("An address comes: the daemon's round until the kernel has it, median", at(0.5), "ms", None),
        ("the same, 99th percentile", at(0.99), "ms", Some(5.0)),
        ("the same, longest", at(1.0), "ms", None),
        ("Killed and started again: to ready", control.restart, "ms", Some(200.0)),
        ("Changes that it makes then", control.restart_changes as f64, "", Some(0.0)),
        ("Resident memory (VmRSS)", control.resident, "MiB", Some(25.0)),
        ("Peak of it (VmHWM)", control.peak, "MiB", None),
    ]
}

fn goal(metric: Metric) -> (f64, bool) {
    match metric {
        Metric::New => (1.05, true),
        Metric::Established => (1.08, true),
        Metric::Throughput | Metric::Connections => (0.98, false),
    }
}

fn by_round(samples: &[Sample], way: &str, metric: Metric) -> BTreeMap<usize, f64> {
    samples.iter().filter(|s| s.way == way && s.metric == metric).map(|s| (s.round, s.value)).collect()
}

/// Of the same round.
fn ratios(samples: &[Sample], way: &str, base: &str, metric: Metric) -> Vec<f64> {
    let base = by_round(samples, base, metric);
    by_round(samples, way, metric).into_iter().map(|(round, value)| value / base[&round]).collect()
}

fn short(value: f64) -> String {
    match value {
        1e9.. => format!("{:.1} G", value / 1e9),
        1e6.. => format!("{:.0} M", value / 1e6),
        _ => format!("{value:.0}"),
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).map_or("", |rest| rest.trim_start_matches(['\t', ':', ' ']));
    let cores = cpu.matches("processor\t").count();
    let version = |arguments: &[&str]| command::run(arguments).trim().to_owned();
    format!(
        "{model} ({cores} virtual cores), Linux {}, {}, {}",
        version(&["uname", "-r"]),
        version(&["nft", "-v"]),
        version(&["iptables", "-V"])
    )
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("Load average at the end: {}.", text.split(' ').take(3).collect::<Vec<_>>().join(", "))
}
