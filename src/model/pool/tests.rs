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

fn lender<'a>(pools: &'a Known<Pool>, node: &'a Node) -> Lender<'a> {
    Lender { pools: Some(pools), namespaces: None, node, raw_exits: false }
}

/// What each gets, in the order given.
fn allocated(pool: Pool, bindings: &[ApiBinding]) -> Vec<(Vec<String>, usize)> {
    let (pools, node) = (known(pool), Node::default());
    let keyed: Vec<(String, &ApiBinding)> = bindings.iter().map(|b| (b.name.clone(), b)).collect();
    let all = allocate(&lender(&pools, &node), keyed.iter().map(|(key, b)| (key, *b)), &Record::default());
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

fn with(mut binding: ApiBinding, allocated: &str) -> ApiBinding {
    binding.allocated = vec![address(allocated)];
    binding
}

fn these(text: &str) -> Wanted {
    Wanted::These(vec![address(text)])
}

/// What each leaves with, or why it does not, in the order given.
fn exits(pool: Pool, bindings: &[ApiBinding]) -> Vec<Result<String, Reason>> {
    let (pools, node) = (known(pool), Node::default());
    let lender = lender(&pools, &node);
    let keyed: Vec<(String, &ApiBinding)> = bindings.iter().map(|b| (b.name.clone(), b)).collect();
    let holders = holders(&lender, keyed.iter().map(|(key, b)| (key, *b)));
    let exits = |b: &ApiBinding| lender.exits(b, &b.allocated, &holders).map(|exits| exits[0].address.to_string());
    bindings.iter().map(exits).collect()
}

#[test]
fn whoever_names_an_address_that_another_has_by_number_is_refused_and_takes_nothing() {
    let held = with(binding("held", 2, Wanted::Any(1)), "10.0.0.4");
    // Neither a later binding nor an older one, which may have been edited only now.
    for created in [1, 9] {
        let bindings = [held.clone(), binding("thief", created, these("10.0.0.4"))];
        let whole = || pool("10.0.0.4", "10.0.0.9");
        assert_eq!(allocated(whole(), &bindings)[0], (vec!["10.0.0.4".to_owned()], 0));
        let taken = Reason::AddressTaken { address: address("10.0.0.4"), by: "held".to_owned() };
        assert_eq!(exits(whole(), &bindings), [Ok("10.0.0.4".to_owned()), Err(taken)]);
    }
}

#[test]
fn whoever_names_an_address_of_another_pool_takes_nothing() {
    let mut pools = known(pool("10.0.0.4", "10.0.0.9"));
    pools.extend(known(Pool { name: "small".to_owned(), ..pool("10.0.1.1", "10.0.1.1") }));
    let held = with(binding("held", 1, Wanted::Any(1)), "10.0.0.4");
    let mut stranger = binding("stranger", 2, these("10.0.0.4"));
    let request = PoolRequest { pool: "small".to_owned(), wanted: these("10.0.0.4") };
    stranger.binding = Arc::new(Binding { pool: Some(request), ..Binding::clone(&stranger.binding) });
    let (node, keys) = (Node::default(), ["held".to_owned(), "stranger".to_owned()]);
    let lender = lender(&pools, &node);
    let all = allocate(&lender, keys.iter().zip([&held, &stranger]), &Record::default());
    assert_eq!(all["held"].addresses, [address("10.0.0.4")]);
    let refused = lender.exits(&stranger, &[], &Holders::new());
    assert_eq!(refused, Err(Reason::AddressNotInPool { address: address("10.0.0.4"), pool: "small".to_owned() }));
}

#[test]
fn several_may_name_an_address_and_none_of_them_gets_it_alone_by_asking_for_a_number_then() {
    let shared = || with(binding("shared", 2, these("10.0.0.4")), "10.0.0.4");
    let both = [shared(), with(binding("other", 1, these("10.0.0.4")), "10.0.0.4")];
    let whole = || pool("10.0.0.4", "10.0.0.5");
    assert_eq!(exits(whole(), &both), [Ok("10.0.0.4".to_owned()), Ok("10.0.0.4".to_owned())]);
    let edited = [shared(), with(binding("other", 1, Wanted::Any(1)), "10.0.0.4")];
    assert_eq!(allocated(whole(), &edited)[1], (vec!["10.0.0.5".to_owned()], 0));
    assert_eq!(exits(whole(), &edited)[0], Ok("10.0.0.4".to_owned()));
}

#[test]
fn of_two_new_bindings_the_older_one_gets_the_last_address() {
    let one = || pool("10.0.0.4", "10.0.0.4");
    let got = |named| allocated(one(), &[binding("any", 5, Wanted::Any(1)), binding("named", named, these("10.0.0.4"))])[0].1;
    assert_eq!((got(9), got(1)), (0, 1));
}

#[test]
fn what_a_pool_lent_before_it_became_smaller_stays_until_its_administrator_forces_it() {
    let late = with(binding("one", 1, Wanted::Any(1)), "10.0.0.9");
    let named = with(binding("two", 2, these("10.0.0.8")), "10.0.0.8");
    let smaller = |forced| Pool { forced, ..pool("10.0.0.4", "10.0.0.5") };
    let all = [late, named];
    assert_eq!(allocated(smaller(false), &all)[0], (vec!["10.0.0.9".to_owned()], 0));
    assert_eq!(exits(smaller(false), &all), [Ok("10.0.0.9".to_owned()), Ok("10.0.0.8".to_owned())]);
    assert_eq!(allocated(smaller(true), &all)[0], (vec!["10.0.0.4".to_owned()], 0));
    let refused = Reason::AddressNotInPool { address: address("10.0.0.8"), pool: "public".to_owned() };
    assert_eq!(exits(smaller(true), &all)[1], Err(refused));
    let fewer = with(binding("one", 1, Wanted::Any(0)), "10.0.0.9");
    assert_eq!(allocated(smaller(false), &[fewer])[0], (vec![], 0), "it lets go");
}

#[test]
fn an_invalid_edit_of_a_pool_costs_nobody_an_address() {
    let invalid = Pool {
        errors: vec![FieldError { field: "spec.gateway".to_owned(), message: "is odd".to_owned() }],
        ..pool("10.0.0.4", "10.0.0.9")
    };
    let got = allocated(invalid, &[binding("new", 1, Wanted::Any(1)), with(binding("old", 2, Wanted::Any(1)), "10.0.0.4")]);
    assert_eq!(got, [(vec![], 1), (vec!["10.0.0.4".to_owned()], 0)]);
}

mod property {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> impl Strategy<Value = Wanted> {
        let named = prop::collection::btree_set(0_u8..8, 1..4);
        let named = named.prop_map(|all| Wanted::These(all.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect()));
        prop_oneof![(1_usize..4).prop_map(Wanted::Any), named]
    }

    /// Bindings that come one after the other; the last one may be older than all others.
    fn bindings() -> impl Strategy<Value = Vec<(u64, Wanted)>> {
        prop::collection::vec((0_u64..20, wanted()), 1..8)
    }

    /// What a leader writes into the statuses.
    fn settle(all: &mut [ApiBinding]) {
        let (pools, node) = (known(pool("10.0.0.1", "10.0.0.6")), Node::default());
        let lender = lender(&pools, &node);
        let before = all.to_vec();
        let keyed: Vec<(String, &ApiBinding)> = before.iter().map(|b| (b.name.clone(), b)).collect();
        let got = allocate(&lender, keyed.iter().map(|(key, b)| (key, *b)), &Record::default());
        let holders: Holders = got.iter().flat_map(|(key, got)| got.addresses.iter().map(|a| (*a, key.clone()))).collect();
        for one in all {
            let allocated = got.get(&one.name).map_or(&one.allocated, |got| &got.addresses);
            let exits = lender.exits(one, allocated, &holders).unwrap_or_default();
            one.allocated = exits.iter().map(|exit| exit.address).collect();
        }
    }

    fn is_alone(one: &ApiBinding) -> bool {
        one.binding.pool.as_ref().is_some_and(|request| matches!(request.wanted, Wanted::Any(_)))
    }

    proptest! {
        #[test]
        fn nobody_loses_an_address_to_whoever_comes_and_what_is_ones_alone_is_nobody_elses(asked in bindings(), edit in wanted(), which in 0_usize..8) {
            let mut all: Vec<ApiBinding> = Vec::new();
            for (number, (created, wanted)) in asked.into_iter().enumerate() {
                let before = all.clone();
                all.push(binding(&format!("b{number}"), created, wanted));
                settle(&mut all);
                for (old, new) in before.iter().zip(&all) {
                    prop_assert!(old.allocated.iter().all(|a| new.allocated.contains(a)), "{before:?}\n{all:?}");
                }
            }
            // Somebody edits a binding that is there: that costs no other one anything either.
            let which = which % all.len();
            let before = all.clone();
            let edited = binding(&all[which].name, all[which].binding.created, edit);
            all[which].binding = edited.binding;
            settle(&mut all);
            for (old, new) in before.iter().zip(&all).enumerate().filter(|(at, _)| *at != which).map(|(_, pair)| pair) {
                prop_assert!(old.allocated.iter().all(|a| new.allocated.contains(a)), "{before:?}\n{all:?}");
            }
            for (at, one) in all.iter().enumerate().filter(|(_, one)| is_alone(one)) {
                let others = all.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, other)| &other.allocated);
                prop_assert!(others.into_iter().all(|a| !one.allocated.contains(a)), "{all:?}");
            }
            // What somebody gave back is lent with the next look.
            settle(&mut all);
            let settled = all.clone();
            settle(&mut all);
            prop_assert_eq!(settled, all, "it is decided");
        }
    }
}

