//! Whose address it is, for pods: by namespace, by what the API server says, and after somebody is gone.

use super::*;
use crate::model::binding::{BindingName, ExitSpec, Selector, Source};
use crate::model::cluster::{Cluster, ClusterChange, Update};
use crate::model::facts::{Address, EngineChange, KernelChange, LinkKind, Network, Place as Spot, Route};
use crate::model::labels::{LabelSelector, Labels};
use crate::model::objects::ApiBinding;
use crate::model::pod::RuntimeChange;
use crate::model::resolve::{Outcome, Past, resolve};

mod inbound;
mod leave;

const BRIDGE: IfIndex = 10;

fn link(index: IfIndex, name: &str, kind: LinkKind) -> Link {
    let name = name.to_owned();
    Link { up: true, carrier: true, ..Link::new(index, name, kind) }
}

fn address(net: &str) -> Address {
    Address::new(net.parse().expect("an address"))
}

/// A node with eth0 and eth1, a bridge for pods, and one binding: pods labelled `app=crawler` leave by eth1.
fn node() -> Facts {
    let mut facts = Facts::of(Cluster::new(true, &[]));
    let hardware = || LinkKind::Other(String::new());
    let apply = |facts: &mut Facts, change| facts.kernel.apply(change);
    apply(&mut facts, KernelChange::Link(link(2, "eth0", hardware())));
    apply(&mut facts, KernelChange::Link(link(3, "eth1", hardware())));
    apply(&mut facts, KernelChange::Link(link(BRIDGE, "cni0", LinkKind::Bridge)));
    apply(&mut facts, KernelChange::Address(Spot { nsid: None, index: 3 }, address("172.31.0.14/20")));
    let default = |interface| Route {
        gateway: Some("172.31.0.1".parse().expect("an address")),
        interface: Some(interface),
        metric: interface,
        protocol: 4,
        ..Route::new(254, "0.0.0.0/0".parse().expect("a prefix"))
    };
    apply(&mut facts, KernelChange::Routing { routes: vec![default(2), default(3)], rules: Vec::new() });
    facts.cluster.apply(ClusterChange::Bindings(Update::All(vec![binding()])));
    facts.cluster.apply(ClusterChange::Pools(Update::All(Vec::new())));
    facts.cluster.apply(ClusterChange::Namespaces(Update::All(Vec::new())));
    facts.cluster.apply(ClusterChange::Pods(Update::All(Vec::new())));
    facts.cluster.apply(ClusterChange::InsideUnsaid);
    facts
}

fn binding() -> ApiBinding {
    let exit = ExitSpec::new("172.31.0.14".parse().expect("an address"));
    let equal = Labels::from([("app".to_owned(), "crawler".to_owned())]);
    let selector = Selector::Pods { namespace: "shop".to_owned(), labels: LabelSelector { equal, demands: Vec::new() } };
    let binding = Binding { exits: vec![exit], created: 1, ..Binding::plain(Source::Api, "shop/crawler", selector) };
    let (namespace, name, uid) = ("shop".to_owned(), "crawler".to_owned(), "b".to_owned());
    ApiBinding { namespace, name, uid, generation: 1, binding: Arc::new(binding), allocated: Vec::new() }
}

fn pod(uid: &str, app: &str, addresses: &[&str]) -> Pod {
    Pod {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: uid.to_owned(),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        ..Pod::default()
    }
}

fn sandbox(pod: Pod, netns: &str, created: u64) -> Sandbox {
    let network = NetworkNamespace::Named(netns.to_owned());
    Sandbox { id: format!("sandbox-{}", pod.uid), owner: Owner::Pod(Arc::new(pod)), network, created }
}

/// The port of a pod whose namespace has that number, on the bridge, with an address at its far end.
fn plug(facts: &mut Facts, port: IfIndex, nsid: i32, net: &str) {
    let veth =
        Link { master: Some(BRIDGE), peer_nsid: Some(nsid), peer_index: Some(2), ..link(port, &format!("veth{port}"), LinkKind::Veth) };
    facts.kernel.apply(KernelChange::Link(veth));
    facts.kernel.apply(KernelChange::Address(Spot { nsid: Some(nsid), index: 2 }, address(net)));
}

