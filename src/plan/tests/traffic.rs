//! Bindings for some traffic only.

use super::*;

#[test]
fn what_a_binding_is_for_is_made_once_and_not_compared_again() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14"), ("egress.to", "198.51.100.0/24")]);
    let (mut past, mut planner, none) = (Past::default(), Planner::default(), BTreeMap::new());
    let mut plan = |facts: &Facts, ruleset: &Ruleset| {
        let outcome = resolve(facts, &mut past);
        planner
            .plan(&outcome, &Observed { kernel: &facts.kernel, ruleset, sysctls: &none, ahead: &[] }, &past.departed, true)
            .target
            .expect("all tables")
    };
    let before = plan(&facts, &Ruleset::default());
    start(&mut facts, 2, &[("egress.ip", "172.31.0.14")]);
    let after = plan(&facts, &before);
    let elements = |target: &Ruleset| {
        let mut sets = target.tables[&Table::Ip].sets.iter().filter(|(name, _)| name.starts_with("traffic-"));
        sets.next().map(|(_, set)| set.elements.clone()).expect("one that is limited")
    };
    assert!(elements(&after).is_shared_with(&elements(&before)));
    assert!(elements(&before).len() == 1 && after != before);
}
