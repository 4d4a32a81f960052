//! Ports that pods serve: who may publish one, who has it, and which pods get calls.

use super::*;
use crate::model::binding::{PoolRequest, Wanted};
use crate::model::health::AllDown;
use crate::model::inbound::{Balance, ClientSource, Inbound, Limits};
use crate::model::ipvs::Engine;
use crate::model::objects::Namespace;
use crate::model::pool::{Block, Pool};
use crate::model::ports::{Ports, Protocol};
use crate::model::services::{Service, Services};

const EXIT: &str = "172.31.0.14";

fn tcp(first: u16, last: u16) -> Ports {
    Ports { protocol: Protocol::Tcp, first, last }
}

fn entry(ports: Ports) -> Inbound {
    Inbound {
        address: None,
        ports,
        target: None,
        engine: Engine::Nftables,
        balance: Balance::RoundRobin,
        client_source: ClientSource::Preserve,
        weight: 1,
        weights: BTreeMap::new(),
        thresholds: BTreeMap::new(),
        health: None,
        all_down: AllDown::KeepAll,
        last_resort: Vec::new(),
        drain: None,
        affinity: None,
        limits: Limits::default(),
        refusal: None,
    }
}

/// A pool of eth1's address that lends these ports to everybody here.
fn pool(inbound_ports: Vec<Ports>) -> Pool {
    let exit = EXIT.parse().expect("an address");
    let allowed_names = ["shop", "mail"].map(str::to_owned).into();
    let blocks = vec![Block::new(exit, exit).expect("of one family")];
    Pool { name: "public".to_owned(), blocks, allowed_names, inbound_ports, ..Pool::default() }
}

/// A binding of all pods of a namespace to that address, which publishes these ports.
fn publishes(namespace: &str, (created, priority): (u64, i32), ports: &[Ports]) -> ApiBinding {
    let selector = Selector::Pods { namespace: namespace.to_owned(), labels: LabelSelector::default() };
    let key = format!("{namespace}/web");
    let request = PoolRequest { pool: "public".to_owned(), wanted: Wanted::These(vec![EXIT.parse().expect("an address")]) };
    let inbound = ports.iter().copied().map(entry).collect();
    let binding = Binding { pool: Some(request), inbound, created, priority, ..Binding::plain(Source::Api, &key, selector) };
    let (name, uid) = ("web".to_owned(), key);
    ApiBinding { namespace: namespace.to_owned(), name, uid, generation: 1, binding: Arc::new(binding), allocated: Vec::new() }
}

/// A pod of each of both namespaces.
fn pod_of(namespace: &str, number: u8) -> Pod {
    let name = format!("pod-{namespace}");
    Pod { namespace: namespace.to_owned(), ..pod(&name, "web", &[&format!("10.244.1.{number}")]) }
}

/// The node with these bindings, and with a pod of each of both namespaces.
fn with(pool: Pool, bindings: Vec<ApiBinding>) -> Facts {
    let mut facts = node();
    let namespaces = ["shop", "mail"].map(|name| Namespace { name: name.to_owned(), ..Namespace::default() });
    facts.cluster.apply(ClusterChange::Namespaces(Update::All(namespaces.into())));
    facts.cluster.apply(ClusterChange::Pools(Update::All(vec![pool])));
    facts.cluster.apply(ClusterChange::Bindings(Update::All(bindings)));
    for (number, namespace) in [(1, "shop"), (2, "mail")] {
        plug(&mut facts, 10 + IfIndex::from(number), number.into(), &format!("10.244.1.{number}/24"));
        facts.cluster.apply(ClusterChange::Pods(Update::One(pod_of(namespace, number))));
    }
    facts
}

/// Servers with their weights.
type Servers = Vec<(String, u16)>;

/// Each service with its binding, and its servers.
fn said(services: &Services) -> Vec<(String, &str, Servers)> {
    let servers = |service: &Service| service.servers.iter().map(|server| (server.address.to_string(), server.weight)).collect();
    services.all.iter().map(|one| (one.called(), one.binding.name.as_str(), servers(one))).collect()
}

fn told(services: &Services) -> Vec<(Option<&'static str>, String)> {
    services.problems.iter().map(|problem| (problem.word, problem.to_string())).collect()
}

fn http(binding: &str, server: &str) -> (String, String, Servers) {
    ("tcp/172.31.0.14:80".to_owned(), binding.to_owned(), vec![(server.to_owned(), 1)])
}

/// The only service.
fn only(services: &Services) -> (String, String, Servers) {
    let all = said(services);
    let [(called, binding, servers)] = all.as_slice() else { panic!("{all:?}") };
    (called.clone(), (*binding).to_owned(), servers.clone())
}

fn is_bound(outcome: &Outcome) -> bool {
    rows(outcome).contains(&("pod/shop/pod-shop".to_owned(), Some(11), "bound"))
}

#[test]
fn what_the_pool_does_not_lend_is_refused_by_itself() {
    let asked = [tcp(80, 80), tcp(443, 443), tcp(85, 95)];
    let first = outcome(&mut with(pool(vec![tcp(80, 90)]), vec![publishes("shop", (1, 0), &asked)]), &mut Past::default());
    assert_eq!(only(&first.inbound), http("shop/web", "10.244.1.1"));
    let text = |at, ports| {
        format!(
            "api/shop/web: spec.inbound[{at}].port: EgressPool public does not lend {ports}; add it to the pool's spec.inboundPorts, or publish a port that it lends"
        )
    };
    let refused = [(1, "tcp/443"), (2, "tcp/85-95")].map(|(at, ports)| (Some("PortNotLent"), text(at, ports)));
    assert_eq!(told(&first.inbound), refused);
    assert!(is_bound(&first), "its way out is its own matter");
    // Once they are lent, all of them are served.
    let lent = pool(vec![tcp(80, 95), tcp(443, 443)]);
    let lent = outcome(&mut with(lent, vec![publishes("shop", (1, 0), &asked)]), &mut Past::default()).inbound;
    assert_eq!((lent.all.len(), told(&lent)), (3, Vec::new()));
}

