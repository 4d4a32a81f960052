//! The model against a cloud that does what it is asked: what is answered is what is read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egressd::model::cloud::{Aws, CloudPool, ElasticAddresses, Host, Interface};

use super::answers::supposed;
use super::call::{Answer, Call};
use super::facts::{Association, DefaultRoute, Elastic, Facts, Limits, Nic, NicAddress, Subnet, Tags, Target};
use super::outcome::report;
use super::plan::plan;
use super::release::{Kept, release, surplus};
use super::report::{Aspect, Reason};
use super::tags;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn pool(last: &[u8]) -> CloudPool {
    let aws = Aws {
        region: None,
        interface: Interface::InSubnet,
        elastic: Some(ElasticAddresses::Allocate),
        forwards: true,
        route_tables: vec!["rtb-1".to_owned(), "rtb-2".to_owned()],
    };
    CloudPool { name: "web".to_owned(), addresses: last.iter().copied().map(address).collect(), aws, host: None }
}

fn nic(id: &str) -> Nic {
    Nic {
        id: id.to_owned(),
        subnet: Subnet { id: "subnet-1".to_owned(), range: Some((address(0), address(255))) },
        attachment: Some(("i-1".to_owned(), 0)),
        addresses: vec![NicAddress { address: address(10), public: None }],
        source_dest_check: true,
        ..Nic::default()
    }
}

/// A NIC with its primary address, a table that leads to a gateway and one that leads nowhere, and an elastic address of somebody else.
fn cloud() -> Facts {
    let nic = nic("eni-1");
    let gateway = DefaultRoute { target: Some(Target::of("igw-1")), alive: true };
    let tables = BTreeMap::from([("rtb-1".to_owned(), gateway), ("rtb-2".to_owned(), DefaultRoute { target: None, alive: false })]);
    let foreign = Elastic { id: "eipalloc-0".to_owned(), public: address(0), association: None, tags: Tags::new() };
    let limits = Limits { nic: Some(("m5.large".to_owned(), 10)), elastic: Some(5), taken: BTreeMap::new() };
    Facts { nic, elastics: vec![foreign], gone: [].into(), tables, limits: Some(limits) }
}

fn answer(call: &Call, count: usize) -> Answer {
    match supposed(call, count) {
        Answer::Allocated { id, .. } => Answer::Allocated { id, public: Ipv4Addr::new(192, 0, 2, count as u8) },
        other => other,
    }
}

/// Carries out what is due, so many calls at most.
fn converge(pool: &CloudPool, facts: &mut Facts, most: usize) -> Vec<Call> {
    let mut made = Vec::new();
    while let Some(next) = plan(pool, facts).calls.into_iter().next().filter(|_| made.len() < most) {
        facts.learn(&next.call, &answer(&next.call, facts.elastics.len() + made.len()));
        made.push(next.call);
    }
    made
}

fn give_back(kept: &Kept, facts: &mut Facts, most: usize) -> usize {
    let mut made = 0;
    while let Some(next) = release("web", kept, facts).calls.into_iter().next().filter(|_| made < most) {
        facts.learn(&next.call, &Answer::Done);
        made += 1;
    }
    made
}

#[test]
fn a_pool_is_ready_after_its_calls_and_asks_for_no_other() {
    let (pool, mut facts) = (pool(&[94, 95]), cloud());
    let made = converge(&pool, &mut facts, usize::MAX);
    assert!(made.len() < 20, "{made:?}");
    let due = plan(&pool, &facts);
    assert!(due.calls.is_empty() && due.problems.is_empty(), "{due:?}");
    let report = report(&pool, &Kept::of(&pool, []), &facts, &due, &[]);
    assert!(report.ready && report.addresses.values().all(|address| address.ready && address.public_address.is_some()), "{report:?}");
}

#[test]
fn whoever_goes_on_after_any_number_of_calls_ends_where_one_alone_ends() {
    let pool = pool(&[94, 95]);
    let mut whole = cloud();
    let calls = converge(&pool, &mut whole, usize::MAX).len();
    for before in 0..=calls {
        let mut facts = cloud();
        let first = converge(&pool, &mut facts, before).len();
        let second = converge(&pool, &mut facts, usize::MAX).len();
        assert_eq!(first + second, calls, "killed after {before}");
        assert_eq!(facts.elastics.len(), whole.elastics.len());
        assert_eq!(facts.nic.tags, whole.nic.tags);
    }
}

