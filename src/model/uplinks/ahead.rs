//! Other programs' policy rules that bound packets would come to first, and where ours have to be instead.
//!
//! Whoever adds a rule without a preference gets the place ahead of all others (`fib_default_rule_pref` in net/core/fib_rules.c), and with it what
//! bound workloads send, which is dropped then. So the rules for our packet marks, which concern nobody else's packets, go ahead of such a rule.

use ipnet::IpNet;

use super::super::facts::{Family, KernelFacts, Route, Rule, RuleAction};
use super::outside::MAIN;
use crate::contract::{PREFERENCE_INSIDE, PREFERENCE_WAY, PROTOCOL};

/// Number of the kernel's table of its own addresses (`RT_TABLE_LOCAL`).
pub const LOCAL: u32 = 255;
/// How many preferences the rules for our marks take.
pub const PLACES: u32 = PREFERENCE_WAY - PREFERENCE_INSIDE + 1;

/// Whether packets with our marks that are forwarded may be taken by another program's rule; false only where that is certain.
pub fn may_take(rule: &Rule, routes: &[Route]) -> bool {
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

/// Main has a route for it that is not the default route.
fn is_inside(to: IpNet, routes: &[Route]) -> bool {
    routes.iter().any(|r| r.table == MAIN && r.destination.prefix_len() > 0 && r.destination.contains(&to))
}

/// The preference of the first of the rules for our marks, in one family; an error where there is no place ahead of another program's rule.
pub fn place(kernel: &KernelFacts, family: Family) -> Result<u32, String> {
    let own = |from: &IpNet| from.prefix_len() == from.max_prefix_len() && kernel.own_links_with(from.addr()).next().is_some();
    let others = kernel.rules.iter().filter(|rule| rule.family == family && rule.protocol != PROTOCOL);
    // What the host itself sends from an address of its own bears no mark of ours.
    let takes = |rule: &&Rule| rule.preference <= PREFERENCE_WAY && may_take(rule, &kernel.routes) && !rule.from.as_ref().is_some_and(own);
    let Some(first) = others.filter(takes).min_by_key(|rule| rule.preference) else { return Ok(PREFERENCE_INSIDE) };
    first.preference.checked_sub(PLACES).ok_or_else(|| {
        let (ip, preference) = (if family == Family::V4 { "" } else { "IPv6 " }, first.preference);
        format!(
            "another program's {ip}policy rule {preference} leaves no place before it for egressd's: bound traffic that matches it is dropped; give it a \
             preference of {PLACES} or more"
        )
    })
}

/// Whether a packet is looked up among the host's own addresses ahead of all that has this preference or a later one. (Of one preference, that is
/// first which was added first.)
pub fn local_first(kernel: &KernelFacts, family: Family, preference: u32) -> bool {
    let plain =
        |rule: &Rule| !rule.not && rule.from.is_none() && rule.to.is_none() && rule.iif.is_none() && rule.oif.is_none() && !rule.other;
    kernel.rules.iter().any(|rule| {
        let local = rule.action == RuleAction::Table && rule.table == LOCAL && rule.protocol != PROTOCOL;
        local && rule.family == family && rule.preference < preference && plain(rule) && rule.selected_mark().1 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{Address, KernelChange, Link, LinkKind, Place};

    fn host(rules: &[Rule]) -> KernelFacts {
        let mut kernel = KernelFacts::default();
        let default = Route { interface: Some(2), ..Route::new(MAIN, "0.0.0.0/0".parse().unwrap()) };
        let other = Route { interface: Some(2), ..Route::new(101, "0.0.0.0/0".parse().unwrap()) };
        kernel.apply(KernelChange::Link(Link::new(2, "eth0", LinkKind::Other(String::new()))));
        kernel.apply(KernelChange::Address(Place { nsid: None, index: 2 }, Address::new("172.31.0.8/20".parse().unwrap())));
        kernel.apply(KernelChange::Routing { routes: vec![default, other], rules: rules.to_vec() });
        kernel
    }

    fn rule(preference: u32, table: u32) -> Rule {
        Rule::new(Family::V4, preference, table)
    }

    #[test]
    fn ours_go_ahead_of_the_first_rule_that_takes_bound_packets() {
        let place = |rules: &[Rule]| place(&host(rules), Family::V4);
        assert_eq!(place(&[]), Ok(PREFERENCE_INSIDE));
        assert_eq!(place(&[rule(32_766, MAIN), rule(0, LOCAL)]), Ok(PREFERENCE_INSIDE));
        assert_eq!(place(&[rule(1559, 101), rule(400, 101)]), Ok(398));
        assert_eq!(place(&[rule(5, MAIN)]), Ok(3));
        assert_eq!(place(&[rule(2, MAIN)]), Ok(0));
        assert!(place(&[rule(1, MAIN)]).is_err_and(|problem| problem.contains("policy rule 1 ") && problem.contains("2 or more")));
        let workloads = Rule { from: Some("172.28.0.10/32".parse().unwrap()), ..rule(1559, 101) };
        assert_eq!(place(&[workloads]), Ok(1557));
        let hosts = Rule { from: Some("172.31.0.8/32".parse().unwrap()), ..rule(1000, 101) };
        assert_eq!(place(&[hosts]), Ok(PREFERENCE_INSIDE), "what the host sends has no mark of ours");
        let inside = Rule { suppress_prefix_length: Some(0), ..rule(1000, MAIN) };
        assert_eq!(place(&[inside]), Ok(PREFERENCE_INSIDE));
        let ours = Rule { protocol: PROTOCOL, ..rule(3, 101) };
        assert_eq!(place(&[ours]), Ok(PREFERENCE_INSIDE));
    }

    #[test]
    fn addresses_of_the_host_come_first_as_long_as_nobody_moves_them() {
        let first = |rules: &[Rule]| local_first(&host(rules), Family::V4, PREFERENCE_INSIDE);
        assert!(first(&[rule(0, LOCAL)]));
        assert!(!first(&[rule(32_765, LOCAL)]) && !first(&[rule(PREFERENCE_INSIDE, LOCAL)]));
        assert!(!first(&[Rule { iif: Some("eth0".to_owned()), ..rule(0, LOCAL) }]));
    }
}
