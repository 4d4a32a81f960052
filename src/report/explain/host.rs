//! Which way the host itself sends, where all its programs are bound: what another route than the best default route takes is not theirs.

use std::net::IpAddr;

use super::most_specific;
use crate::contract::PROTOCOL;
use crate::model::facts::{Family, KernelFacts, Route, RouteKind, Rule, RuleAction};
use crate::model::known::Facts;
use crate::model::outcome::Outcome;
use crate::model::uplinks::ahead::LOCAL;
use crate::model::uplinks::outside::MAIN;

/// How a destination is reached that the programs of the host, all of them, do not leave for by the binding's exit; `None` where they do, and
/// where it is told already.
pub fn elsewhere(facts: &Facts, outcome: &Outcome, to: IpAddr) -> Option<String> {
    let mut rules: Vec<&Rule> = facts.kernel.rules.iter().filter(|rule| selects(rule, to)).collect();
    rules.sort_by_key(|rule| rule.preference);
    let (rule, found) = rules.into_iter().find_map(|rule| Some((rule, looked_up(&facts.kernel, rule, to)?)))?;
    let by = match rule.table {
        MAIN => "main".to_owned(),
        _ => format!("the host's policy rule {}", rule.preference),
    };
    match found {
        None => Some(format!("{by} rejects packets to it")),
        Some(route) => {
            let picked = |index| outcome.programs.picked.iter().any(|(nic, address)| *nic == index && address.is_ipv4() == to.is_ipv4());
            let link = route.interface.filter(|_| !route.interfaces().any(picked)).and_then(|index| facts.kernel.links.get(&index))?;
            let table = if rule.table == MAIN { String::new() } else { format!(", table {}", rule.table) };
            Some(format!("{by} routes it over {}{table} ({})", link.name, route.destination))
        }
    }
}

/// Whether a rule of somebody else is for what an unbound socket of the host sends. Rules by ports, protocols and users are left out: what is
/// asked names none.
fn selects(rule: &Rule, to: IpAddr) -> bool {
    let (mark, mask) = rule.selected_mark();
    let by = mark & mask == 0 && rule.to.is_none_or(|net| net.contains(&to)) && rule.from.is_none_or(|net| net.prefix_len() == 0);
    let of_host = rule.iif.as_deref().is_none_or(|iif| iif == "lo") && rule.oif.is_none() && !rule.l3mdev && !rule.other;
    rule.protocol != PROTOCOL && rule.family == Family::of(to) && rule.table != LOCAL && of_host && by != rule.not
}

/// What a rule comes to: `Some(None)` where nothing gets there, `None` where the next rule is asked.
fn looked_up<'a>(kernel: &'a KernelFacts, rule: &Rule, to: IpAddr) -> Option<Option<&'a Route>> {
    match rule.action {
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => Some(None),
        RuleAction::Table => {
            let of_table = kernel.routes.iter().filter(|route| route.table == rule.table && route.from.is_none());
            let is_suppressed =
                |route: &&Route| rule.suppress_prefix_length.is_some_and(|length| u32::from(route.destination.prefix_len()) <= length);
            let route = most_specific(of_table, to).filter(|route| !is_suppressed(route))?;
            match route.kind {
                RouteKind::Unicast => Some(Some(route)),
                RouteKind::Throw => None,
                _ => Some(None),
            }
        }
        RuleAction::Goto(_) | RuleAction::Nop | RuleAction::Other(_) => None,
    }
}