#[test]
fn a_release_leaves_what_was_there_before_wherever_it_is_interrupted() {
    let pool = pool(&[94, 95]);
    let kept = Kept::default();
    let mut full = cloud();
    converge(&pool, &mut full, usize::MAX);
    let calls = give_back(&kept, &mut full.clone(), usize::MAX);
    for before in 0..=calls {
        let mut facts = full.clone();
        give_back(&kept, &mut facts, before);
        give_back(&kept, &mut facts, usize::MAX);
        assert_eq!(facts, cloud(), "interrupted after {before} of {calls}");
    }
}

/// Another pool at the same NIC, without anything but these addresses.
fn other(last: &[u8]) -> CloudPool {
    let mut other = pool(last);
    other.name = "web2".to_owned();
    other.aws = Aws { elastic: None, forwards: false, route_tables: Vec::new(), ..other.aws };
    other
}

#[test]
fn what_another_pool_asks_for_stays_and_is_that_one_s_wherever_a_release_is_interrupted() {
    let (first, second) = (pool(&[94, 95]), other(&[95, 96]));
    let mut full = cloud();
    converge(&first, &mut full, usize::MAX);
    converge(&second, &mut full, usize::MAX);
    let kept = Kept { addresses: None, ..Kept::of(&second, [&second]) };
    let calls = give_back(&kept, &mut full.clone(), usize::MAX);
    for before in 0..=calls {
        let mut facts = full.clone();
        give_back(&kept, &mut facts, before);
        give_back(&kept, &mut facts, usize::MAX);
        let left: Vec<Ipv4Addr> = facts.nic.addresses.iter().map(|held| held.address).collect();
        assert_eq!(left, [address(10), address(95), address(96)], "interrupted after {before} of {calls}");
        assert_eq!(tags::ledger(&facts.nic.tags, "web2"), [address(95), address(96)].into());
        assert_eq!(tags::pools(&facts.nic.tags).collect::<Vec<_>>(), ["web2"]);
        assert_eq!((facts.elastics, facts.tables), (cloud().elastics, cloud().tables));
    }
}