fn names(facts: &mut Facts, all: &[(&str, i32)]) {
    let all = all.iter().map(|(name, nsid)| ((*name).to_owned(), *nsid)).collect();
    facts.kernel.apply(KernelChange::Namespaces(all));
}

fn outcome(facts: &mut Facts, past: &mut Past) -> Outcome {
    facts.cluster.grant();
    resolve(facts, past)
}

/// Workload, port and state of each row.
fn rows(outcome: &Outcome) -> Vec<(String, Option<IfIndex>, &'static str)> {
    let port = |entry| match entry {
        Some(Entry::Port { port, .. }) => Some(port),
        _ => None,
    };
    let word = |state: &State| match state {
        State::Bound(_) => "bound",
        State::Free => "free",
        State::Waiting(_) => "waiting",
        State::Refused(_) => "refused",
        State::Dropped(_) => "dropped",
        State::FellBack(_) => "fallback",
    };
    outcome.rows.iter().map(|row| (row.subject.to_string(), port(row.entry), word(&row.state))).collect()
}

#[test]
fn a_pod_is_bound_by_its_namespace_before_the_api_server_knows_an_address() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    names(&mut facts, &[("cni-1", 5)]);
    facts.apply_runtime(RuntimeChange::Snapshot(vec![sandbox(pod("a", "crawler", &[]), "cni-1", 1)]));
    let outcome = outcome(&mut facts, &mut past);
    assert_eq!(rows(&outcome), [("pod/shop/a".to_owned(), Some(11), "bound")]);
    assert_eq!(outcome.guards.get(&BRIDGE), Some(&Guard::Closed));
}

#[test]
fn as_long_as_not_all_is_listed_nobody_is_refused_for_what_may_still_come() {
    let mut facts = node();
    facts.cluster = Cluster::new(true, &[]);
    facts.cluster.apply(ClusterChange::Bindings(Update::All(vec![binding()])));
    facts.cluster.apply(ClusterChange::Pods(Update::All(vec![pod("a", "crawler", &["10.244.1.7"])])));
    assert_eq!(rows(&outcome(&mut facts, &mut Past::default())), []);
}

#[test]
fn as_long_as_the_runtime_is_silent_what_the_api_server_says_of_addresses_does_not_count() {
    let (mut facts, mut past) = (node(), Past::default());
    facts.sandboxes = Some(BTreeMap::new());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    facts.cluster.apply(ClusterChange::Pods(Update::One(pod("a", "crawler", &["10.244.1.7"]))));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), None, "waiting")]);
    facts.apply_runtime(RuntimeChange::Lost("closed".to_owned()));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), Some(11), "bound")]);
}

#[test]
fn labels_are_the_api_server_s_where_it_knows_the_pod() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    names(&mut facts, &[("cni-1", 5)]);
    facts.apply_runtime(RuntimeChange::Snapshot(vec![sandbox(pod("a", "web", &[]), "cni-1", 1)]));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), Some(11), "free")]);
    facts.cluster.apply(ClusterChange::Pods(Update::One(pod("a", "crawler", &[]))));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), Some(11), "bound")]);
}

#[test]
fn a_namespace_whose_number_is_given_again_is_the_newer_sandbox_s() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    names(&mut facts, &[("cni-1", 5), ("cni-2", 5)]);
    let both = vec![sandbox(pod("old", "crawler", &[]), "cni-1", 1), sandbox(pod("new", "web", &[]), "cni-2", 2)];
    facts.apply_runtime(RuntimeChange::Snapshot(both));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/new".to_owned(), Some(11), "free")]);
}

#[test]
fn without_a_runtime_a_pod_gets_the_port_that_has_its_address_and_no_later_one() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    facts.cluster.apply(ClusterChange::Pods(Update::All(vec![pod("a", "crawler", &["10.244.1.7"])])));
    let first = outcome(&mut facts, &mut past);
    assert_eq!(rows(&first), [("pod/shop/a".to_owned(), Some(11), "bound")]);
    assert!(first.guards.is_empty(), "what the API server tells too late must not hold everybody");
    // The pod is gone, which the API server does not know yet; another one has its address.
    facts.kernel.apply(KernelChange::LinkGone(11));
    plug(&mut facts, 12, 6, "10.244.1.7/24");
    facts.cluster.apply(ClusterChange::Pods(Update::One(pod("a", "crawler", &["10.244.1.7"]))));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), None, "bound")]);
    facts.cluster.apply(ClusterChange::Pods(Update::One(pod("b", "crawler", &["10.244.1.7"]))));
    let both = rows(&outcome(&mut facts, &mut past));
    assert!(both.contains(&("pod/shop/b".to_owned(), Some(12), "bound")), "{both:?}");
}

