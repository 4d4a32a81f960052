//! What a containerd's words come to, in the order in which they come, and in others.

use std::collections::BTreeMap;

use super::*;
use crate::api;
use crate::model::pod::Pod;

fn id(name: &str) -> Id {
    Id { namespace: "k8s.io".to_owned(), id: name.to_owned() }
}

fn pod(network: Network) -> Record {
    let pod = Pod { uid: "68dc".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned(), ..Pod::default() };
    Record { subject: Subject::Pod(Arc::new(pod)), network, created: 100 }
}

fn named() -> Network {
    Network::Named("cni-1".to_owned())
}

fn alone(labels: &[(&str, &str)], network: Network) -> Record {
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Record { subject: Subject::Alone { name: "default/web".to_owned(), labels }, network, created: 100 }
}

/// The sandbox in a change that tells of one.
#[track_caller]
fn told(change: Option<RuntimeChange>) -> Sandbox {
    match change {
        Some(RuntimeChange::Sandbox(sandbox)) => *sandbox,
        other => panic!("a sandbox, not {other:?}"),
    }
}

fn gone(name: &str) -> Option<RuntimeChange> {
    Some(RuntimeChange::Gone(id(name).to_string()))
}

fn listed(records: Vec<(&str, Record)>, tasks: &[(&str, u32)]) -> Listed {
    Listed {
        records: records.into_iter().map(|(name, record)| (id(name), record)).collect(),
        tasks: tasks.iter().map(|(name, pid)| (id(name), *pid)).collect(),
        mute: HashSet::new(),
    }
}

/// A book, and what it said.
struct Bench(RuntimeState);

impl Bench {
    fn new() -> Self {
        Self(RuntimeState::new(Arc::new(|container| api::labels::parse(container).map(Arc::new))))
    }

    fn event(&mut self, name: &str, event: Event) -> Followup {
        self.0.event(id(name), event)
    }

    fn found(&mut self, name: &str, record: Record) -> Followup {
        self.0.found(id(name), Found::Record(record))
    }

    /// A record is made, and read.
    fn made(&mut self, name: &str, record: Record) -> Option<RuntimeChange> {
        assert_eq!(self.event(name, Event::Created), Followup { change: None, ask: Some(Ask::Record(id(name))) });
        self.found(name, record).change
    }

    /// Its task is there, in the namespace that the kernel numbers so.
    fn begun(&mut self, name: &str, pid: u32, nsid: i32) -> Option<RuntimeChange> {
        assert_eq!(self.event(name, Event::TaskBegan { pid }).ask, Some(Ask::Namespace { id: id(name), pid }));
        self.0.namespace(&id(name), pid, NetworkNamespace::Numbered(nsid))
    }

    fn listed(&mut self, listed: Listed) -> Vec<Followup> {
        self.0.begin();
        self.0.listed(listed)
    }
}

#[test]
fn a_pods_sandbox_is_told_with_its_record_and_is_gone_with_its_task() {
    let mut bench = Bench::new();
    let sandbox = told(bench.made("s", pod(named())));
    assert_eq!((sandbox.id.as_str(), sandbox.network, sandbox.created), ("k8s.io/s", NetworkNamespace::Named("cni-1".to_owned()), 100));
    assert!(matches!(sandbox.owner, Owner::Pod(pod) if pod.uid == "68dc"));
    for _ in ["create", "start"] {
        assert_eq!(bench.event("s", Event::TaskBegan { pid: 7 }), Followup::default());
    }
    assert_eq!(bench.event("s", Event::TaskEnded { pid: 7 }).change, gone("s"));
    assert_eq!(bench.event("s", Event::TaskEnded { pid: 7 }), Followup::default(), "`/tasks/delete` follows `/tasks/exit`");
    assert_eq!(bench.event("s", Event::Deleted), Followup::default());
}

#[test]
fn a_record_that_is_deleted_before_its_task_ended_is_gone() {
    let mut bench = Bench::new();
    bench.made("s", pod(named()));
    assert_eq!(bench.event("s", Event::Deleted).change, gone("s"));
    assert_eq!(bench.event("s", Event::TaskEnded { pid: 7 }), Followup::default());
    assert!(bench.0.sandboxes().is_empty());
}

#[test]
fn a_sandbox_whose_shim_does_not_answer_is_told_of_as_far_as_its_record_goes() {
    let mute = || Listed { mute: HashSet::from([id("s")]), ..listed(vec![("s", pod(named()))], &[]) };
    let mut bench = Bench::new();
    bench.listed(mute());
    assert_eq!(bench.0.sandboxes().len(), 1, "it may run");
    bench.event("s", Event::TaskBegan { pid: 7 });
    assert_eq!(bench.listed(mute()), [Followup::default()], "what is known of it stays");
    bench.listed(listed(vec![("s", pod(named()))], &[]));
    assert!(bench.0.sandboxes().is_empty(), "its shim is gone");
}

#[test]
fn a_sandbox_on_the_nodes_network_is_told_so() {
    assert_eq!(told(Bench::new().made("s", pod(Network::Host))).network, NetworkNamespace::Host);
}

