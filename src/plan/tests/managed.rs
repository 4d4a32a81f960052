//! Addresses that egressd puts on NICs, and exits that are on none.

use super::*;
use crate::model::facts::Mac;
use crate::model::managed::Verdict;
use crate::model::reason::Reason;

const EXIT: &str = "172.31.0.98";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn managed(more: &[(&str, &str)]) -> Facts {
    let mut facts = host();
    start(&mut facts, 10, &[&[("egress.ip", EXIT), ("egress.manage", "true")], more].concat());
    facts
}

/// An address of ours on a NIC.
fn ours(facts: &mut Facts, nic: IfIndex) {
    let address = Address { ours: true, ..Address::new(IpNet::from(ip(EXIT))) };
    facts.kernel.apply(KernelChange::Address(Place { nsid: None, index: nic }, address));
}

fn addresses(plan: &Plan) -> Vec<String> {
    let steps = plan.before.iter().chain(&plan.after);
    let of = steps.filter(|step| matches!(step, RouteStep::AddAddress { .. } | RouteStep::DeleteAddress { .. }));
    of.map(|step| step.words(&plan.names).to_string()).collect()
}

fn reason(facts: &Facts, past: &mut Past) -> Option<Reason> {
    resolve(facts, past).rows[0].state.reason().cloned()
}

#[test]
fn an_address_is_added_to_the_nic_of_its_subnet_once_nobody_has_it() {
    for (named, nic, name) in [(&[][..], ETH0, "eth0"), (&[("egress.interface", "eth1")], ETH1, "eth1")] {
        let (mut facts, mut past) = (managed(named), Past::default());
        assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
        let interface = name.to_owned();
        assert_eq!(reason(&facts, &mut past), Some(Reason::AddressProbed { address: ip(EXIT), interface }));
        facts.probes.note((nic, ip(EXIT)), Verdict::Free);
        let added = format!("ip address add {EXIT}/32 dev {name} scope host preferred_lft 0 noprefixroute");
        assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [added]);
        assert_eq!(reason(&facts, &mut past), None, "it is there before anything leads to it");
        ours(&mut facts, nic);
        assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
        assert_eq!(reason(&facts, &mut past), None);
    }
}

#[test]
fn an_address_that_a_neighbour_has_is_not_added_and_ours_goes() {
    let (mut facts, mut past) = (managed(&[]), Past::default());
    let by = Mac([2, 0, 0, 0, 0, 9]);
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Taken(by));
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
    ours(&mut facts, ETH0);
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [format!("ip address delete {EXIT}/32 dev eth0")]);
    let said = reason(&facts, &mut past).expect("it is dropped").to_string();
    assert!(said.contains("02:00:00:00:00:09") && said.contains("eth0") && said.contains(EXIT), "{said}");
}

#[test]
fn an_address_that_another_program_takes_away_all_the_time_is_let_be() {
    let (mut facts, mut past) = (managed(&[]), Past::default());
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Free);
    facts.probes.contest((ETH0, ip(EXIT)), true);
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
    assert_eq!(reason(&facts, &mut past).map(|reason| reason.word()), Some("AddressContested"));
    ours(&mut facts, ETH0);
    assert_eq!(reason(&facts, &mut past), None, "it is there all the same");
    facts.probes.contest((ETH0, ip(EXIT)), false);
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
}

#[test]
fn an_address_that_is_known_to_be_anothers_is_not_added_though_nobody_answers() {
    for (exit, labels, said) in [
        ("172.31.0.1", &[][..], "is a gateway"),
        ("172.31.0.98", &[("egress.gateway", "172.31.0.98")][..], "exit's own address"),
        ("172.19.0.77", &[("egress.interface", "eth0")][..], "leads to workloads"),
    ] {
        let mut facts = host();
        start(&mut facts, 10, &[&[("egress.ip", exit), ("egress.manage", "true")], labels].concat());
        facts.probes.note((ETH0, ip(exit)), Verdict::Free);
        let mut past = Past::default();
        assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0], "{exit}");
        let reason = reason(&facts, &mut past).expect("it is dropped").to_string();
        assert!(reason.contains(said), "{exit}: {reason}");
    }
}

