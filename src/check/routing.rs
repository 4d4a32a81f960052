//! Other programs' policy rules, routes and link groups where egressd has its own.

use super::facts::Facts;
use super::finding::Finding;
use crate::contract::{
    FLAG, NEIGHBOUR_MASK, PREFERENCE_FROM, PREFERENCE_FROM_DEFAULT, PREFERENCE_FROM_INSIDE, PREFERENCE_LOCAL, PREFERENCE_WAY, PROTOCOL,
    TABLE_BASE, TABLE_NODES, UPLINK_GROUP, WAY,
};
use crate::model::facts::{Family, LinkKind, Route, Rule};
use crate::model::uplinks::ahead::{PLACES, may_take};
use crate::plan::routing;
use crate::plan::step::{rule_words, table_name};

/// Bits of the packet mark that egressd writes.
const OURS: u32 = FLAG | WAY;

pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.rules.iter().filter(|r| !is_ours(r)).filter_map(|r| rule(r, &facts.routes)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("policy rules", "none stands before egressd's or reads its marks"));
    }
    let routes: Vec<_> = facts.routes.iter().filter_map(route).collect();
    if routes.is_empty() {
        findings.push(Finding::ok("route tables", format!("none but egressd's own routes in {TABLE_BASE} to {TABLE_NODES}")));
    }
    findings.extend(routes);
    findings.extend(groups(facts));
    findings
}

/// Those for our marks may stand elsewhere than usual, ahead of another program's.
fn is_ours(rule: &Rule) -> bool {
    let places = [PREFERENCE_LOCAL..=PREFERENCE_WAY, PREFERENCE_FROM..=PREFERENCE_FROM, PREFERENCE_FROM_INSIDE..=PREFERENCE_FROM_DEFAULT];
    let usual = places.iter().any(|own| own.contains(&rule.preference));
    rule.protocol == PROTOCOL && (usual || rule.mark.is_some_and(|mark| mark & FLAG != 0))
}

/// What, if anything, is the matter with somebody else's rule.
fn rule(rule: &Rule, routes: &[Route]) -> Option<Finding> {
    let subject = || format!("policy rule {}", written(rule));
    let preference = rule.preference;
    if rule.protocol == PROTOCOL {
        let message = format!("it has egressd's protocol number {PROTOCOL}: egressd takes it for a leftover of its own and deletes it");
        return Some(Finding::warn(subject(), message, "add it with another `protocol`"));
    }
    let ahead = preference <= PREFERENCE_WAY;
    let (mark, mask) = rule.selected_mark();
    let reads_ours = mask & OURS != 0 && !rule.not;
    if ahead && !reads_ours && may_take(rule, routes) {
        return Some(if preference < PLACES {
            let message = "it leaves no place before it for egressd's rules, and matches packets that they should";
            Finding::fail(subject(), message, format!("give it a preference of {PLACES} or more"))
        } else {
            Finding::ok(subject(), "egressd puts its rules for bound packets ahead of it")
        });
    }
    if mask & OURS == 0 || (rule.not && !ahead) {
        return None;
    }
    let cure = format!("let the other program use marks outside {:#x} (with `fwmark VALUE/MASK`)", OURS | NEIGHBOUR_MASK);
    if !rule.not && mask & mark & FLAG != 0 && rule.fits_ours() {
        let message = format!("its mark has egressd's flag {FLAG:#x}: egressd's rules take the packets that are meant for it");
        return Some(Finding::fail(subject(), message, cure));
    }
    let message = format!("it reads bits {:#x} of the packet mark, which egressd writes ({OURS:#x})", mask & OURS);
    Some(Finding::warn(subject(), format!("{message}: a packet that both programs mark follows only one of them"), cure))
}

/// As `ip rule` shows it.
fn written(rule: &Rule) -> String {
    let family = if rule.family == Family::V6 { " (IPv6)" } else { "" };
    format!("{}: {}{family}", rule.preference, rule_words(rule))
}

/// What is the matter with a route, in our tables or with our number.
fn route(route: &Route) -> Option<Finding> {
    let subject = || format!("route {} in table {}", route.destination, table_name(route.table));
    let in_ours = (TABLE_BASE..=TABLE_NODES).contains(&route.table);
    match (in_ours, route.protocol == PROTOCOL) {
        (true, false) => {
            let cure = format!("move it to a table outside {TABLE_BASE} to {TABLE_NODES}");
            Some(Finding::fail(subject(), "somebody else's route in a table of egressd's: bound packets follow it", cure))
        }
        (false, true) if !routing::is_ours(route) => {
            let message = format!("it has egressd's protocol number {PROTOCOL}, but egressd makes no such route");
            Some(Finding::warn(subject(), message, "add it with another `proto`"))
        }
        _ => None,
    }
}

fn groups(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for nic in facts.nics().filter(|nic| nic.group != 0 && nic.group != UPLINK_GROUP) {
        let message = format!(
            "it is in link group {}, which egressd leaves: as an uplink, its own subnets are reached over it even by workloads of another NIC",
            nic.group
        );
        findings.push(Finding::warn(
            nic.name.clone(),
            message,
            format!("`ip link set {} group default`, if nothing needs that group", nic.name),
        ));
    }
    for link in facts.links.iter().filter(|l| l.group == UPLINK_GROUP && matches!(l.kind, LinkKind::Bridge | LinkKind::Loopback)) {
        let message =
            format!("it is in link group {UPLINK_GROUP}, which is egressd's for uplinks: bound workloads cannot reach networks behind it");
        findings.push(Finding::warn(link.name.clone(), message, format!("`ip link set {} group default`", link.name)));
    }
    findings
}
