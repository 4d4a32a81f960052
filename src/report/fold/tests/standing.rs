//! What stands though something changes: allocations, and what silent nodes said.

use super::*;

#[test]
fn a_node_that_reports_nothing_any_more_is_not_known_to_be_in_order() {
    let mut cluster = served();
    let heard = cluster.now;
    let writes = cluster.after(20).fold();
    let silent = writes.again.expect("it looks again by itself");
    assert_eq!(silent, heard + nodes::SILENCE);
    cluster.now = silent;
    cluster.fold();
    assert_eq!(cluster.conditions("crawler")[2], "Unknown AgentSilent");
    let status = cluster.status_of("crawler").expect("a status");
    assert_eq!(status.summary.workloads, 0, "what it said is not counted");
    let message = &condition(&status.conditions, PROGRAMMED).message;
    assert!(message.starts_with("no report from node n1 with pods of this binding"), "{message}");
    // A new leader need not wait as long again.
    cluster.past = Past::default();
    cluster.fold();
    assert_eq!(cluster.conditions("crawler")[2], "Unknown AgentSilent");
    cluster.report("n1", "crawler", [2, 2, 0], None).fold();
    assert_eq!(cluster.conditions("crawler")[2], "True");
}

#[test]
fn a_node_whose_clock_is_wrong_is_heard_all_the_same() {
    let mut cluster = served();
    let now = cluster.now;
    for behind in [3_600, -3_600] {
        for _ in 0..10 {
            cluster.now += SignedDuration::from_secs(60 - behind);
            cluster.report("n1", "crawler", [2, 2, 0], None);
            cluster.now += SignedDuration::from_secs(behind);
            cluster.fold();
        }
        assert_eq!(cluster.conditions("crawler")[2], "True");
    }
    assert!(cluster.now > now);
}

#[test]
fn a_report_that_is_deleted_is_no_word_that_nobody_is_selected() {
    let mut cluster = served();
    let node = |name: &str| Named { name: name.to_owned(), value: ClusterNode::default() };
    cluster.world.apply(Change::Nodes(Update::All(vec![node("n1")])));
    cluster.world.apply(Change::Reports(Update::Gone("n1".to_owned())));
    cluster.fold();
    assert_eq!(cluster.conditions("crawler")[2], "Unknown AgentSilent");
    cluster.world.apply(Change::Nodes(Update::Gone("n1".to_owned())));
    cluster.after(60).fold();
    assert_eq!(cluster.conditions("crawler")[2], "True NoWorkloads", "its node is gone, and its pods with it");
}

#[test]
fn what_a_pool_lends_is_told_to_whoever_gets_it_and_to_whoever_owns_the_pool() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("a", &count(1));
    let told = |writes: &Writes| -> Vec<(String, String)> {
        let about = |event: &Event| event.about.kind.clone().unwrap_or_default();
        let lends = |event: &&Event| event.content.reason.starts_with("Addresses");
        // Who loses one is warned.
        let warns = |event: &Event| event.about.kind.as_deref() == Some("EgressBinding") && event.content.action == "Release";
        assert!(writes.events.iter().filter(lends).all(|event| event.content.warning == warns(event)), "{:?}", writes.events);
        writes.events.iter().filter(lends).map(|event| (about(event), event.content.note.clone())).collect()
    };
    let pair = |kind: &str, note: &str| (kind.to_owned(), note.to_owned());
    let got = [pair("EgressBinding", "EgressPool public lends it 10.0.0.4"), pair("EgressPool", "lent 10.0.0.4 to EgressBinding shop/a")];
    assert_eq!(told(&cluster.fold()), got);
    cluster.binding("a", &named("10.0.0.5"));
    let moved = [
        pair("EgressBinding", "EgressPool public no longer lends it 10.0.0.4; it has 10.0.0.5 now"),
        pair("EgressPool", "released 10.0.0.4 from EgressBinding shop/a"),
    ];
    assert_eq!(told(&cluster.fold()), moved);
}

#[test]
fn whoever_names_an_allocated_address_is_told_whose_it_is_and_the_holder_keeps_it() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.9").binding("held", &count(1)).fold();
    cluster.binding("a-thief", &named("10.0.0.4")).fold();
    assert_eq!((cluster.exits("held"), cluster.exits("a-thief")), (vec!["10.0.0.4".to_owned()], vec![]));
    assert_eq!(cluster.conditions("a-thief"), ["True", "False AddressTaken", "False AddressTaken"]);
    let status = cluster.status_of("a-thief").expect("a status");
    let message = &condition(&status.conditions, RESOLVED).message;
    assert!(message.starts_with("10.0.0.4 is allocated to EgressBinding shop/held"), "{message}");
}

