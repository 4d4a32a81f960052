//! The product's own client against an API server that does not do what it should: silence, conflicts, half answers, and a proxy's refusals.
//! That it works with a real one is in `tests/leader` and `tests/api_server`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use egressd::api::node::EgressNodeSpec;
use egressd::effects::kubernetes::Identity;
use egressd::effects::kubernetes::leader::{self, Leader};
use egressd::effects::kubernetes::reporter::Reporter;
use egressd::facts::kubernetes::client;
use egressd::model::cluster::Node;
use kube::Client;
use serde_json::{Value, json};
use world::ScriptedApi;
use world::scripted_api::{Answer, Request};

const BINDINGS: &str = "egressd.dev/egressbindings";
const POOLS: &str = "egressd.dev/egresspools";
const REPORTS: &str = "egressd.dev/egressnodes";
const LEASES: &str = "coordination.k8s.io/leases";

/// How long anything may take that is not said to be late.
const SOON: Duration = Duration::from_secs(20);

/// An API server with a pool of addresses for the namespace `shop`.
fn server() -> ScriptedApi {
    let server = ScriptedApi::start();
    server.put("namespaces", json!({ "metadata": { "name": "shop" } }));
    let spec = json!({ "blocks": [{ "start": "10.0.0.1", "end": "10.0.0.99" }], "allowedNamespaces": { "names": ["shop"] } });
    server.put(POOLS, json!({ "metadata": { "name": "public" }, "spec": spec }));
    server
}

fn bind(server: &ScriptedApi, name: &str) {
    let spec = json!({ "podSelector": {}, "pool": { "name": "public" } });
    server.put(BINDINGS, json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec }));
}

/// Runs a test with a client as the daemon makes it.
fn with_client<F: Future<Output = ()>>(server: &ScriptedApi, test: impl FnOnce(Client) -> F) {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = server.kubeconfig(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { test(client(Some(&kubeconfig)).await.expect("the kubeconfig is good")).await });
}

fn agent(client: &Client, pod: &str) -> Leader {
    leader::start(client.clone(), Identity { namespace: "egressd".to_owned(), pod: pod.to_owned() }, false).expect("a thread")
}

async fn until(limit: Duration, what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "not after {} s: {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn exits(server: &ScriptedApi, name: &str) -> Value {
    server.get(BINDINGS, &format!("shop/{name}")).unwrap_or_default()["status"]["exits"].clone()
}

fn has_exit(server: &ScriptedApi, name: &str) -> bool {
    exits(server, name).is_array()
}

fn holder(server: &ScriptedApi) -> Value {
    server.get(LEASES, "egressd/egressd").unwrap_or_default()["spec"]["holderIdentity"].clone()
}

fn writes_a_status(request: &Request) -> bool {
    request.method == "PATCH" && request.sub == "status"
}

fn node() -> Node {
    Node { name: "n1".to_owned(), uid: "u".to_owned(), ..Node::default() }
}

fn bound(count: i64) -> EgressNodeSpec {
    EgressNodeSpec { bound: count, ..EgressNodeSpec::default() }
}

fn reported(server: &ScriptedApi) -> Value {
    server.get(REPORTS, "n1").unwrap_or_default()["spec"]["bound"].clone()
}

#[test]
fn a_leader_that_is_told_of_a_conflict_and_then_nothing_stops_writing_before_another_one_begins() {
    let server = server();
    with_client(&server, |client| async {
        let client = client;
        let _first = agent(&client, "first");
        until(SOON, "the first one holds the Lease", || holder(&server) == "first").await;
        bind(&server, "before");
        until(SOON, "it writes", || has_exit(&server, "before")).await;
        // Of the first one's requests for the Lease none comes to anything from now on.
        let cut = Instant::now();
        server.script(|request| match request.method.as_str() {
            "PUT" if request.resource == LEASES && request.body["spec"]["holderIdentity"] == "first" => Some(Answer::Refused(409, "")),
            "GET" if request.resource == LEASES => Some(Answer::Silence),
            _ => None,
        });
        bind(&server, "meanwhile");
        until(SOON, "it may still write: nobody else has the Lease", || has_exit(&server, "meanwhile")).await;
        tokio::time::sleep(Duration::from_secs(11).saturating_sub(cut.elapsed())).await;
        let over = Instant::now();
        for late in ["late", "later", "latest"] {
            bind(&server, late);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(server.count(over, writes_a_status), 0, "it is the leader no longer");
        assert!(!has_exit(&server, "late"));
        // Whoever is not cut off takes over.
        server.script(|_| None);
        let _second = agent(&client, "second");
        until(2 * SOON, "somebody writes again", || has_exit(&server, "latest")).await;
    });
}

#[test]
fn a_write_that_is_never_answered_delays_its_own_object_alone() {
    let server = server();
    with_client(&server, |client| async {
        server.script(|request| request.is("PATCH", BINDINGS, "silent").then_some(Answer::Silence));
        let others: Vec<String> = (0..20).map(|number| format!("b{number}")).collect();
        bind(&server, "silent");
        others.iter().for_each(|name| bind(&server, name));
        let client = client;
        let _agent = agent(&client, "one");
        until(SOON, "the others are written", || others.iter().all(|name| has_exit(&server, name))).await;
        let begun = Instant::now();
        bind(&server, "another");
        until(Duration::from_secs(5), "what comes later is, too", || has_exit(&server, "another")).await;
        assert!(!has_exit(&server, "silent"), "after {:?}", begun.elapsed());
        // No address is two bindings', whatever is on its way.
        let all: Vec<Value> = others.iter().map(|name| exits(&server, name)).collect();
        assert_eq!(all.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), others.len(), "{all:?}");
        server.script(|_| None);
        until(2 * SOON, "it is tried again", || has_exit(&server, "silent")).await;
    });
}