#[test]
fn an_answer_for_a_record_that_is_deleted_by_now_says_nothing() {
    let mut bench = Bench::new();
    bench.event("s", Event::Created);
    bench.event("s", Event::Deleted);
    assert_eq!(bench.found("s", pod(named())), Followup::default());
    assert!(bench.0.sandboxes().is_empty());
}

#[test]
fn containers_in_pods_are_passed_over() {
    let mut bench = Bench::new();
    bench.event("app", Event::Created);
    assert_eq!(bench.0.found(id("app"), Found::Useless), Followup::default());
    assert_eq!(bench.event("app", Event::TaskBegan { pid: 9 }), Followup::default());
    assert_eq!(bench.event("app", Event::TaskEnded { pid: 9 }), Followup::default());
    assert_eq!(bench.event("app", Event::Deleted), Followup::default());
    assert!(bench.0.slots.is_empty());
}

#[test]
fn a_container_without_a_named_namespace_is_told_once_it_has_a_task() {
    let mut bench = Bench::new();
    assert_eq!(bench.made("c", alone(&[("egress.ip", "192.0.2.7")], Network::OfTask)), None);
    let sandbox = told(bench.begun("c", 7, 3));
    assert_eq!(sandbox.network, NetworkNamespace::Numbered(3));
    let Owner::Container { name, asked: Some(asked), .. } = sandbox.owner else { panic!("it asks for an exit") };
    let binding = asked.binding.as_ref().expect("a binding");
    assert_eq!((name.as_str(), binding.name.to_string().as_str(), binding.errors.len()), ("default/web", "label/default/web", 0));
    assert_eq!(binding.exits[0].address.to_string(), "192.0.2.7");
    assert_eq!(bench.begun("c", 7, 3), None, "its start says nothing new");
}

#[test]
fn a_container_that_asks_for_nothing_is_told_too() {
    let mut bench = Bench::new();
    let sandbox = told(bench.made("c", alone(&[], named())));
    assert!(matches!(sandbox.owner, Owner::Container { name, asked: None, .. } if name == "default/web"));
}

#[test]
fn a_container_that_is_started_again_has_its_new_namespace() {
    let mut bench = Bench::new();
    bench.made("c", alone(&[], Network::OfTask));
    bench.begun("c", 7, 3);
    assert_eq!(bench.event("c", Event::TaskEnded { pid: 7 }).change, gone("c"));
    assert_eq!(told(bench.begun("c", 8, 4)).network, NetworkNamespace::Numbered(4));
    assert_eq!(bench.event("c", Event::TaskEnded { pid: 7 }).change, None, "the end of the first task comes late");
    assert_eq!(bench.0.namespace(&id("c"), 7, NetworkNamespace::Numbered(3)), None, "so does an answer about it");
    assert_eq!(bench.0.sandboxes().len(), 1);
}

#[test]
fn a_task_that_begins_before_its_record_is_read_is_asked_for_then() {
    let mut bench = Bench::new();
    bench.event("c", Event::Created);
    assert_eq!(bench.event("c", Event::TaskBegan { pid: 7 }), Followup::default());
    assert_eq!(bench.found("c", alone(&[], Network::OfTask)).ask, Some(Ask::Namespace { id: id("c"), pid: 7 }));
}

#[test]
fn a_task_of_a_container_that_is_not_known_makes_its_record_asked_for() {
    let mut bench = Bench::new();
    let followup = bench.event("c", Event::TaskBegan { pid: 7 });
    assert_eq!(followup.ask, Some(Ask::Record(id("c"))));
    assert_eq!(bench.0.found(id("c"), Found::Nothing), Followup::default());
    assert!(bench.0.slots.is_empty(), "a late word about what is gone leaves nothing behind");
}

#[test]
fn who_joins_anothers_network_is_no_owner_of_it_and_hears_so_when_it_asks() {
    let mut bench = Bench::new();
    assert_eq!(bench.made("quiet", alone(&[], Network::Joined { pid: 182 })), None);
    assert_eq!(bench.event("quiet", Event::TaskBegan { pid: 9 }), Followup::default());
    bench.made("asks", alone(&[("egress.ip", "192.0.2.7")], Network::Joined { pid: 182 }));
    let sandbox = told(bench.event("asks", Event::TaskBegan { pid: 10 }).change);
    assert_eq!(sandbox.network, NetworkNamespace::Unknown);
    let Owner::Container { asked: Some(asked), .. } = sandbox.owner else { panic!("it asks for an exit") };
    let errors = &asked.binding.as_ref().expect("a binding").errors;
    assert!(errors[0].message.contains("uses the network of container 182"), "{errors:?}");
}