#[test]
fn without_a_runtime_a_dead_pod_s_address_is_not_its_own_at_the_next_link_however_late_that_comes() {
    for bridge in [Some(BRIDGE), None] {
        let (mut facts, mut past) = (node(), Past::default());
        let links = |outcome: &Outcome| outcome.rows.iter().map(|row| row.entry.map(Entry::link)).collect::<Vec<_>>();
        let plug = |facts: &mut Facts, port: IfIndex, nsid: i32| {
            let veth =
                Link { master: bridge, peer_nsid: Some(nsid), peer_index: Some(2), ..link(port, &format!("veth{port}"), LinkKind::Veth) };
            facts.kernel.apply(KernelChange::Link(veth));
            facts.kernel.apply(KernelChange::Address(Spot { nsid: Some(nsid), index: 2 }, address("10.244.1.7/24")));
        };
        let told = |started: &str| Pod { started: Some(started.to_owned()), ..pod("a", "crawler", &["10.244.1.7"]) };
        plug(&mut facts, 11, 5);
        facts.cluster.apply(ClusterChange::Pods(Update::All(vec![told("2026-01-01T00:00:00Z")])));
        assert_eq!(links(&outcome(&mut facts, &mut past)), [Some(11)]);
        facts.kernel.apply(KernelChange::LinkGone(11));
        for _ in 0..2 {
            assert_eq!(links(&outcome(&mut facts, &mut past)), [None]);
        }
        plug(&mut facts, 12, 6);
        facts.cluster.apply(ClusterChange::Pods(Update::One(Pod { terminating: true, ..told("2026-01-01T00:00:00Z") })));
        assert_eq!(links(&outcome(&mut facts, &mut past)), [None], "it may be another pod's, of which nobody has spoken yet");
        // Its kubelet has started it anew: the link is its own.
        facts.cluster.apply(ClusterChange::Pods(Update::One(told("2026-01-01T00:05:00Z"))));
        assert_eq!(links(&outcome(&mut facts, &mut past)), [Some(12)]);
        // A container alone that is started anew changes nothing.
        facts.cluster.apply(ClusterChange::Pods(Update::One(told("2026-01-01T00:09:00Z"))));
        assert_eq!(links(&outcome(&mut facts, &mut past)), [Some(12)]);
    }
}

#[test]
fn a_finished_pod_s_address_is_nobody_s() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    let done = Pod { finished: true, ..pod("job", "crawler", &["10.244.1.7"]) };
    facts.cluster.apply(ClusterChange::Pods(Update::All(vec![done])));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), []);
}

/// The route of a subnet of pods.
fn route(facts: &mut Facts, subnet: &str, interface: IfIndex) {
    let (mut routes, rules) = (facts.kernel.routes.clone(), facts.kernel.rules.clone());
    routes.push(Route { interface: Some(interface), ..Route::new(254, subnet.parse().expect("a prefix")) });
    facts.kernel.apply(KernelChange::Routing { routes, rules });
}

fn only_reason(outcome: &Outcome) -> Option<(&'static str, String)> {
    let [Row { state: State::Refused(reason), .. }] = outcome.rows.as_slice() else { return None };
    Some((reason.word(), reason.to_string()))
}

