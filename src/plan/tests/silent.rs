//! As long as some source has not spoken.

use super::*;

#[test]
fn before_every_source_has_spoken_nothing_is_taken_away() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    let mut past = Past::default();
    let before = plan(&facts, &mut past, &Ruleset::default());
    apply(&mut facts, &before.before);
    facts.apply(EngineChange::ContainerGone(format!("{:064}", 1)));
    let outcome = resolve(&facts, &mut past);
    let observed = Observed { kernel: &facts.kernel, ruleset: tables_of(&before), sysctls: &BTreeMap::new(), ahead: &[] };
    assert!(Planner::default().plan(&outcome, &observed, &past.departed, false).is_empty());
    assert!(!Planner::default().plan(&outcome, &observed, &past.departed, true).is_empty());
}

#[test]
fn before_the_engine_has_spoken_what_it_told_is_looked_up_as_ever() {
    let file = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: file}\nspec: {addresses: ['172.19.9.9/32'], exits: [{address: 172.31.0.14}]}\n";
    let of_files = || Index::new(manifest::parse([("file.yaml", file.as_bytes())]));
    let mut facts = host();
    facts.manifests = of_files();
    for (n, asks) in [
        (1, &[("egress.ip", "172.31.0.14")][..]),
        (2, &[("egress.ip", "172.31.0.14"), ("egress.to", "198.51.100.0/24")]),
        (3, &[("egress.ip", "172.31.0.14,172.31.0.8"), ("egress.spread", "round-robin")]),
        (4, &[("egress.ip", "172.31.0.14"), ("egress.rate", "10Mbit")]),
        (5, &[("egress.ip", "172.31.0.14"), ("egress.publish", "8000-8010/tcp")]),
    ] {
        start(&mut facts, n, asks);
    }
    let before = plan(&facts, &mut Past::default(), &Ruleset::default());
    for name in [names::GUARDS, names::LIMITED, names::SPREADS, names::SERVING_RANGES] {
        assert!(!tables_of(&before).tables[&Table::Ip].sets[name].elements.is_empty(), "{name}");
    }
    // The next egressd hears of files at once, and of the engine later.
    let mut again = host();
    again.kernel = facts.kernel.clone();
    apply(&mut again, &before.before);
    again.manifests = of_files();
    let mut past = Past::default();
    read_back(tables_of(&before), &again.kernel, &mut past);
    let outcome = resolve(&again, &mut past);
    assert!(!outcome.is_idle());
    let observed = Observed { kernel: &again.kernel, ruleset: tables_of(&before), sysctls: &BTreeMap::new(), ahead: &[] };
    let meanwhile = Planner::default().plan(&outcome, &observed, &past.departed, false);
    assert_eq!(meanwhile.ruleset, []);
}
