//! From reports to statuses, allocations and Events. Nothing here asks an API server.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use serde_json::{Value, json};

use super::*;
use crate::api::binding::EgressBinding;
use crate::api::node::NodeBinding;
use crate::api::object::{self, Lenient};
use crate::model::cluster::Update;
use crate::model::labels::Labels;
use crate::model::objects::Namespace;

mod placed;
mod published;
mod restored;
mod standing;

/// A cluster, its Lease holder and a clock.
struct Cluster {
    world: World,
    past: Past,
    now: Timestamp,
}

impl Cluster {
    /// One with the namespace `shop`, which may use all pools here, and with nothing else.
    fn new() -> Self {
        let mut world = World::new(false);
        world.apply(Change::Bindings(Update::All(Vec::new())));
        world.apply(Change::Pools(Update::All(Vec::new())));
        world.apply(Change::Namespaces(Update::All(vec![Namespace { name: "shop".to_owned(), labels: Labels::new() }])));
        world.apply(Change::Reports(Update::All(Vec::new())));
        world.apply(Change::Recorded(BTreeMap::new()));
        Self { world, past: Past::default(), now: Timestamp::from_second(1_000).expect("a time") }
    }

    fn after(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    fn pool(&mut self, first: &str, last: &str) -> &mut Self {
        let value = json!({
            "metadata": { "name": "public", "uid": "pool", "generation": 1 },
            "spec": { "blocks": [{ "start": first, "end": last }], "allowedNamespaces": { "names": ["shop"] } },
        });
        self.world.apply(Change::Pools(Update::One(pool(value))));
        self
    }

    fn binding(&mut self, name: &str, spec: &Value) -> &mut Self {
        let status = self.status_of(name).map(|status| json!(status));
        let value = json!({
            "metadata": { "namespace": "shop", "name": name, "uid": name, "generation": 1 },
            "spec": spec,
            "status": status,
        });
        self.world.apply(Change::Bindings(Update::One(binding(value))));
        self
    }

    fn report(&mut self, node: &str, binding: &str, counts: [i64; 3], reason: Option<&str>) -> &mut Self {
        let [workloads, programmed, failing] = counts;
        let binding = NodeBinding {
            namespace: "shop".to_owned(),
            name: binding.to_owned(),
            uid: binding.to_owned(),
            generation: 1,
            workloads,
            programmed,
            failing,
            reason: reason.map(str::to_owned),
            message: reason.map(|reason| format!("the sentence of {reason}")),
            ..NodeBinding::default()
        };
        let reported_at = Some(Time(self.now));
        let value = EgressNodeSpec { bindings: vec![binding], reported_at, ..EgressNodeSpec::default() };
        self.world.apply(Change::Reports(Update::One(Named { name: node.to_owned(), value })));
        self
    }

    /// Folds, and writes as an API server would take it.
    fn fold(&mut self) -> Writes {
        let writes = fold(&self.world, &mut self.past, at(self.now));
        for write in &writes.bindings {
            let mut object = self.object(&write.name).expect("it is there").clone();
            object.status = Some(write.status.clone());
            self.world.apply(Change::Bindings(Update::One(well_read(object))));
        }
        for write in &writes.pools {
            let mut pool = Lenient::clone(&self.world.pools.as_ref().expect("listed")[&write.name]);
            pool.object.status = Some(write.status.clone());
            self.world.apply(Change::Pools(Update::One(pool.into())));
        }
        writes.record.iter().for_each(|data| self.world.apply(Change::Recorded(data.clone())));
        writes
    }

    fn object(&self, name: &str) -> Option<&EgressBinding> {
        self.world.bindings.as_ref()?.get(&format!("shop/{name}")).map(Written::object)
    }

    fn status_of(&self, name: &str) -> Option<EgressBindingStatus> {
        self.object(name)?.status.clone()
    }

    /// `Accepted`, `ResolvedRefs` and `Programmed`, as `True`, or as status and reason.
    fn conditions(&self, name: &str) -> [String; 3] {
        let status = self.status_of(name).expect("a status");
        [ACCEPTED, RESOLVED, PROGRAMMED].map(|kind| {
            let condition = condition(&status.conditions, kind);
            if condition.status == "True" && condition.reason == kind {
                "True".to_owned()
            } else {
                format!("{} {}", condition.status, condition.reason)
            }
        })
    }

    fn exits(&self, name: &str) -> Vec<String> {
        self.status_of(name).expect("a status").exits
    }
}

fn at(now: Timestamp) -> Clock {
    Clock { steady: now, wall: now }
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> &'a Condition {
    condition::find(conditions, kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn binding(value: Value) -> Arc<Lenient<EgressBinding>> {
    object::egress_binding(serde_json::from_value(value).expect("an object")).into()
}

fn pool(value: Value) -> Arc<Lenient<EgressPool>> {
    object::egress_pool(serde_json::from_value(value).expect("an object")).into()
}

fn well_read(object: EgressBinding) -> Arc<Lenient<EgressBinding>> {
    Lenient { object, unread: Vec::new() }.into()
}

/// Addresses of the pool, by number.
fn count(count: usize) -> Value {
    json!({ "podSelector": {}, "pool": { "name": "public", "count": count } })
}

/// An address of the pool, by name.
fn named(address: &str) -> Value {
    json!({ "podSelector": {}, "pool": { "name": "public", "addresses": [address] } })
}

/// Why Events are told, but for those on what a pool lends.
fn reasons(writes: &Writes) -> Vec<&str> {
    let reasons = writes.events.iter().map(|event| event.content.reason.as_str());
    reasons.filter(|reason| !reason.starts_with("Addresses")).collect()
}

/// One binding with two workloads on a node, all of them in force.
fn served() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("crawler", &count(1)).report("n1", "crawler", [2, 2, 0], None).fold();
    cluster
}

#[test]
fn a_binding_whose_workloads_all_leave_by_their_exits_is_programmed() {
    let cluster = served();
    assert_eq!(cluster.conditions("crawler"), ["True", "True", "True"]);
    let status = cluster.status_of("crawler").expect("a status");
    assert_eq!((status.observed_generation, status.exits), (Some(1), vec!["10.0.0.4".to_owned()]));
    assert_eq!(status.summary, crate::api::status::Summary { nodes: 1, workloads: 2, programmed: 2, failing: 0 });
}

#[test]
fn a_binding_made_anew_does_not_inherit_what_was_reported_of_the_one_before() {
    let mut cluster = served();
    let value = json!({ "metadata": { "namespace": "shop", "name": "crawler", "uid": "another", "generation": 1 }, "spec": count(1) });
    cluster.world.apply(Change::Bindings(Update::One(binding(value))));
    cluster.fold();
    assert_eq!(cluster.conditions("crawler"), ["True", "True", "Unknown Pending"]);
    assert_eq!(cluster.status_of("crawler").expect("a status").summary, crate::api::status::Summary::default());
}

#[test]
fn nothing_is_written_twice() {
    let mut cluster = served();
    let writes = cluster.after(60).fold();
    assert_eq!(Writes { again: None, ..writes }, Writes::default());
}

#[test]
fn nothing_is_decided_before_every_kind_was_listed() {
    let mut world = World::new(false);
    world.apply(Change::Bindings(Update::All(Vec::new())));
    world.apply(Change::Pools(Update::All(Vec::new())));
    world.apply(Change::Namespaces(Update::All(Vec::new())));
    let value = json!({ "metadata": { "namespace": "shop", "name": "a", "uid": "a" }, "spec": count(1) });
    world.apply(Change::Bindings(Update::One(binding(value))));
    let now = Timestamp::from_second(1_000).expect("a time");
    assert_eq!(fold(&world, &mut Past::default(), at(now)), Writes::default());
    world.apply(Change::Reports(Update::All(Vec::new())));
    assert_eq!(fold(&world, &mut Past::default(), at(now)), Writes::default());
    world.apply(Change::Recorded(BTreeMap::new()));
    assert_eq!(fold(&world, &mut Past::default(), at(now)).bindings.len(), 1);
}

#[test]
fn one_failing_node_is_named_with_its_reason() {
    let mut cluster = served();
    cluster.report("n2", "crawler", [3, 1, 2], Some("NoExitOnNode")).fold();
    assert_eq!(cluster.conditions("crawler"), ["True", "True", "False NoExitOnNode"]);
    let status = cluster.status_of("crawler").expect("a status");
    assert_eq!(
        condition(&status.conditions, PROGRAMMED).message,
        "2 of 5 workloads have no usable exit, on 1 node; n2: the sentence of NoExitOnNode"
    );
    assert_eq!((status.failing_nodes.len(), status.failing_nodes[0].node.as_str()), (1, "n2"));
}

#[test]
fn a_binding_whose_pods_are_all_anothers_says_so_until_it_has_one() {
    let mut cluster = served();
    cluster.report("n1", "crawler", [0, 0, 0], Some("Overlap")).fold();
    assert_eq!(cluster.conditions("crawler"), ["True", "True", "False Overlap"]);
    let status = cluster.status_of("crawler").expect("a status");
    let message = "another binding takes precedence: the sentence of Overlap";
    assert_eq!((condition(&status.conditions, PROGRAMMED).message.as_str(), status.failing_nodes), (message, vec![]));
    cluster.report("n1", "crawler", [1, 1, 0], Some("Overlap")).fold();
    assert_eq!(cluster.conditions("crawler")[2], "True");
}

#[test]
fn of_many_failing_nodes_ten_are_named_in_order() {
    let mut cluster = served();
    for node in 10..40 {
        cluster.report(&format!("n{}", 49 - node), "crawler", [1, 0, 1], Some("InterfaceDown"));
    }
    cluster.fold();
    let status = cluster.status_of("crawler").expect("a status");
    let nodes: Vec<&str> = status.failing_nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(nodes, ["n10", "n11", "n12", "n13", "n14", "n15", "n16", "n17", "n18", "n19"]);
    assert_eq!(status.summary.failing, 30);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut cluster = served();
    let at = |cluster: &Cluster| {
        let status = cluster.status_of("crawler").expect("a status");
        condition(&status.conditions, PROGRAMMED).last_transition_time.0.as_second()
    };
    let first = at(&cluster);
    cluster.after(30).report("n1", "crawler", [3, 3, 0], None).fold();
    assert_eq!(at(&cluster), first);
    cluster.after(30).report("n1", "crawler", [3, 0, 3], Some("InterfaceDown")).fold();
    assert_eq!(at(&cluster), first + 60);
}

#[test]
fn nobody_selected_is_in_order_once_every_node_had_the_time_to_report() {
    let mut cluster = Cluster::new();
    let writes = cluster.pool("10.0.0.4", "10.0.0.5").binding("crawler", &count(1)).fold();
    assert_eq!(cluster.conditions("crawler")[2], "Unknown Pending");
    let again = writes.again.expect("it looks again by itself");
    cluster.now = again;
    cluster.fold();
    assert_eq!(cluster.conditions("crawler")[2], "True NoWorkloads");
}

#[test]
fn a_new_holder_of_the_lease_does_not_doubt_what_was_in_order() {
    let mut cluster = served();
    cluster.report("n1", "crawler", [0, 0, 0], None);
    cluster.past = Past::default();
    cluster.fold();
    assert_eq!(cluster.conditions("crawler")[2], "True NoWorkloads");
}

#[test]
fn a_node_that_speaks_of_an_earlier_generation_is_waited_for() {
    let mut cluster = served();
    let mut object = cluster.object("crawler").expect("it is there").clone();
    object.metadata.generation = Some(2);
    cluster.world.apply(Change::Bindings(Update::One(well_read(object))));
    cluster.fold();
    let status = cluster.status_of("crawler").expect("a status");
    assert_eq!((cluster.conditions("crawler")[2].as_str(), status.observed_generation), ("Unknown Pending", Some(2)));
}

#[test]
fn a_node_that_has_not_heard_of_its_allocation_yet_is_waited_for() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("crawler", &count(1)).report("n1", "crawler", [1, 0, 1], Some("NotAllocated"));
    let writes = cluster.fold();
    assert_eq!((cluster.conditions("crawler")[2].as_str(), reasons(&writes)), ("Unknown Pending", vec![]));
}

#[test]
fn what_is_wrong_with_the_binding_itself_is_not_accepted() {
    let mut cluster = Cluster::new();
    let raw = json!({ "podSelector": {}, "exits": [{ "address": "10.0.0.4" }] });
    let writes = cluster.binding("raw", &raw).binding("nobody", &json!({ "exits": [{ "address": "10.0.0.4" }] })).fold();
    assert_eq!(cluster.conditions("raw"), ["False RawExitsNotAllowed", "Unknown Pending", "False RawExitsNotAllowed"]);
    assert_eq!(cluster.conditions("nobody")[0], "False Invalid");
    assert_eq!(reasons(&writes), ["Invalid", "RawExitsNotAllowed"]);
}

#[test]
fn a_reference_that_leads_nowhere_is_not_resolved() {
    let mut cluster = Cluster::new();
    cluster.binding("crawler", &named("10.0.0.4")).fold();
    assert_eq!(cluster.conditions("crawler"), ["True", "False PoolNotFound", "False PoolNotFound"]);
    cluster.pool("10.0.0.5", "10.0.0.6").fold();
    assert_eq!(cluster.conditions("crawler")[1], "False AddressNotInPool");
    cluster.binding("crawler", &named("10.0.0.5")).fold();
    assert_eq!((cluster.conditions("crawler")[1].as_str(), cluster.exits("crawler")), ("True", vec!["10.0.0.5".to_owned()]));
}

#[test]
fn a_pool_with_too_few_addresses_says_whom_it_owes_and_gives_them_once_they_are_free() {
    let mut cluster = Cluster::new();
    let writes = cluster.pool("10.0.0.4", "10.0.0.4").binding("a", &count(1)).binding("b", &count(1)).fold();
    assert_eq!((cluster.exits("a"), cluster.exits("b")), (vec!["10.0.0.4".to_owned()], vec![]));
    assert_eq!(cluster.conditions("b"), ["True", "False PoolExhausted", "False PoolExhausted"]);
    let pool = &writes.pools[0].status;
    let available = condition(&pool.conditions, AVAILABLE);
    assert_eq!((pool.addresses, pool.allocated, available.status.as_str()), (1, 1, "False"));
    assert!(available.message.contains("shop/b (1)"), "{}", available.message);
    assert_eq!(reasons(&writes), ["PoolExhausted", "PoolExhausted"]);

    cluster.world.apply(Change::Bindings(Update::Gone("shop/a".to_owned())));
    let writes = cluster.fold();
    assert_eq!(cluster.exits("b"), ["10.0.0.4"]);
    assert_eq!(condition(&writes.pools[0].status.conditions, AVAILABLE).status, "True");
}

#[test]
fn an_allocation_survives_the_one_who_made_it_and_a_slip_of_the_pen() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.9").binding("z", &count(1)).fold();
    cluster.past = Past::default();
    cluster.binding("a", &count(1)).fold();
    assert_eq!((cluster.exits("z"), cluster.exits("a")), (vec!["10.0.0.4".to_owned()], vec!["10.0.0.5".to_owned()]));
    let mut slip = count(1);
    slip["to"] = json!([{ "cidr": "nonsense" }]);
    cluster.binding("z", &slip).fold();
    assert_eq!((cluster.conditions("z")[0].as_str(), cluster.exits("z")), ("False Invalid", vec!["10.0.0.4".to_owned()]));
}

