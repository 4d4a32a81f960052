//! The units in `examples/systemd`, which packages and `egressd install` bring: they are never stopped for good, and have no more rights than the
//! page of security says.

use std::{collections::BTreeMap, fs};

use crate::{
    assert_none,
    page::{Page, root, text_of},
};

/// What each unit says to have fewer rights. `systemd-analyze security` counts them.
const HARDENED: [(&str, &str); 18] = [
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateMounts", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHome", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectSystem", "strict"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
    ("SystemCallFilter", "@system-service ~@privileged @resources"),
];

/// Settings by section and name. One that is there twice adds to itself, as lists do for systemd.
type Unit = BTreeMap<(String, String), String>;

fn read(text: &str) -> Unit {
    let (mut section, mut unit) = (String::new(), Unit::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}: is no setting"));
            let there = unit.entry((section.clone(), name.to_owned())).or_default();
            *there = format!("{there} {value}").trim().to_owned();
        }
    }
    unit
}

fn setting<'a>(unit: &'a Unit, section: &str, name: &str) -> Option<&'a str> {
    unit.get(&(section.to_owned(), name.to_owned())).map(String::as_str)
}

/// By name, without the ending.
fn units() -> BTreeMap<String, Unit> {
    let entries = fs::read_dir(root().join("examples/systemd")).expect("there are units");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let units: BTreeMap<_, _> =
        files.filter_map(|file| Some((file.file_name()?.to_str()?.strip_suffix(".service")?.to_owned(), read(&text_of(&file))))).collect();
    assert!(units.len() >= 4, "{:?}", units.keys());
    units
}

/// Why systemd would leave a unit stopped after some ends. One that runs once has nothing to be started again.
fn is_stopped_for_good(unit: &Unit) -> Option<&'static str> {
    let once = setting(unit, "Service", "Type") == Some("oneshot") && setting(unit, "Service", "RemainAfterExit") == Some("yes");
    if once {
        None
    } else if setting(unit, "Service", "Restart") != Some("always") {
        Some("[Service] needs Restart=always")
    } else if setting(unit, "Unit", "StartLimitIntervalSec") != Some("0") {
        Some("[Unit] needs StartLimitIntervalSec=0, or five quick ends stop it for good")
    } else {
        None
    }
}

#[test]
fn no_unit_is_ever_stopped_for_good() {
    let wrong = units().into_iter().filter_map(|(name, unit)| Some(format!("{name}: {}", is_stopped_for_good(&unit)?)));
    assert_none(&wrong.collect::<Vec<_>>());
    // systemd reads the limit in the first section alone.
    for text in ["[Service]\nRestart=always\nStartLimitIntervalSec=0\n", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=on-failure\n"]
    {
        assert!(is_stopped_for_good(&read(text)).is_some(), "{text}");
    }
}

#[test]
fn every_unit_gives_up_what_it_does_not_need() {
    let mut wrong = Vec::new();
    for (name, unit) in units() {
        let missing = HARDENED.iter().filter(|(setting_name, value)| setting(&unit, "Service", setting_name) != Some(value));
        wrong.extend(missing.map(|(setting, value)| format!("{name}: needs {setting}={value}")));
    }
    assert_none(&wrong);
}

#[test]
fn the_page_of_security_tells_each_units_capabilities() {
    let page = Page::read("docs/security.md");
    let mut wrong = Vec::new();
    for (name, unit) in units() {
        let command = setting(&unit, "Service", "ExecStart").and_then(|command| command.strip_prefix("/usr/local/sbin/"));
        let program = command.expect("it starts a program of ours").split(' ').take(2).collect::<Vec<_>>().join(" ");
        let bound = setting(&unit, "Service", "CapabilityBoundingSet").map(|all| all.split_whitespace().map(|one| format!("`{one}`")));
        let bound = bound.expect("it is bounded").collect::<Vec<_>>().join(", ");
        let row = format!("| `{program}` | {} |", if bound.is_empty() { "none" } else { &bound });
        if !page.prose().any(|(_, line)| line.starts_with(&row)) {
            wrong.push(format!("{name}: docs/security.md has no row that begins with {row}"));
        }
    }
    assert_none(&wrong);
}
