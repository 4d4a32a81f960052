//! What Prometheus advises of names, units and help of metrics, as `promtool check metrics` has it, for all that this program tells.

use std::collections::{BTreeMap, BTreeSet};

/// Units that have a base unit: `_seconds` and `_bytes` are told instead.
const UNITS: [&str; 22] = [
    "b",
    "bits",
    "d",
    "days",
    "gb",
    "gigabytes",
    "h",
    "hours",
    "kb",
    "kilobytes",
    "m",
    "mb",
    "megabytes",
    "microseconds",
    "milliseconds",
    "minutes",
    "ms",
    "nanoseconds",
    "ns",
    "s",
    "sec",
    "us",
];
const KINDS: [&str; 5] = ["counter", "gauge", "histogram", "info", "summary"];
/// Ends of names that say of which kind a metric is.
const ENDS: [(&str, &str); 5] =
    [("_total", "counter"), ("_bucket", "histogram"), ("_count", "histogram"), ("_sum", "histogram"), ("_info", "info")];

/// A line of a value: its name, its labels and their values.
pub(crate) fn sample(line: &str) -> (&str, Vec<(&str, &str)>) {
    let (series, _) = line.rsplit_once(' ').unwrap_or((line, ""));
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    (name, labels.trim_end_matches("\"}").split("\",").filter_map(|label| label.split_once("=\"")).collect())
}

fn is_snake_case(name: &str) -> bool {
    let words = name.split('_').all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    words && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// What is wrong with a metric as a whole.
fn of_metric(name: &str, kind: &str, help: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |is_wrong: bool, what: &str| {
        if is_wrong {
            wrong.push(format!("{name}: {what}"));
        }
    };
    check(!name.starts_with("egressd_"), "does not begin with the program's name");
    check(!is_snake_case(name), "is not written in snake_case");
    check(help.trim_matches(['.', ' ']).is_empty(), "has no help");
    check(!KINDS.contains(&kind), "has no type");
    check(name.split('_').any(|word| KINDS.contains(&word)), "has its type in its name");
    check(name.split('_').any(|word| UNITS.contains(&word)), "is not in seconds or bytes");
    check(ENDS.iter().any(|(end, _)| name.ends_with(end)), "has an end that its kind has to give it");
    wrong
}

/// What is wrong with a text of OpenMetrics.
pub(crate) fn lint(text: &str) -> Vec<String> {
    let (mut kinds, mut helps) = (BTreeMap::<&str, &str>::new(), BTreeMap::<&str, &str>::new());
    let (mut series, mut wrong) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        let described = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')).map(|(what, rest)| (what, rest.split_once(' ')));
        match described {
            Some(("HELP", Some((name, help)))) => _ = helps.insert(name, help),
            Some(("TYPE", Some((name, kind)))) => {
                if kinds.insert(name, kind).is_some() {
                    wrong.push(format!("{name}: is there twice"));
                }
            }
            _ if line.starts_with('#') => {}
            _ => {
                let (name, labels) = sample(line);
                let end = ENDS.iter().find(|(end, _)| name.ends_with(end));
                let base = end.and_then(|(end, _)| name.strip_suffix(end)).unwrap_or(name);
                let kind = kinds.get(base).copied().unwrap_or_default();
                // A counter's values end in `_total`, and so on: as its kind asks, or not at all.
                let expected = end.map_or(kind == "gauge", |(_, of)| *of == kind);
                if !expected {
                    wrong.push(format!("{name}: its type is \"{kind}\""));
                }
                let is_reserved = |label: &str| label == "quantile" || label == "le" && !name.ends_with("_bucket");
                let bad = labels.iter().map(|(label, _)| *label).filter(|label| !is_snake_case(label) || is_reserved(label));
                wrong.extend(bad.map(|label| format!("{name}: its label {label} is reserved, or not written in snake_case")));
                if !series.insert((name, labels)) {
                    wrong.push(format!("{line}: is there twice"));
                }
            }
        }
    }
    wrong.extend(kinds.iter().flat_map(|(name, kind)| of_metric(name, kind, helps.get(name).copied().unwrap_or_default())));
    wrong
}
