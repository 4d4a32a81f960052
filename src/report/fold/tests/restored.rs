//! Allocations of bindings that come back without a status.

use super::*;
use crate::report::fold::record::KEPT;

/// A pool of three addresses, of which `b` has the first, `a` the second, and `named` names the third.
fn lent() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.6").binding("b", &count(1)).binding("named", &named("10.0.0.6")).fold();
    cluster.binding("a", &count(1)).fold();
    assert_eq!((cluster.exits("b"), cluster.exits("a")), (vec!["10.0.0.4".to_owned()], vec!["10.0.0.5".to_owned()]));
    cluster
}

/// The cluster of a backup that left out status, with a new leader: the pool and the record are there, and no binding yet.
fn restored(from: &Cluster) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.now = from.now;
    cluster.world.apply(Change::Recorded(from.world.recorded.clone().expect("it is written")));
    cluster.pool("10.0.0.4", "10.0.0.6");
    cluster
}

#[test]
fn who_comes_back_without_a_status_gets_what_it_had() {
    let before = lent();
    let data = before.world.recorded.clone().expect("it is written");
    assert_eq!(data["public"], "shop/a 10.0.0.5\nshop/b 10.0.0.4\nshop/named 10.0.0.6\n");
    let mut cluster = restored(&before);
    cluster.binding("a", &count(1)).fold();
    assert_eq!(cluster.exits("a"), ["10.0.0.5"], "the first is free, and another's");
    cluster.binding("b", &count(1)).binding("named", &named("10.0.0.6")).fold();
    assert_eq!((cluster.exits("b"), cluster.exits("named")), (vec!["10.0.0.4".to_owned()], vec!["10.0.0.6".to_owned()]));
    assert_eq!(cluster.world.recorded, Some(data));
}

#[test]
fn without_the_record_whoever_comes_first_gets_the_first() {
    let mut cluster = restored(&lent());
    cluster.world.apply(Change::Recorded(BTreeMap::new()));
    cluster.binding("a", &count(1)).fold();
    assert_eq!(cluster.exits("a"), ["10.0.0.4"]);
}

#[test]
fn the_pool_may_come_back_after_the_bindings() {
    let before = lent();
    let mut cluster = restored(&before);
    cluster.world.apply(Change::Pools(Update::All(Vec::new())));
    cluster.binding("a", &count(1)).binding("b", &count(1)).fold();
    assert_eq!(cluster.exits("a"), Vec::<String>::new());
    cluster.after(60).pool("10.0.0.4", "10.0.0.6").fold();
    assert_eq!((cluster.exits("a"), cluster.exits("b")), (vec!["10.0.0.5".to_owned()], vec!["10.0.0.4".to_owned()]));
}

#[test]
fn what_a_binding_may_come_back_for_is_kept_from_others_for_an_hour() {
    let mut cluster = restored(&lent());
    let writes = cluster.binding("stranger", &count(1)).fold();
    assert_eq!(cluster.conditions("stranger")[1], "False PoolExhausted");
    let status = &writes.pools[0].status;
    let message = &condition(&status.conditions, AVAILABLE).message;
    assert!(message.contains("may bring back: 10.0.0.5 (shop/a), 10.0.0.4 (shop/b), 10.0.0.6 (shop/named);"), "{message}");
    let again = writes.again.expect("it looks again by itself");
    assert!(again <= cluster.now + KEPT);
    cluster.now += KEPT - SignedDuration::from_secs(1);
    cluster.fold();
    assert_eq!(cluster.exits("stranger"), Vec::<String>::new());
    cluster.after(1).fold();
    assert_eq!(cluster.exits("stranger"), ["10.0.0.4"]);
    assert_eq!(cluster.world.recorded.as_ref().expect("written")["public"].lines().next(), Some("shop/a released 10.0.0.5"));
}

#[test]
fn a_line_that_is_deleted_frees_its_addresses_at_once() {
    let mut cluster = restored(&lent());
    cluster.binding("stranger", &count(1)).fold();
    assert_eq!(cluster.exits("stranger"), Vec::<String>::new());
    cluster.world.apply(Change::Recorded([("public".to_owned(), "shop/a 10.0.0.5\nshop/named 10.0.0.6\n".to_owned())].into()));
    cluster.fold();
    assert_eq!(cluster.exits("stranger"), ["10.0.0.4"]);
}

#[test]
fn who_was_seen_to_go_gets_its_address_again_unless_others_had_no_other() {
    let mut cluster = lent();
    let gone = |cluster: &mut Cluster, name: &str| cluster.world.apply(Change::Bindings(Update::Gone(format!("shop/{name}"))));
    gone(&mut cluster, "a");
    gone(&mut cluster, "b");
    cluster.fold();
    cluster.binding("a", &count(1)).fold();
    assert_eq!(cluster.exits("a"), ["10.0.0.5"], "it had that one");
    cluster.binding("stranger", &count(1)).fold();
    assert_eq!(cluster.exits("stranger"), ["10.0.0.4"], "there is no other");
    cluster.binding("b", &count(1)).fold();
    assert_eq!(cluster.conditions("b")[1], "False PoolExhausted");
    // Also with another leader: they have let go.
    gone(&mut cluster, "stranger");
    cluster.fold();
    cluster.past = Past::default();
    cluster.fold();
    assert_eq!(cluster.exits("b"), ["10.0.0.4"]);
}

#[test]
fn a_binding_that_asks_another_pool_or_for_less_lets_go_at_once() {
    let mut cluster = lent();
    cluster.binding("a", &json!({ "podSelector": {}, "pool": { "name": "other" } })).binding("stranger", &count(1)).fold();
    assert_eq!(cluster.exits("stranger"), ["10.0.0.5"]);
    let mut cluster = Cluster::new();
    cluster.pool("10.0.0.4", "10.0.0.5").binding("a", &count(2)).fold();
    cluster.binding("a", &count(1)).binding("stranger", &count(1)).fold();
    assert_eq!(cluster.exits("stranger"), ["10.0.0.5"]);
}

#[test]
fn a_line_that_says_nothing_is_passed_over() {
    let data = |text: &str| BTreeMap::from([("public".to_owned(), text.to_owned())]);
    let read = |text: &str| record::text(&record::read(&data(text))).0;
    let odd = "\nnonsense\nshop/a\n  shop/b   released 10.0.0.5 what 10.0.0.6\nshop/c fd00::1\nshop/d released\n";
    assert_eq!(read(odd), data("shop/b released 10.0.0.5 10.0.0.6\nshop/c fd00::1\n"));
    assert_eq!(read(""), BTreeMap::new());
}