#[test]
fn a_pool_that_became_smaller_says_what_it_still_lends() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.4").binding("a", &count(1)).fold();
    let writes = cluster.pool("10.0.0.5", "10.0.0.5").fold();
    assert_eq!(cluster.exits("a"), ["10.0.0.4"]);
    let pool = &writes.pools[0].status;
    let accepted = condition(&pool.conditions, ACCEPTED);
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str(), pool.bindings), ("True", "LentOutsideBlocks", 1));
    assert!(accepted.message.contains("until their bindings release them: 10.0.0.4 (shop/a);"), "{}", accepted.message);
    assert!(reasons(&writes).contains(&"LentOutsideBlocks"));
}

#[test]
fn an_address_in_a_write_that_is_on_its_way_is_given_to_nobody_else() {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("slow", &count(1));
    let writes = fold(&cluster.world, &mut cluster.past, at(cluster.now));
    cluster.past.sent(&writes.bindings[0]);
    // An older binding by its name is seen before that write is answered.
    cluster.binding("fast", &count(1));
    let writes = fold(&cluster.world, &mut cluster.past, at(cluster.now));
    let fast = writes.bindings.iter().find(|write| write.name == "fast").expect("it is written");
    assert_eq!(fast.status.exits, ["10.0.0.5"]);
}

#[test]
fn an_older_state_of_an_object_is_not_taken_for_news() {
    let mut cluster = served();
    let mut object = cluster.object("crawler").expect("it is there").clone();
    object.metadata.resource_version = Some("100".to_owned());
    cluster.world.apply(Change::Bindings(Update::One(well_read(object.clone()))));
    object.metadata.resource_version = Some("99".to_owned());
    object.status = None;
    cluster.world.apply(Change::Bindings(Update::One(well_read(object))));
    assert_eq!(cluster.exits("crawler"), ["10.0.0.4"]);
}

#[test]
fn a_binding_and_a_pool_are_ready_when_their_other_conditions_are_true() {
    let mut cluster = Cluster::new();
    let ready = |conditions: &[Condition]| {
        let ready = condition(conditions, READY);
        (format!("{} {}", ready.status, ready.reason), ready.observed_generation)
    };
    let said = |what: &str| (what.to_owned(), Some(1));
    let of = |cluster: &Cluster, name: &str| ready(&cluster.status_of(name).expect("a status").conditions);
    let writes = cluster.pool("10.0.0.4", "10.0.0.4").binding("a", &count(1)).binding("b", &count(1)).fold();
    assert_eq!((of(&cluster, "a"), of(&cluster, "b")), (said("Unknown Pending"), said("False PoolExhausted")));
    assert_eq!(ready(&writes.pools[0].status.conditions), said("False PoolExhausted"));
    cluster.report("n1", "a", [2, 2, 0], None).fold();
    assert_eq!(of(&cluster, "a"), said("True Programmed"));
    cluster.world.apply(Change::Bindings(Update::Gone("shop/a".to_owned())));
    let writes = cluster.after(20).fold();
    assert_eq!((of(&cluster, "b"), ready(&writes.pools[0].status.conditions)), (said("True NoWorkloads"), said("True Available")));
}

#[test]
fn the_agents_are_told_what_is_inside_once_all_have_spoken_who_know() {
    let mut cluster = Cluster::new();
    let net = |text: &str| BTreeSet::from([text.parse().expect("a subnet")]);
    let all = |text: &str| Update::All(vec![Named { name: "one".to_owned(), value: net(text) }]);
    let node = ClusterNode { inside: net("10.244.0.0/24"), ..ClusterNode::default() };
    cluster.world.apply(Change::Nodes(Update::All(vec![Named { name: "one".to_owned(), value: node }])));
    cluster.world.apply(Change::Inside(InsideSource::ApiServer, Update::All(Vec::new())));
    cluster.world.apply(Change::ToldInside(None));
    assert_eq!(cluster.fold().inside, None, "the services' subnets may still come");
    cluster.world.apply(Change::Inside(InsideSource::Services, all("10.96.0.0/16")));
    let text = cluster.fold().inside.expect("all is known");
    assert_eq!(text, "10.96.0.0/16\n10.244.0.0/24\n");
    cluster.world.apply(Change::ToldInside(Some(text)));
    assert_eq!(cluster.fold().inside, None);
}