#[test]
fn a_status_that_somebody_has_written_meanwhile_is_not_overwritten() {
    let server = server();
    bind(&server, "contested");
    with_client(&server, |client| async {
        let stale = server.get(BINDINGS, "shop/contested").expect("it is there");
        let ends =
            json!({ "resourceVersion": stale["metadata"]["resourceVersion"], "annotations": { "k8s.io/initial-events-end": "true" } });
        let lines = vec![
            json!({ "type": "ADDED", "object": stale }),
            json!({ "type": "BOOKMARK", "object": { "kind": "EgressBinding", "apiVersion": "v1", "metadata": ends } }),
        ];
        server.script(move |request| (request.watch && request.resource == BINDINGS).then(|| Answer::Lines(lines.clone())));
        // As the next leader writes it, of which this one hears nothing.
        let mut newer = stale.clone();
        newer["status"] = json!({ "exits": ["10.0.0.77"], "pool": "public" });
        server.put(BINDINGS, newer);
        let begun = Instant::now();
        let client = client;
        let _agent = agent(&client, "former");
        until(SOON, "it tries", || server.count(begun, |request| request.is("PATCH", BINDINGS, "contested")) > 0).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(exits(&server, "contested"), json!(["10.0.0.77"]));
    });
}

#[test]
fn a_proxy_that_says_to_come_back_in_a_day_delays_a_report_by_seconds() {
    let server = server();
    with_client(&server, |client| async {
        server.script(|request| (request.resource == REPORTS).then_some(Answer::Refused(503, "Retry-After: 86400")));
        let begun = Instant::now();
        let reporter = Reporter::start(client);
        reporter.report(&node(), bound(1));
        until(SOON, "it is refused", || server.count(begun, |request| request.is("PATCH", REPORTS, "n1")) > 0).await;
        server.script(|_| None);
        until(SOON, "it is written", || reported(&server) == 1).await;
    });
}

#[test]
fn a_report_that_is_answered_by_half_or_not_at_all_is_written_again() {
    for answer in [Answer::Half, Answer::Reset, Answer::Silence] {
        let server = server();
        with_client(&server, |client| async {
            let told = answer.clone();
            server.script(move |request| request.is("PATCH", REPORTS, "n1").then(|| told.clone()));
            let begun = Instant::now();
            let reporter = Reporter::start(client);
            reporter.report(&node(), bound(1));
            until(SOON, "it is asked", || server.count(begun, |request| request.is("PATCH", REPORTS, "n1")) > 0).await;
            server.script(|_| None);
            until(SOON, &format!("it is written after {answer:?}"), || reported(&server) == 1).await;
        });
    }
}

#[test]
fn a_report_that_somebody_deletes_or_changes_is_back_at_once() {
    let server = server();
    with_client(&server, |client| async {
        let reporter = Reporter::start(client);
        reporter.report(&node(), bound(1));
        let watches = |request: &Request| request.watch && request.resource == REPORTS;
        let begun = Instant::now();
        until(SOON, "it is written, and watched", || reported(&server) == 1 && server.count(begun, watches) > 0).await;
        server.delete(REPORTS, "n1");
        until(Duration::from_secs(5), "it is back", || reported(&server) == 1).await;
        let mut spoiled = server.get(REPORTS, "n1").expect("it is back");
        spoiled["spec"]["bound"] = json!(99);
        server.put(REPORTS, spoiled);
        until(Duration::from_secs(5), "it is right again", || reported(&server) == 1).await;
        // And then nothing more is written.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let calm = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(server.count(calm, |request| request.method == "PATCH"), 0);
    });
}
