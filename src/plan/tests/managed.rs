//! Addresses that egressd puts on NICs, and exits that are on none.

use super::*;
use crate::model::binding::Assignment;
use crate::model::cloud::{AddressReport, AddressReports, Aws, Interface};
use crate::model::cluster::{ClusterChange, Node, Update};
use crate::model::facts::Mac;
use crate::model::managed::Verdict;
use crate::model::pool::{Block, Places, Pool};
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

/// A node of a cluster with a pool of one managed address, which is given to a node.
fn in_a_cluster(given: &str, pool: Pool) -> Facts {
    let mut facts = host();
    let blocks = vec![Block::of(IpNet::from(ip(EXIT)))];
    let places = [(ip(EXIT), given.to_owned())].into();
    let pool = Pool { name: "public".to_owned(), blocks, assignment: Assignment::Managed, places, ..pool };
    for change in [
        ClusterChange::Bindings(Update::All(Vec::new())),
        ClusterChange::Namespaces(Update::All(Vec::new())),
        ClusterChange::Pods(Update::All(Vec::new())),
        ClusterChange::InsideUnsaid,
        ClusterChange::Node(Node { name: "n1".to_owned(), ..Node::default() }),
        ClusterChange::Pools(Update::All(vec![pool])),
    ] {
        facts.cluster.apply(change);
    }
    facts.cluster.grant();
    facts.probes.note((ETH0, ip(EXIT)), Verdict::Free);
    facts
}

#[test]
fn a_pools_address_is_put_on_the_nic_of_the_node_that_it_was_given_to_and_taken_off_any_other_at_once() {
    let mut past = Past::default();
    let added = format!("ip address add {EXIT}/32 dev eth0 scope host preferred_lft 0 noprefixroute");
    assert_eq!(addresses(&plan(&in_a_cluster("n2", Pool::default()), &mut past, &Ruleset::default())), [""; 0]);
    let mut facts = in_a_cluster("n1", Pool::default());
    start(&mut facts, 10, &[("egress.ip", "172.31.0.14")]);
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [added], "before anybody is bound to it");
    ours(&mut facts, ETH0);
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0]);
    // Flows may bear it still, which would keep an address that nobody asks for.
    let pools = facts.cluster.pools.take();
    let pool = pools.iter().flatten().map(|(_, pool)| Pool::clone(pool)).next().expect("there is one");
    let gone = |places| ClusterChange::Pools(Update::All(vec![Pool { places, ..pool.clone() }]));
    facts.cluster.apply(gone(Places::new()));
    facts.cluster.grant();
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [""; 0], "it is nobody else's");
    facts.cluster.apply(gone([(ip(EXIT), "n2".to_owned())].into()));
    facts.cluster.grant();
    assert_eq!(addresses(&plan(&facts, &mut past, &Ruleset::default())), [format!("ip address delete {EXIT}/32 dev eth0")]);
}

#[test]
fn a_pools_address_is_used_once_its_status_says_that_the_cloud_shows_it() {
    let aws = Aws { region: None, interface: Interface::InSubnet, elastic: None, forwards: false, route_tables: Vec::new() };
    let exit = |shown: AddressReports| {
        let mut facts = in_a_cluster("n1", Pool { aws: Some(Box::new(aws.clone())), shown, ..Pool::default() });
        ours(&mut facts, ETH0);
        let outcome = resolve(&facts, &mut Past::default());
        let spec = &facts.cluster.own_exits().next().expect("it is this node's").exits[0];
        let report = crate::report::node::spec(&facts, &outcome, []);
        let word = outcome.uplinks.exit(spec).expect("it is looked for").as_ref().err().map(Reason::word);
        (word, report.addresses.first().map(|one| one.reason.clone()), outcome.uplinks.public.get(&ip(EXIT)).copied())
    };
    let shown = |ready| {
        let public_address = Some([203, 0, 113, 41].into());
        AddressReports::from([(ip(EXIT), AddressReport { ready, public_address, ..AddressReport::default() })])
    };
    let pending = Some("CloudPending".to_owned());
    assert_eq!(exit(AddressReports::new()), (Some("CloudPending"), pending.clone(), None));
    assert_eq!(exit(shown(false)), (Some("CloudPending"), pending, Some(ip("203.0.113.41"))));
    assert_eq!(exit(shown(true)), (None, None, Some(ip("203.0.113.41"))));
}