#[test]
fn an_event_tells_each_change_once() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("crawler", &count(1));
    let writes = cluster.report("n1", "crawler", [1, 1, 0], None).fold();
    assert_eq!(writes.events[0].content.note, "its workloads leave through 10.0.0.4");
    assert_eq!(writes.events[0].about.kind.as_deref(), Some(EgressBinding::kind(&()).as_ref()));
    assert_eq!(reasons(&cluster.report("n1", "crawler", [9, 9, 0], None).fold()), Vec::<&str>::new(), "more of the same");
    assert_eq!(reasons(&cluster.report("n1", "crawler", [0, 0, 0], None).fold()), Vec::<&str>::new(), "nobody is selected");
    assert_eq!(reasons(&cluster.report("n1", "crawler", [1, 1, 0], None).fold()), Vec::<&str>::new(), "and again as before");
    let failing = cluster.report("n1", "crawler", [1, 0, 1], Some("InterfaceDown")).fold();
    assert_eq!(reasons(&failing), ["InterfaceDown"]);
    assert!(!writes.events[0].content.warning && failing.events[0].content.warning, "the one is in order, the other is not");
}

#[test]
fn what_goes_to_and_fro_is_told_again_only_after_a_while() {
    let mut cluster = served();
    let mut told = 0;
    for round in 0..300 {
        let counts = if round % 2 == 0 { [1, 0, 1] } else { [1, 1, 0] };
        told += cluster.after(1).report("n1", "crawler", counts, Some("InterfaceDown")).fold().events.len();
    }
    assert_eq!(told, 1, "five minutes of it");
    let writes = cluster.after(600).report("n1", "crawler", [1, 0, 1], Some("InterfaceDown")).fold();
    assert_eq!(reasons(&writes), ["InterfaceDown"]);
}

#[test]
fn a_new_holder_of_the_lease_does_not_tell_again_what_stands() {
    let mut cluster = served();
    cluster.report("n1", "crawler", [2, 0, 2], Some("InterfaceDown")).fold();
    cluster.past = Past::default();
    let writes = cluster.report("n1", "crawler", [3, 0, 3], Some("InterfaceDown")).fold();
    assert_eq!((writes.bindings.len(), writes.events.len()), (1, 0));
}