#[test]
fn a_pool_that_stays_gives_back_whatever_it_no_longer_asks_for() {
    let (full, less) = (pool(&[94, 95]), CloudPool { name: "web".to_owned(), ..other(&[94, 95]) });
    let mut facts = cloud();
    converge(&full, &mut facts, usize::MAX);
    assert_eq!(surplus("web", &Kept::of(&full, []), &facts), Vec::<String>::new());
    let told = surplus("web", &Kept::of(&less, []), &facts).join("\n");
    for word in ["for 10.0.1.94", "for 10.0.1.95", "route of rtb-1", "route of rtb-2", "source/destination check"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(told.lines().count(), 5, "{told}");
    let mut shared = facts.clone();
    give_back(&Kept::of(&less, []), &mut facts, usize::MAX);
    let mut plain = cloud();
    converge(&less, &mut plain, usize::MAX);
    assert_eq!(facts, plain, "as if it had never asked for more");

    // A pool that nobody knows here may want the routes and the check.
    shared.nic.tags.insert("egressd.dev/pool/far".to_owned(), String::new());
    assert_eq!(surplus("web", &Kept::of(&less, []), &shared).len(), 2);
    give_back(&Kept::of(&less, []), &mut shared, usize::MAX);
    assert!(!shared.nic.source_dest_check && shared.tables["rtb-1"].target == Some(Target::Nic("eni-1".to_owned())));
    assert_eq!(shared.elastics, cloud().elastics);
}

#[test]
fn what_was_on_the_nic_before_is_used_and_not_given_back() {
    let (pool, mut facts) = (pool(&[94, 95]), cloud());
    facts.nic.addresses.push(NicAddress { address: address(94), public: None });
    let before = facts.clone();
    let made = converge(&pool, &mut facts, usize::MAX);
    assert!(made.contains(&Call::Assign { nic: "eni-1".to_owned(), addresses: vec![address(95)] }), "{made:?}");
    give_back(&Kept::default(), &mut facts, usize::MAX);
    assert_eq!(facts, before);
}

#[test]
fn no_call_touches_what_bears_no_tag_of_the_pool() {
    let (pool, mut facts) = (pool(&[94]), cloud());
    // Another host's pool of the same name.
    let tags = tags::elastic("web", &nic("eni-2"), address(94), true);
    facts.elastics.push(Elastic { id: "eipalloc-9".to_owned(), public: address(9), association: None, tags });
    let foreign = facts.elastics.clone();
    converge(&pool, &mut facts, usize::MAX);
    give_back(&Kept::default(), &mut facts, usize::MAX);
    assert_eq!(facts.elastics, foreign);
}

#[test]
fn a_second_address_that_was_allocated_for_one_is_released_once_the_first_leads_there() {
    let (pool, mut facts) = (pool(&[94]), cloud());
    converge(&pool, &mut facts, usize::MAX);
    let tags = tags::elastic("web", &nic("eni-1"), address(94), true);
    facts.elastics.push(Elastic { id: "eipalloc-z".to_owned(), public: address(8), association: None, tags });
    let due = plan(&pool, &facts).calls;
    assert_eq!(due.iter().map(|planned| &planned.call).collect::<Vec<_>>(), [&Call::Release { id: "eipalloc-z".to_owned() }]);
}

#[test]
fn more_than_the_limits_is_not_asked_for() {
    let (pool, mut facts) = (pool(&[90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101]), cloud());
    facts.nic.prefixes = 2;
    converge(&pool, &mut facts, usize::MAX);
    assert_eq!(facts.nic.addresses.len() + facts.nic.prefixes, 10);
    assert_eq!(facts.elastics.len(), 5);
    let due = plan(&pool, &facts);
    let reached = |aspect| due.problems.iter().filter(|it| it.aspect == aspect && it.reason == Reason::LimitReached).count();
    assert_eq!([reached(Aspect::AddressesAssigned), reached(Aspect::ElasticAddressesAssociated)], [5, 3]);
}

#[test]
fn what_is_not_shown_yet_is_not_ready() {
    let (pool, mut facts) = (pool(&[94]), cloud());
    let shown = facts.clone();
    converge(&pool, &mut facts, usize::MAX);
    let report = report(&pool, &Kept::of(&pool, []), &shown, &plan(&pool, &facts), &[]);
    assert!(!report.ready && !report.addresses[&address(94)].ready, "{report:?}");
    assert!(report.conditions.values().all(|condition| condition.reason == Reason::Pending), "{report:?}");
}

#[test]
fn an_address_of_a_cluster_keeps_its_elastic_address_on_another_node_once_nothing_leads_there_any_more() {
    let (mut pool, mut facts) = (pool(&[94]), cloud());
    let tags = tags::elastic("web", &nic("eni-2"), address(94), true);
    let association = Association { id: "eipassoc-9".to_owned(), nic: Some("eni-2".to_owned()), private: Some(address(94)) };
    facts.elastics.push(Elastic { id: "eipalloc-9".to_owned(), public: address(9), association: Some(association), tags });
    pool.host = Some(Host { node: "n2".to_owned(), instance: "i-1".to_owned(), ..Host::default() });
    let elsewhere = facts.clone();
    facts.elastics[1].association = None;
    let mut other = facts.clone();
    other.elastics[1].tags.insert(tags::SUBNET.to_owned(), "subnet-2".to_owned());
    for (facts, adopted) in [(facts, true), (elsewhere, false), (other, false)] {
        let mut facts = facts;
        let made = converge(&pool, &mut facts, usize::MAX);
        let allocated = made.iter().any(|call| matches!(call, Call::Allocate { .. }));
        assert_eq!(allocated, !adopted, "{made:?}");
        let claim = tags::claim(&facts.elastics[1]).expect("its tags stay");
        assert_eq!(claim.nic, if adopted { "eni-1" } else { "eni-2" });
    }
}

#[test]
fn a_network_interface_in_the_place_of_one_that_is_gone_gets_its_elastic_addresses() {
    for (gone, adopted) in [(true, true), (false, false)] {
        let (pool, mut facts) = (pool(&[94]), cloud());
        let of = |private| tags::elastic("web", &nic("eni-0"), address(private), true);
        let left = |id: &str, private| Elastic { id: id.to_owned(), public: address(private), association: None, tags: of(private) };
        facts.elastics.extend([left("eipalloc-1", 94), left("eipalloc-2", 95)]);
        if gone {
            facts.gone.insert("eni-0".to_owned());
        }
        let kept = Kept::of(&pool, []);
        let told = surplus("web", &kept, &facts);
        assert_eq!(told.iter().filter(|one| one.contains("eipalloc-2") && one.contains("eni-0")).count(), usize::from(gone), "{told:?}");
        assert_eq!(told.len(), usize::from(gone), "{told:?}");
        let made = converge(&pool, &mut facts, usize::MAX);
        assert_eq!(made.iter().any(|call| matches!(call, Call::Allocate { .. })), !adopted, "{made:?}");
        let leads = |elastic: &Elastic| elastic.association.as_ref().is_some_and(|it| it.is_with("eni-1", address(94)));
        assert_eq!(facts.elastics.iter().any(|elastic| elastic.id == "eipalloc-1" && leads(elastic)), adopted);
    }
}

#[test]
fn a_route_is_led_back_to_where_it_led_last() {
    let (pool, mut facts) = (pool(&[94]), cloud());
    converge(&pool, &mut facts, usize::MAX);
    let moved = DefaultRoute { target: Some(Target::of("igw-2")), alive: true };
    facts.tables.insert("rtb-1".to_owned(), moved.clone());
    // Deleted by hand, it is made anew.
    facts.tables.insert("rtb-2".to_owned(), DefaultRoute { target: None, alive: false });
    converge(&pool, &mut facts, usize::MAX);
    assert!(plan(&pool, &facts).calls.is_empty() && facts.tables["rtb-1"].target == Some(Target::Nic("eni-1".to_owned())));
    give_back(&Kept::default(), &mut facts, usize::MAX);
    assert_eq!((&facts.tables["rtb-1"], &facts.tables["rtb-2"].target), (&moved, &None));
}

#[test]
fn what_the_subnet_keeps_for_itself_is_named_and_not_asked_for() {
    let (pool, mut facts) = (pool(&[0, 3, 4, 254, 255]), cloud());
    converge(&pool, &mut facts, usize::MAX);
    let due = plan(&pool, &facts);
    let named: Vec<_> = due.problems.iter().filter(|it| it.reason == Reason::Reserved).filter_map(|it| it.address).collect();
    assert_eq!(named, [address(0), address(3), address(255)]);
    assert!(facts.nic.holds(address(4)) && facts.nic.holds(address(254)));
}

#[test]
fn of_two_hosts_that_choose_one_tagged_address_the_one_to_which_it_leads_has_it() {
    let mut pool = pool(&[94]);
    pool.aws.elastic = Some(ElasticAddresses::Tagged { key: "role".to_owned(), value: "egress".to_owned() });
    let offered = |id: &str| Elastic {
        id: id.to_owned(),
        public: address(9),
        association: None,
        tags: Tags::from([("role".to_owned(), "egress".to_owned())]),
    };
    let mut chosen = offered("eipalloc-1");
    let claim = |nic_id: &str, last| tags::elastic("web", &nic(nic_id), address(last), false);
    let leads =
        |nic: &str, last| Some(Association { id: "eipassoc-1".to_owned(), nic: Some(nic.to_owned()), private: Some(address(last)) });
    // It leads here, and the other host's tags are on it.
    chosen.tags.extend(claim("eni-2", 104));
    chosen.association = leads("eni-1", 94);
    let mut facts = cloud();
    facts.elastics = vec![chosen.clone(), offered("eipalloc-2")];
    facts.nic.addresses.push(NicAddress { address: address(94), public: Some(address(9)) });
    converge(&pool, &mut facts, usize::MAX);
    assert_eq!(tags::claim(&facts.elastics[0]).map(|claim| (claim.nic.to_owned(), claim.private)), Some(("eni-1".to_owned(), address(94))));
    assert_eq!((&facts.elastics[0].association, &facts.elastics[1]), (&chosen.association, &offered("eipalloc-2")));

    // It leads to the other one, and our tags are on it: the next one is taken.
    chosen.tags.extend(claim("eni-1", 94));
    chosen.association = leads("eni-2", 104);
    let mut facts = cloud();
    facts.elastics = vec![chosen.clone(), offered("eipalloc-2")];
    converge(&pool, &mut facts, usize::MAX);
    assert!(facts.elastics[1].association.as_ref().is_some_and(|it| it.is_with("eni-1", address(94))), "{facts:?}");
    assert_eq!(facts.elastics[0], chosen, "that one's tags are for the other to put right");
    // There is none but it.
    let mut facts = cloud();
    facts.elastics = vec![chosen];
    converge(&pool, &mut facts, usize::MAX);
    assert_eq!(plan(&pool, &facts).problems.iter().map(|it| it.reason).collect::<Vec<_>>(), [Reason::TakenAway]);
}