#[test]
fn without_a_pool_nobody_lends_a_port() {
    let mut own = publishes("shop", (1, 0), &[tcp(80, 80)]);
    let exits = vec![ExitSpec::new(EXIT.parse().expect("an address"))];
    own.binding = Arc::new(Binding { pool: None, exits, ..Binding::clone(&own.binding) });
    let outcome = outcome(&mut with(pool(vec![tcp(80, 80)]), vec![own]), &mut Past::default());
    assert_eq!(said(&outcome.inbound), []);
    assert_eq!(told(&outcome.inbound)[0].0, Some("PortNotLent"));
    assert!(is_bound(&outcome));
}

#[test]
fn the_older_binding_has_a_port_whatever_its_priority_and_whoever_served_it() {
    let lent = || pool(vec![tcp(80, 80)]);
    let (older, younger) = (publishes("shop", (1, 0), &[tcp(80, 80)]), publishes("mail", (2, 9), &[tcp(80, 80)]));
    let mut past = Past::default();
    // The younger one was there alone for a while.
    let alone = outcome(&mut with(lent(), vec![younger.clone()]), &mut past).inbound;
    past.serve(&alone, true);
    assert_eq!(only(&alone), http("mail/web", "10.244.1.2"));
    let both = outcome(&mut with(lent(), vec![younger, older]), &mut past).inbound;
    assert_eq!(only(&both), http("shop/web", "10.244.1.1"));
    let text = "api/mail/web: spec.inbound[0].port: tcp/172.31.0.14:80 is served by api/shop/web; choose another port, or remove that one";
    assert_eq!(told(&both), [(Some("PortTaken"), text.to_owned())]);
    // Of the same age, the name decides.
    let same = ["shop", "mail"].map(|namespace| publishes(namespace, (1, 0), &[tcp(80, 80)]));
    let named = outcome(&mut with(lent(), same.into()), &mut Past::default()).inbound;
    assert_eq!(only(&named), http("mail/web", "10.244.1.2"));
}

#[test]
fn a_pod_that_is_about_to_end_gets_no_new_calls_not_even_where_all_would() {
    let mut facts = with(pool(vec![tcp(80, 80)]), vec![publishes("shop", (1, 0), &[tcp(80, 80)])]);
    let mut served = |terminating| {
        facts.cluster.apply(ClusterChange::Pods(Update::One(Pod { terminating, ..pod_of("shop", 1) })));
        let services = outcome(&mut facts, &mut Past::default()).inbound;
        (only(&services).2[0].1, services.all[0].weighted().len())
    };
    assert_eq!((served(false), served(true)), ((1, 1), (0, 0)));
}

#[test]
fn an_exit_without_a_pod_on_its_node_is_a_service_that_nobody_serves_and_one_on_another_node_is_none() {
    let mut facts = with(pool(vec![tcp(80, 80)]), vec![publishes("shop", (1, 0), &[tcp(80, 80), tcp(443, 443)])]);
    facts.cluster.apply(ClusterChange::Pods(Update::All(Vec::new())));
    let empty = outcome(&mut facts, &mut Past::default()).inbound;
    assert_eq!(only(&empty), (http("", "").0, "shop/web".to_owned(), Vec::new()));
    assert_eq!(told(&empty).len(), 1, "the port that is not lent");
    facts.kernel.apply(KernelChange::AddressGone(Spot { nsid: None, index: 3 }, address("172.31.0.14/20").net));
    let elsewhere = outcome(&mut facts, &mut Past::default()).inbound;
    assert_eq!((said(&elsewhere), told(&elsewhere)), (Vec::new(), Vec::new()), "that is for the node that has it to tell");
}

#[test]
fn a_pod_serves_at_the_address_that_the_api_server_tells_and_at_no_other_that_its_namespace_has() {
    let mut facts = with(pool(vec![tcp(80, 80)]), vec![publishes("shop", (1, 0), &[tcp(80, 80)])]);
    names(&mut facts, &[("cni-1", 1)]);
    let told = |uid: &str| Pod { uid: uid.to_owned(), addresses: Vec::new(), ..pod_of("shop", 1) };
    facts.apply_runtime(RuntimeChange::Snapshot(vec![sandbox(told("pod-shop"), "cni-1", 1)]));
    facts.kernel.apply(KernelChange::Address(Spot { nsid: Some(1), index: 2 }, address("10.0.0.1/24")));
    let servers = |facts: &mut Facts| {
        let outcome = outcome(facts, &mut Past::default());
        assert!(is_bound(&outcome));
        only(&outcome.inbound).2
    };
    assert_eq!(servers(&mut facts), http("", "10.244.1.1").2);
    facts.cluster.apply(ClusterChange::Pods(Update::Gone("pod-shop".to_owned())));
    assert_eq!(servers(&mut facts), [], "it was deleted by force, and still runs");
    // Its namesake comes before it is gone.
    plug(&mut facts, 13, 3, "10.244.1.3/24");
    names(&mut facts, &[("cni-1", 1), ("cni-3", 3)]);
    facts.cluster.apply(ClusterChange::Pods(Update::One(Pod { uid: "again".to_owned(), ..pod_of("shop", 3) })));
    let sandboxes = vec![sandbox(told("pod-shop"), "cni-1", 1), sandbox(told("again"), "cni-3", 2)];
    facts.apply_runtime(RuntimeChange::Snapshot(sandboxes));
    assert_eq!(servers(&mut facts), http("", "10.244.1.3").2);
}