#[test]
fn a_pod_on_a_link_of_its_own_on_a_nic_is_refused_once_it_has_an_address() {
    let (mut facts, mut past) = (node(), Past::default());
    names(&mut facts, &[("cni-1", 5)]);
    facts.apply_runtime(RuntimeChange::Snapshot(vec![sandbox(pod("a", "crawler", &[]), "cni-1", 1)]));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), None, "waiting")], "its link may still come");
    facts.cluster.apply(ClusterChange::Pods(Update::One(pod("a", "crawler", &["192.0.2.7"]))));
    let (word, sentence) = only_reason(&outcome(&mut facts, &mut past)).expect("it is refused");
    assert_eq!(word, "DatapathBypassed");
    assert!(sentence.contains("no link of this node leads to 192.0.2.7") && sentence.contains("bridge or ptp"), "{sentence}");
    // A link that leads to it, late as it is, is what counts.
    plug(&mut facts, 11, 5, "192.0.2.7/24");
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), Some(11), "bound")]);
    facts.kernel.apply(KernelChange::LinkGone(11));
    route(&mut facts, "192.0.2.0/24", BRIDGE);
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), None, "waiting")], "it belongs on the bridge");
}

#[test]
fn without_a_runtime_a_pod_that_the_host_reaches_by_a_nic_is_refused_and_no_other() {
    let (mut facts, mut past) = (node(), Past::default());
    facts.kernel.apply(KernelChange::Link(link(4, "eth2", LinkKind::Other(String::new()))));
    facts.kernel.apply(KernelChange::Link(link(5, "cilium_host", LinkKind::Veth)));
    route(&mut facts, "172.31.0.0/20", 3);
    route(&mut facts, "198.51.100.0/24", 4);
    route(&mut facts, "10.244.1.0/24", BRIDGE);
    route(&mut facts, "10.0.0.0/24", 5);
    for (address, refused) in
        [("172.31.0.77", true), ("198.51.100.7", true), ("10.244.1.7", false), ("10.0.0.7", false), ("192.0.2.7", false)]
    {
        facts.cluster.apply(ClusterChange::Pods(Update::All(vec![pod("a", "crawler", &[address])])));
        let outcome = outcome(&mut facts, &mut past);
        assert_eq!(only_reason(&outcome).is_some(), refused, "{address}: {:?}", outcome.rows);
    }
}

#[test]
fn a_pod_of_the_host_s_network_is_refused() {
    let (mut facts, mut past) = (node(), Past::default());
    let host = Pod { host_network: true, ..pod("a", "crawler", &["172.31.0.8"]) };
    facts.cluster.apply(ClusterChange::Pods(Update::All(vec![host])));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("pod/shop/a".to_owned(), None, "refused")]);
}

#[test]
fn the_guard_outlives_the_last_pod() {
    let (mut facts, mut past) = (node(), Past::default());
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    names(&mut facts, &[("cni-1", 5)]);
    facts.apply_runtime(RuntimeChange::Snapshot(vec![sandbox(pod("a", "web", &[]), "cni-1", 1)]));
    outcome(&mut facts, &mut past);
    facts.apply_runtime(RuntimeChange::Snapshot(Vec::new()));
    facts.kernel.apply(KernelChange::LinkGone(11));
    assert_eq!(outcome(&mut facts, &mut past).guards.get(&BRIDGE), Some(&Guard::Closed), "a binding may want the next pod");
    facts.cluster.apply(ClusterChange::Bindings(Update::All(Vec::new())));
    assert!(outcome(&mut facts, &mut past).guards.is_empty());
}

#[test]
fn a_bridge_is_guarded_as_soon_as_a_port_leads_to_a_pod_s_namespace() {
    let (mut facts, mut past) = (node(), Past::default());
    facts.apply_runtime(RuntimeChange::Snapshot(Vec::new()));
    plug(&mut facts, 11, 5, "10.244.1.7/24");
    names(&mut facts, &[("lab", 5)]);
    assert!(outcome(&mut facts, &mut past).guards.is_empty(), "somebody else's namespace");
    names(&mut facts, &[("cni-1", 5)]);
    assert_eq!(outcome(&mut facts, &mut past).guards.get(&BRIDGE), Some(&Guard::Closed));
}