#[test]
fn what_a_binding_may_not_have_is_refused_with_the_reason() {
    let these = |text: &str| Wanted::These(vec![address(text)]);
    let word = |pool: Pool, raw: bool, one: &ApiBinding, node: &[(&str, &str)]| {
        let pools = known(pool);
        let labels = node.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let node = Node { name: "n1".to_owned(), labels, ..Node::default() };
        let lender = Lender { raw_exits: raw, ..lender(&pools, &node) };
        let granted = lender.grant(one, &Holders::new());
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
    let plain = Binding { pool: None, exits: vec![ExitSpec::new(address("10.0.0.4"))], ..Binding::clone(&one.binding) };
    raw.binding = Arc::new(plain);
    assert_eq!(word(whole(), false, &raw, &[]), "RawExitsNotAllowed");
    assert_eq!(word(whole(), true, &raw, &[]), "10.0.0.4");
}

#[test]
fn a_namespace_that_loses_the_label_loses_the_pool() {
    let label = Labels::from([("egress".to_owned(), "yes".to_owned())]);
    let pools = known(Pool { allowed_names: BTreeSet::new(), allowed_labels: label.clone(), ..pool("10.0.0.4", "10.0.0.5") });
    let one = binding("one", 1, Wanted::These(vec![address("10.0.0.4")]));
    let node = Node::default();
    let refusal = |labels: Labels| {
        let namespaces = Known::from([("shop".to_owned(), Arc::new(Namespace { name: "shop".to_owned(), labels }))]);
        Lender { namespaces: Some(&namespaces), ..lender(&pools, &node) }.grant(&one, &Holders::new()).refusal
    };
    assert_eq!(refusal(label), None);
    let gone = Reason::NamespaceNotAllowed { pool: "public".to_owned(), namespace: "shop".to_owned() };
    assert_eq!(refusal(Labels::new()), Some(gone));
}

#[test]
fn a_node_leaves_by_those_addresses_that_it_was_given_and_says_who_has_the_others() {
    let places = Places::from([(address("10.0.0.4"), "n1".to_owned()), (address("10.0.0.5"), "n2".to_owned())]);
    let pools = known(Pool { assignment: Assignment::Managed, places, ..pool("10.0.0.4", "10.0.0.6") });
    let on = |name: &str, named: &[&str]| {
        let node = Node { name: name.to_owned(), ..Node::default() };
        let one = binding("one", 1, Wanted::These(named.iter().map(|text| address(text)).collect()));
        let granted = lender(&pools, &node).grant(&one, &Holders::new());
        let exits: Vec<String> = granted.exits.iter().map(|exit| format!("{:?} {}", exit.assignment, exit.address)).collect();
        (exits, granted.refusal)
    };
    assert_eq!(on("n1", &["10.0.0.4", "10.0.0.5"]), (vec!["Managed 10.0.0.4".to_owned()], None));
    assert_eq!(on("n2", &["10.0.0.4", "10.0.0.5"]), (vec!["Managed 10.0.0.5".to_owned()], None));
    let elsewhere = |text: &str, node: Option<&str>| {
        Some(Reason::PlacedElsewhere { pool: "public".to_owned(), address: address(text), node: node.map(str::to_owned) })
    };
    assert_eq!(on("n1", &["10.0.0.5"]), (Vec::new(), elsewhere("10.0.0.5", Some("n2"))));
    assert_eq!(on("n1", &["10.0.0.6"]), (Vec::new(), elsewhere("10.0.0.6", None)));
}
