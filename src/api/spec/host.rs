//! Which of the host's programs are meant.

use super::super::binding::HostSelector;
use super::super::values::{Fault, Faults, MAX_ITEMS, shown};
use super::take;
use crate::model::binding::{HostSelector as Programs, Selector};

/// Kinds of systemd units that have a control group.
const KINDS: [&str; 5] = ["service", "slice", "scope", "socket", "mount"];
/// Those of them whose templates have instances with one.
const TEMPLATES: [&str; 2] = ["service", "socket"];
/// Levels of a control group below the root. nf_tables looks at 255 at most, those above a container's own root among them.
const DEEPEST: usize = 128;

pub(super) fn programs(selector: &HostSelector, faults: &mut Faults) -> Option<Selector> {
    let HostSelector { all, users, cgroups, systemd_units } = selector;
    let mut good = Programs { all: *all, ..Programs::default() };
    let field = |list: &str, at: usize| format!("spec.hostSelector.{list}[{at}]");
    for (at, text) in users.iter().enumerate().take(MAX_ITEMS) {
        take(faults, || field("users", at), "crawler", user(text), &mut good.users);
    }
    for (at, text) in cgroups.iter().enumerate().take(MAX_ITEMS) {
        take(faults, || field("cgroups", at), "/jobs/batch", cgroup(text), &mut good.cgroups);
    }
    for (at, text) in systemd_units.iter().enumerate().take(MAX_ITEMS) {
        take(faults, || field("systemdUnits", at), "crawler.service", unit(text), &mut good.units);
    }
    match (users.is_empty() && cgroups.is_empty() && systemd_units.is_empty(), all) {
        (true, false) => faults.push("spec.hostSelector", || {
            "is empty; give `users`, `cgroups` or `systemdUnits`, or `all: true` for every program of the host".to_owned()
        }),
        (false, true) => faults.push("spec.hostSelector.all", || {
            "is for every program that no other binding names; remove it, or the others, and write a binding for each".to_owned()
        }),
        _ => {}
    }
    (good != Programs::default()).then_some(Selector::Host(good))
}

fn user(text: &str) -> Result<String, Fault> {
    let wrong = text.is_empty() || text.contains([':', '/']) || text.chars().any(|c| c.is_whitespace() || c.is_control());
    if wrong { Err(Fault::new(format!("{} is not a user's name or number", shown(text)))) } else { Ok(text.to_owned()) }
}

fn cgroup(text: &str) -> Result<String, Fault> {
    let path = text.trim_end_matches('/');
    let Some(below) = path.strip_prefix('/') else {
        let wrong = if text.starts_with('/') {
            "is the root; for every program of the host write `all: true`"
        } else {
            "is not a path below the root"
        };
        return Err(Fault::new(format!("{} {wrong}", shown(text))));
    };
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) || below.contains(char::is_control) {
        return Err(Fault::new(format!("{} is not a path of a control group", shown(text))));
    }
    if below.split('/').count() > DEEPEST {
        return Err(Fault::new(format!("{} is more than {DEEPEST} levels below the root", shown(text)))
            .cure("name a control group above it, which is for all below"));
    }
    if ["/sys/fs/cgroup/", "/proc/"].iter().any(|mount| path.starts_with(mount)) {
        return Err(Fault::new(format!("{} is where the hierarchy is mounted", shown(text)))
            .cure("write what comes below it, as /proc/PID/cgroup has it"));
    }
    Ok(path.to_owned())
}

fn unit(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::new(format!("{} is not the whole name of a unit", shown(text)));
    let (name, kind) = text.rsplit_once('.').ok_or_else(wrong)?;
    // Of these systemd has no templates.
    let template = name.ends_with('@') && !TEMPLATES.contains(&kind);
    let named = !name.is_empty()
        && !name.starts_with('@')
        && !template
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if named && KINDS.contains(&kind) && text != "-.slice" { Ok(text.to_owned()) } else { Err(wrong()) }
}
