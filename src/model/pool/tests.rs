//! Who gets which addresses of a pool.

use std::sync::Arc;

use super::*;
use crate::model::binding::{PoolRequest, Selector, Source};
use crate::model::labels::LabelSelector;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pool(first: &str, last: &str) -> Pool {
    Pool {
        name: "public".to_owned(),
        blocks: vec![Block::new(address(first), address(last)).expect("of one family")],
        allowed_names: BTreeSet::from(["shop".to_owned()]),
        ..Pool::default()
    }
}

fn binding(name: &str, created: u64, wanted: Wanted) -> ApiBinding {
    let selector = Selector::Pods { namespace: "shop".to_owned(), labels: LabelSelector::default() };
    let pool = Some(PoolRequest { pool: "public".to_owned(), wanted });
    let binding = Binding { pool, created, ..Binding::plain(Source::Api, &format!("shop/{name}"), selector) };
    let namespace = "shop".to_owned();
    ApiBinding { namespace, name: name.to_owned(), uid: name.to_owned(), generation: 1, binding: Arc::new(binding), allocated: Vec::new() }
}

fn known(pool: Pool) -> Known<Pool> {
    Known::from([(pool.name.clone(), Arc::new(pool))])
}

fn lender<'a>(pools: &'a Known<Pool>, node: &'a Labels) -> Lender<'a> {
    Lender { pools: Some(pools), namespaces: None, node, raw_exits: false }
}

/// What each gets, in the order given.
fn allocated(pool: Pool, bindings: &[ApiBinding]) -> Vec<(Vec<String>, usize)> {
    let (pools, node) = (known(pool), Labels::new());
    let keyed: Vec<(String, &ApiBinding)> = bindings.iter().map(|b| (b.name.clone(), b)).collect();
    let all = allocate(&lender(&pools, &node), keyed.iter().map(|(key, b)| (key, *b)));
    let of = |b: &ApiBinding| all.get(&b.name).cloned().unwrap_or_default();
    bindings.iter().map(of).map(|a| (a.addresses.iter().map(ToString::to_string).collect(), a.missing)).collect()
}

#[test]
fn the_oldest_comes_first_and_who_is_left_without_is_counted() {
    let bindings = [binding("late", 2, Wanted::Any(2)), binding("early", 1, Wanted::Any(2))];
    let got = allocated(pool("10.0.0.4", "10.0.0.6"), &bindings);
    assert_eq!(got[1], (vec!["10.0.0.4".to_owned(), "10.0.0.5".to_owned()], 0));
    assert_eq!(got[0], (vec!["10.0.0.6".to_owned()], 1));
}

#[test]
fn who_has_an_address_keeps_it_whoever_comes() {
    let mut late = binding("late", 2, Wanted::Any(1));
    late.allocated = vec![address("10.0.0.4")];
    let got = allocated(pool("10.0.0.4", "10.0.0.5"), &[late, binding("early", 1, Wanted::Any(1))]);
    assert_eq!(got, [(vec!["10.0.0.4".to_owned()], 0), (vec!["10.0.0.5".to_owned()], 0)]);
}

#[test]
fn two_that_have_one_address_are_parted() {
    let mut bindings = [binding("a", 1, Wanted::Any(1)), binding("b", 2, Wanted::Any(1))];
    bindings.iter_mut().for_each(|b| b.allocated = vec![address("10.0.0.4")]);
    let got = allocated(pool("10.0.0.4", "10.0.0.5"), &bindings);
    assert_eq!(got, [(vec!["10.0.0.4".to_owned()], 0), (vec!["10.0.0.5".to_owned()], 0)]);
}

#[test]
fn an_address_that_a_binding_names_is_given_to_nobody_else() {
    let named = binding("named", 9, Wanted::These(vec![address("10.0.0.4")]));
    let got = allocated(pool("10.0.0.4", "10.0.0.5"), &[named, binding("any", 1, Wanted::Any(1))]);
    assert_eq!(got[1], (vec!["10.0.0.5".to_owned()], 0));
}

#[test]
fn a_pool_that_became_smaller_takes_its_addresses_back() {
    let mut one = binding("one", 1, Wanted::Any(1));
    one.allocated = vec![address("10.0.0.9")];
    assert_eq!(allocated(pool("10.0.0.4", "10.0.0.5"), &[one]), [(vec!["10.0.0.4".to_owned()], 0)]);
}

#[test]
fn what_a_binding_may_not_have_is_refused_with_the_reason() {
    let these = |text: &str| Wanted::These(vec![address(text)]);
    let word = |pool: Pool, raw: bool, one: &ApiBinding, node: &[(&str, &str)]| {
        let pools = known(pool);
        let node = node.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let lender = Lender { raw_exits: raw, ..lender(&pools, &node) };
        let granted = lender.grant(one);
        granted.refusal.map_or_else(|| format!("{:?}", granted.exits[0].address), |reason| reason.word().to_owned())
    };
    let whole = || pool("10.0.0.4", "10.0.0.5");
    let one = binding("one", 1, these("10.0.0.4"));
    assert_eq!(word(whole(), false, &one, &[]), "10.0.0.4");
    assert_eq!(word(whole(), false, &binding("one", 1, these("10.0.0.6")), &[]), "AddressNotInPool");
    assert_eq!(word(whole(), false, &binding("one", 1, Wanted::Any(1)), &[]), "NotAllocated");
    assert_eq!(word(Pool { allowed_names: BTreeSet::new(), ..whole() }, false, &one, &[]), "NamespaceNotAllowed");
    assert_eq!(word(Pool { name: "other".to_owned(), ..whole() }, false, &one, &[]), "PoolNotFound");
    let for_edge = || Pool { nodes: Labels::from([("edge".to_owned(), "yes".to_owned())]), ..whole() };
    assert_eq!(word(for_edge(), false, &one, &[]), "NoExitOnNode");
    assert_eq!(word(for_edge(), false, &one, &[("edge", "yes")]), "10.0.0.4");
    let mut raw = one.clone();
    let plain = Binding {
        pool: None,
        exits: vec![ExitSpec { address: address("10.0.0.4"), interface: None, gateway: None }],
        ..Binding::clone(&one.binding)
    };
    raw.binding = Arc::new(plain);
    assert_eq!(word(whole(), false, &raw, &[]), "RawExitsNotAllowed");
    assert_eq!(word(whole(), true, &raw, &[]), "10.0.0.4");
}

#[test]
fn a_namespace_that_loses_the_label_loses_the_pool() {
    let label = Labels::from([("egress".to_owned(), "yes".to_owned())]);
    let pools = known(Pool { allowed_names: BTreeSet::new(), allowed_labels: label.clone(), ..pool("10.0.0.4", "10.0.0.5") });
    let one = binding("one", 1, Wanted::These(vec![address("10.0.0.4")]));
    let node = Labels::new();
    let refusal = |labels: Labels| {
        let namespaces = Known::from([("shop".to_owned(), Arc::new(Namespace { name: "shop".to_owned(), labels }))]);
        Lender { namespaces: Some(&namespaces), ..lender(&pools, &node) }.grant(&one).refusal
    };
    assert_eq!(refusal(label), None);
    let gone = Reason::NamespaceNotAllowed { pool: "public".to_owned(), namespace: "shop".to_owned() };
    assert_eq!(refusal(Labels::new()), Some(gone));
}