#[test]
fn an_address_keeps_its_nic_while_another_program_has_its_subnet_taken_away() {
    let (mut facts, mut past) = (managed(&[]), Past::default());
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Free);
    plan(&facts, &mut past, &Ruleset::default());
    for (nic, net) in [(ETH0, "172.31.0.8/20"), (ETH1, "172.31.0.14/20")] {
        facts.kernel.apply(KernelChange::AddressGone(Place { nsid: None, index: nic }, net.parse().unwrap()));
    }
    let put_back = addresses(&plan(&facts, &mut past, &Ruleset::default()));
    assert!(put_back.len() == 1 && put_back[0].contains("dev eth0"), "{put_back:?}");
    assert!(
        matches!(reason(&facts, &mut Past::default()), Some(Reason::NoNicForAddress { .. })),
        "who has not seen it there does not know"
    );
}

#[test]
fn an_address_that_is_taken_away_is_put_back_and_nothing_else_changes() {
    let (mut facts, mut past) = (managed(&[]), Past::default());
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Free);
    let first = plan(&facts, &mut past, &Ruleset::default());
    apply(&mut facts, &first.before);
    let gone = IpNet::from(ip(EXIT));
    facts.kernel.apply(KernelChange::AddressGone(Place { nsid: None, index: ETH0 }, gone));
    let again = plan(&facts, &mut past, tables_of(&first));
    assert_eq!((again.before.len(), addresses(&again).len()), (1, 1), "{again:?}");
    assert!(again.ruleset.is_empty() && again.after.is_empty() && again.cuts.is_empty(), "{again:?}");
}

#[test]
fn an_address_that_nobody_asks_for_goes_when_no_flow_bears_it() {
    let (mut facts, mut past) = (managed(&[]), Past::default());
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Free);
    ours(&mut facts, ETH0);
    let there = plan(&facts, &mut past, &Ruleset::default()).target.expect("all tables");
    facts.apply(EngineChange::Container(Box::new(container(10, &[("egress.ip", "172.31.0.14")]))));
    assert_eq!(addresses(&plan(&facts, &mut past, &there)), [""; 0], "a flow may bear it");
    past.memory.numbers.release(&BTreeSet::new(), &BTreeSet::new());
    assert_eq!(addresses(&plan(&facts, &mut past, &there)), [format!("ip address delete {EXIT}/32 dev eth0")]);
}

#[test]
fn cleanup_takes_ours_away_and_leaves_others_alone() {
    let mut facts = host();
    ours(&mut facts, ETH1);
    let observed = Observed { kernel: &facts.kernel, ruleset: &Ruleset::default(), sysctls: &BTreeMap::new(), ahead: &[] };
    let plan = Planner::default().plan(&Outcome::default(), &observed, &BTreeSet::new(), true);
    assert_eq!(addresses(&plan), [format!("ip address delete {EXIT}/32 dev eth1")]);
}

#[test]
fn what_is_for_a_routed_exit_and_no_flow_of_ours_goes_nowhere() {
    let mut facts = host();
    let text = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: a}\nspec: {containerSelector: {names: [web-10]}, exits: [{addresses: 192.0.2.96-192.0.2.99, assignment: Routed}]}\n";
    facts.manifests = Index::new(manifest::parse([("a.yaml", text.as_bytes())]));
    start(&mut facts, 10, &[]);
    let mut past = Past::default();
    let plan = plan(&facts, &mut past, &Ruleset::default());
    let words: Vec<String> = plan.before.iter().map(|step| step.words(&plan.names).to_string()).collect();
    assert!(words.contains(&"ip route replace blackhole 192.0.2.96/30 table 254 metric 4294967295".to_owned()), "{words:#?}");
    assert!(!words.iter().any(|step| step.contains("from 192.0.2.")), "no program of the host can have it: {words:#?}");
    assert_eq!((reason(&facts, &mut past), addresses(&plan)), (None, vec![]));
}
