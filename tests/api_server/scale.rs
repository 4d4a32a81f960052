//! What many objects cost an agent.

use std::time::{Duration, Instant};

use egressd::facts::kubernetes::client;
use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use world::ApiServer;

use crate::agent::{Agent, bindings, pods};
use crate::objects::{AGENTS, NODE, daemonset, define, good_binding, namespace, node, pod};

const BINDINGS: usize = 1_000;
const PODS: usize = 2_000;
const EVENTS: usize = 100;
/// Shorter than a watch, which is asked for anew every five minutes.
const REST: Duration = Duration::from_secs(65);
/// Requests that are under way at once.
const AT_ONCE: usize = 32;

pub fn nothing_is_asked_at_rest() {
    let api = ApiServer::start();
    define(&api);
    for object in [namespace(AGENTS), node(NODE), daemonset("worker")] {
        crate::objects::apply(&api, &object);
    }
    let mut agent = Agent::start(&api.user("agent", "/O=system:masters/CN=agent"));
    agent.until_whole();
    let before = memory();
    let admin = agent.block_on(client(Some(api.kubeconfig().as_ref()))).expect("the kubeconfig is good");
    let objects = (0..BINDINGS).map(|n| good_binding(&format!("b{n}"), &format!("10.0.{}.{}", n / 250, n % 250 + 1)));
    agent.block_on(create(&admin, objects.chain((0..PODS).map(|n| pod(&format!("p{n}"), NODE)))));
    agent.until("all objects", |known| bindings(known).len() == BINDINGS && pods(known).len() == PODS);
    println!("memory: {before} kB before, {} kB with {BINDINGS} bindings and {PODS} pods", memory());

    let mut anew = Agent::start(&api.user("agent", "/O=system:masters/CN=agent"));
    let start = Instant::now();
    anew.until("all objects", |known| bindings(known).len() == BINDINGS && pods(known).len() == PODS);
    println!("a new agent has listed all after {:.2} s", start.elapsed().as_secs_f64());
    drop(anew);

    // From before the request to what `next` gives: the API server's own time for the write is in it.
    let mut times: Vec<Duration> = (0..EVENTS).map(|n| event(&mut agent, &admin, &format!("late{n}"))).collect();
    times.sort();
    println!(
        "from a pod's POST to the source's word: p50 {:?}, p99 {:?}, most {:?}",
        times[EVENTS / 2],
        times[EVENTS - 2],
        times[EVENTS - 1]
    );

    // Dropped with its runtime, the other agent's watches end in the log, too.
    let asked = || api.audit().into_iter().filter(|event| event["user"]["username"] == "agent").collect::<Vec<_>>();
    drop(agent.rest(Duration::from_secs(1)));
    let before = asked().len();
    let heard = agent.rest(REST);
    assert!(heard.is_empty(), "{heard:?}");
    let asked = asked().split_off(before);
    println!("requests in {REST:?} at rest: {}", asked.len());
    assert!(asked.is_empty(), "{asked:#?}");
}

fn event(agent: &mut Agent, admin: &Client, name: &str) -> Duration {
    let start = Instant::now();
    let pods = api(admin, &pod(name, NODE));
    let object = serde_json::from_value(pod(name, NODE)).expect("it is an object");
    // At once: the agent listens while the request is answered.
    agent.spawn(async move { drop(pods.create(&PostParams::default(), &object).await.expect("it is taken")) });
    agent.until("the pod", |known| crate::agent::pods(known).contains(&name));
    start.elapsed()
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let version = text("apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text("kind")));
    Api::namespaced_with(client.clone(), "default", &resource)
}

async fn create(client: &Client, objects: impl Iterator<Item = Value>) {
    let create = |object: Value| async move {
        let typed = serde_json::from_value(object.clone()).expect("it is an object");
        api(client, &object).create(&PostParams::default(), &typed).await.map(drop)
    };
    let done: Vec<_> = stream::iter(objects.map(create)).buffer_unordered(AT_ONCE).collect().await;
    done.into_iter().for_each(|result| result.expect("it is taken"));
}

/// Resident memory of this process in kB: the agent's, and some of the test's.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has one");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB")
}