#[test]
fn a_container_whose_client_names_its_networks_is_told_from_its_record_to_the_records_end() {
    let labels = [("egress.ip", "192.0.2.7"), ("nerdctl/networks", r#"["bridge"]"#)];
    let mut bench = Bench::new();
    let made = told(bench.made("c", alone(&labels, Network::OfTask)));
    assert_eq!(made.network, NetworkNamespace::Absent);
    assert!(matches!(made.owner, Owner::Container { bridges, .. } if bridges == ["nerdctl0"]));
    assert_eq!(told(bench.begun("c", 7, 3)).network, NetworkNamespace::Numbered(3));
    assert_eq!(told(bench.event("c", Event::TaskEnded { pid: 7 }).change).network, NetworkNamespace::Absent);
    assert_eq!(bench.event("c", Event::Deleted).change, gone("c"));

    let mut bench = Bench::new();
    bench.listed(listed(vec![("stopped", alone(&labels, Network::OfTask)), ("free", alone(&labels[1..], Network::OfTask))], &[]));
    let sandboxes = bench.0.sandboxes();
    assert_eq!(
        sandboxes.iter().map(|one| (one.id.as_str(), &one.network)).collect::<Vec<_>>(),
        [("k8s.io/stopped", &NetworkNamespace::Absent)]
    );
    assert_eq!(bench.0.slots.len(), 1, "who asks for nothing is not kept");
}

#[test]
fn a_container_without_a_network_is_told_as_such() {
    let labels = [("egress.ip", "192.0.2.7"), ("nerdctl/networks", r#"["none"]"#)];
    let mut bench = Bench::new();
    bench.made("c", alone(&labels, Network::OfTask));
    assert!(matches!(told(bench.begun("c", 7, 3)).owner, Owner::Container { mode, .. } if mode == "none"));
}

#[test]
fn labels_that_place_a_container_are_refused_and_the_exit_is_served() {
    let labels = [("egress.ip", "192.0.2.7"), ("egress.network", "shop"), ("egress.container-ip", "10.7.0.9")];
    let Owner::Container { asked: Some(asked), .. } = told(Bench::new().made("c", alone(&labels, named()))).owner else {
        panic!("it asks")
    };
    let binding = asked.binding.as_ref().expect("a binding");
    assert_eq!((binding.errors.len(), binding.exits.len()), (0, 1));
    assert_eq!((asked.placement.network.as_ref(), asked.placement.address), (None, None));
    for label in ["egress.network", "egress.container-ip"] {
        let said = binding.warnings.iter().find(|warning| warning.starts_with(&format!("{label}: ")));
        assert!(said.is_some_and(|warning| warning.contains("remove the label")), "{:?}", binding.warnings);
    }
}

#[test]
fn changed_labels_are_told() {
    let mut bench = Bench::new();
    bench.made("c", alone(&[], named()));
    assert_eq!(bench.event("c", Event::Updated).ask, Some(Ask::Record(id("c"))));
    assert_eq!(bench.found("c", alone(&[], named())), Followup::default());
    let changed = told(bench.found("c", alone(&[("egress.ip", "192.0.2.7")], named())).change);
    assert!(matches!(changed.owner, Owner::Container { asked: Some(_), .. }));
    assert_eq!(bench.event("stopped", Event::Updated), Followup::default());
}

#[test]
fn the_list_tells_what_has_a_task() {
    let mut bench = Bench::new();
    let records = vec![("s", pod(named())), ("finished", pod(named())), ("c", alone(&[], Network::OfTask))];
    let followups = bench.listed(listed(records, &[("s", 7), ("c", 8)]));
    assert_eq!(followups.iter().filter(|followup| followup.change.is_some()).count(), 1);
    let asks: Vec<_> = followups.into_iter().filter_map(|followup| followup.ask).collect();
    assert_eq!(asks, [Ask::Namespace { id: id("c"), pid: 8 }]);
    bench.0.namespace(&id("c"), 8, NetworkNamespace::Numbered(5));
    let mut ids: Vec<_> = bench.0.sandboxes().into_iter().map(|sandbox| sandbox.id).collect();
    ids.sort();
    assert_eq!(ids, ["k8s.io/c", "k8s.io/s"]);
}

#[test]
fn a_second_list_tells_only_what_the_events_did_not() {
    let mut bench = Bench::new();
    bench.listed(listed(vec![("s", pod(named())), ("t", pod(Network::Host))], &[("s", 7), ("t", 8)]));
    bench.made("new", pod(Network::Named("cni-2".to_owned())));
    let followups = bench.listed(listed(vec![("s", pod(named())), ("new", pod(Network::Named("cni-2".to_owned())))], &[("s", 7)]));
    let changes: Vec<_> = followups.into_iter().filter_map(|followup| followup.change).collect();
    assert_eq!(changes, [RuntimeChange::Gone(id("t").to_string())], "`new` waits for its task");
}

#[test]
fn what_events_say_while_the_list_is_read_counts_more_than_the_list() {
    let mut bench = Bench::new();
    bench.made("ends", pod(named()));
    bench.event("ends", Event::TaskBegan { pid: 7 });
    bench.0.begin();
    bench.event("ends", Event::TaskEnded { pid: 7 });
    bench.made("new", pod(Network::Host));
    let followups = bench.0.listed(listed(vec![("ends", pod(named()))], &[("ends", 7)]));
    assert!(followups.iter().all(|followup| *followup == Followup::default()), "{followups:?}");
    let ids: Vec<_> = bench.0.sandboxes().into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(ids, ["k8s.io/new"]);
}
