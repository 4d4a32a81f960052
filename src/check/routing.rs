//! Other programs' policy rules, routes and link groups where egressd has its own.

use ipnet::IpNet;
use nix::libc;

use super::facts::Facts;
use super::findings::Finding;
use crate::contract::{
    FLAG, NEIGHBOUR_MASK, PREFERENCE_FROM, PREFERENCE_INSIDE, PREFERENCE_WAY, PROTOCOL, TABLE_BASE, TABLE_NODES, UPLINK_GROUP, WAY,
};
use crate::model::facts::{Family, LinkKind, Route, Rule, RuleAction};
use crate::model::uplinks::outside::MAIN;
use crate::plan::step::{rule_words, table_name};

/// Bits of the packet mark that egressd writes.
const OURS: u32 = FLAG | WAY;
const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;

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

fn is_ours(rule: &Rule) -> bool {
    rule.protocol == PROTOCOL && (PREFERENCE_INSIDE..=PREFERENCE_FROM).contains(&rule.preference)
}

/// What, if anything, is the matter with somebody else's rule.
fn rule(rule: &Rule, routes: &[Route]) -> Option<Finding> {
    let subject = || format!("policy rule {}", written(rule));
    let preference = rule.preference;
    if rule.protocol == PROTOCOL {
        let message = format!("it bears egressd's protocol number {PROTOCOL}: egressd takes it for a leftover of its own and deletes it");
        return Some(Finding::warn(subject(), message, "add it with another `protocol`"));
    }
    let ahead = preference <= PREFERENCE_WAY;
    if ahead && may_take(rule, routes) {
        let cure = format!("give it a preference above {PREFERENCE_FROM}, or a selector that workloads' packets do not have");
        let place = format!("it stands before egressd's rules ({PREFERENCE_INSIDE} to {PREFERENCE_FROM})");
        return Some(match is_certain(rule) {
            true => Finding::fail(subject(), format!("{place} and takes the packets that egressd sends elsewhere"), cure),
            false => Finding::warn(subject(), format!("{place} and takes a bound workload's packets that match it"), cure),
        });
    }
    let (mark, mask) = rule.selected_mark();
    if mask & OURS == 0 || (rule.not && !ahead) {
        return None;
    }
    let cure = format!("let the other program use marks outside {:#x} (as `fwmark VALUE/MASK`)", OURS | NEIGHBOUR_MASK);
    if !rule.not && mask & mark & FLAG != 0 && rule.fits_ours() {
        let message = format!("its mark has egressd's flag {FLAG:#x}: egressd's rules take the packets that are meant for it");
        return Some(Finding::fail(subject(), message, cure));
    }
    let message = format!("it reads bits {:#x} of the packet mark, which egressd writes ({OURS:#x})", mask & OURS);
    Some(Finding::warn(subject(), format!("{message}: a packet that both programs mark follows only one of them"), cure))
}

/// Whether forwarded packets with our marks may be taken; false only where that is certain.
fn may_take(rule: &Rule, routes: &[Route]) -> bool {
    let table = rule.table;
    let never = match rule.action {
        RuleAction::Nop => true,
        // Packets that are for this host itself never reach our rules either.
        RuleAction::Table if table == LOCAL => true,
        RuleAction::Table if rule.suppress_prefix_length.is_some() && table == MAIN => true,
        RuleAction::Table if table != MAIN && !rule.l3mdev => {
            !routes.iter().any(|r| r.table == table && Family::of(r.destination.addr()) == rule.family)
        }
        RuleAction::Table if table == MAIN && !rule.not => rule.to.is_some_and(|to| is_inside(to, routes)),
        _ => false,
    };
    let of_others = rule.l3mdev || (!rule.not && (rule.oif.is_some() || rule.iif.as_deref() == Some("lo") || !rule.fits_ours()));
    !never && !of_others
}

/// No selector but a mark of ours: there are packets of ours that it takes, whatever they are.
fn is_certain(rule: &Rule) -> bool {
    let selects = rule.not || rule.from.is_some() || rule.to.is_some() || rule.iif.is_some() || rule.other;
    !selects && rule.suppress_prefix_length.is_none() && !matches!(rule.action, RuleAction::Goto(_))
}

/// Main has a route for it that is not the default route.
fn is_inside(to: IpNet, routes: &[Route]) -> bool {
    routes.iter().any(|r| r.table == MAIN && r.destination.prefix_len() > 0 && r.destination.contains(&to))
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
        (false, true) => {
            let message = format!("it bears egressd's protocol number {PROTOCOL}, but egressd writes to tables from {TABLE_BASE} on only");
            Some(Finding::warn(subject(), message, "add it with another `proto`"))
        }
        _ => None,
    }
}

fn groups(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for nic in facts.nics().filter(|nic| nic.group != 0 && nic.group != UPLINK_GROUP) {
        let message = format!(
            "it is in link group {}, which egressd leaves: as an uplink, its own subnets are reached by it even for workloads of another NIC",
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
            format!("it is in link group {UPLINK_GROUP}, which is egressd's for uplinks: bound workloads do not reach what is behind it");
        findings.push(Finding::warn(link.name.clone(), message, format!("`ip link set {} group default`", link.name)));
    }
    findings
}