#[test]
fn an_engine_s_bridge_is_guarded_by_its_network_alone() {
    let (mut facts, mut past) = (node(), Past::default());
    past.pod_bridges.insert(BRIDGE);
    facts.apply_runtime(RuntimeChange::Snapshot(Vec::new()));
    assert_eq!(outcome(&mut facts, &mut past).guards.get(&BRIDGE), Some(&Guard::Closed));
    let network = Network {
        id: "id".to_owned(),
        name: "engines".to_owned(),
        driver: "bridge".to_owned(),
        bridge: Some("cni0".to_owned()),
        subnets: Vec::new(),
        internal: false,
        managed: false,
        guard: None,
        problems: Vec::new(),
    };
    facts.apply(EngineChange::Snapshot { containers: Vec::new(), networks: vec![network] });
    assert!(outcome(&mut facts, &mut past).guards.is_empty());
}

/// A container that asks for eth1 by label, on the bridge of pods.
fn labelled(network: NetworkNamespace) -> Sandbox {
    let mut own = Binding::clone(&binding().binding);
    own.name = BindingName { source: Source::Label, name: "default/web".to_owned() };
    let asked = Arc::new(Asked { binding: Some(own), placement: crate::model::binding::Placement::default() });
    let (name, mode, bridges) = ("default/web".to_owned(), String::new(), vec!["cni0".to_owned()]);
    Sandbox { id: "c".to_owned(), owner: Owner::Container { name, asked: Some(asked), mode, bridges }, network, created: 1 }
}

/// The node, without a cluster.
fn plain_node() -> Facts {
    let mut facts = node();
    facts.cluster = Cluster::default();
    facts
}

#[test]
fn a_runtime_s_container_is_bound_by_its_labels() {
    let (mut facts, mut past) = (plain_node(), Past::default());
    plug(&mut facts, 11, 5, "10.4.0.2/24");
    facts.apply_runtime(RuntimeChange::Snapshot(vec![labelled(NetworkNamespace::Numbered(5))]));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), [("default/web".to_owned(), Some(11), "bound")]);
}

#[test]
fn a_bridge_that_a_container_asks_for_an_exit_on_is_guarded_from_its_record_to_the_records_end() {
    let (mut facts, mut past) = (plain_node(), Past::default());
    facts.apply_runtime(RuntimeChange::Snapshot(vec![labelled(NetworkNamespace::Absent)]));
    let made = outcome(&mut facts, &mut past);
    assert_eq!((rows(&made), made.guards), (Vec::new(), BTreeMap::from([(BRIDGE, Guard::Closed)])));
    facts.apply_runtime(RuntimeChange::Gone("c".to_owned()));
    assert!(outcome(&mut facts, &mut past).guards.is_empty());
}

#[test]
fn a_container_that_is_over_has_its_exit_until_its_namespace_is_gone() {
    let (mut facts, mut past) = (plain_node(), Past::default());
    plug(&mut facts, 11, 5, "10.4.0.2/24");
    facts.apply_runtime(RuntimeChange::Snapshot(vec![labelled(NetworkNamespace::Numbered(5))]));
    facts.apply_runtime(RuntimeChange::Gone("c".to_owned()));
    let over = outcome(&mut facts, &mut past);
    assert_eq!(rows(&over), [("default/web".to_owned(), Some(11), "bound")]);
    assert_eq!(over.guards.get(&BRIDGE), Some(&Guard::Closed));

    // The number is another namespace's before the old port is gone.
    plug(&mut facts, 12, 5, "10.4.0.3/24");
    let reused = outcome(&mut facts, &mut past);
    assert!(reused.rows.iter().all(|row| row.entry == Some(Entry::Port { port: 11, bridge: BRIDGE })), "{:?}", reused.rows);
    facts.kernel.apply(KernelChange::LinkGone(11));
    assert_eq!(rows(&outcome(&mut facts, &mut past)), []);
}

#[test]
fn a_container_whose_network_is_not_its_own_is_refused_with_the_reason_of_containers() {
    let (mut facts, mut past) = (plain_node(), Past::default());
    let mut hostly = labelled(NetworkNamespace::Host);
    if let Owner::Container { mode, .. } = &mut hostly.owner {
        *mode = "host".to_owned();
    }
    facts.apply_runtime(RuntimeChange::Snapshot(vec![hostly]));
    let outcome = outcome(&mut facts, &mut past);
    let State::Refused(reason) = &outcome.rows[0].state else { panic!("{:?}", outcome.rows) };
    assert!(reason.to_string().contains("`host` gives the container the host's own addresses"), "{reason}");
}
