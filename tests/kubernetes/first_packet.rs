//! Pods that send in their first instruction: not one packet with a foreign source.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, NAMESPACE, NODES},
    sender,
    status::until_within,
};

/// Pods in all: a fault that strikes one start in thirty is found by 14 of 15 runs of the fewer.
fn pods() -> u64 {
    world::count(80, 1_000)
}

/// Pods at once.
const AT_ONCE: u64 = 40;
/// As many without egressd.
const CONTROL: u64 = 8;
/// How long no pod may end, and between two looks: each takes a tenth of a second from what starts pods.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_secs(2);

pub fn scenarios() -> Vec<Scenario> {
    let name = format!("{} pods that send in their first instruction leave by their exit, and by nothing else", pods());
    vec![Scenario::new(name, never_by_another).shown().alone()]
}

fn never_by_another() {
    let pods = pods();
    let cluster = Cluster::builder().build();
    start(&cluster, "control", CONTROL);
    answered(&cluster, "control", CONTROL);
    right(&cluster, CONTROL).expect_err("without egressd they leave by eth0");

    cluster.install(&[]);
    cluster.bind("sender", Nic::Eth1);
    cluster.api.await_condition(&["egressbinding", "sender"], "Accepted");
    cluster.nodes().iter().for_each(|node| node.forget());
    let began = Instant::now();
    start(&cluster, "senders", pods);
    // The agents die and are replaced while pods start.
    answered(&cluster, "senders", pods / 3);
    NODES.iter().for_each(|node| cluster.kill_agent(node));
    answered(&cluster, "senders", pods * 2 / 3);
    cluster.api.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset", "egressd"]);
    answered(&cluster, "senders", pods);
    let took = began.elapsed().as_secs_f64();
    right(&cluster, pods).unwrap_or_else(|error| panic!("{error}"));
    cluster.await_agents();
    println!("{pods} pods, {AT_ONCE} at once, agents killed and replaced meanwhile: {took:.0} s, every packet by its exit");
    cluster.nodes().iter().for_each(|node| println!("  {}: {}", node.name, node.seen()));
}

/// Starts a Job of pods that end when they were answered by UDP and TCP. One that is not fails the Job.
fn start(cluster: &Cluster, name: &str, pods: u64) {
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": {
            "completions": pods, "parallelism": AT_ONCE.min(pods), "backoffLimit": 0,
            "template": {
                "metadata": { "labels": { "app": "sender" } },
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": { "app": "sender" } }
                    }],
                    "containers": [{ "name": "sender", "image": IMAGE, "command": sender::sends("once", 8000) }],
                },
            },
        },
    });
    cluster.api.apply(&job.to_string());
}

/// Waits until so many of a Job's pods were answered.
fn answered(cluster: &Cluster, name: &str, pods: u64) {
    let mut before = 0;
    let count = |job: &Value, what: &str| job["status"][what].as_u64().unwrap_or(0);
    while before < pods {
        before = until_within(PATIENCE, PAUSE, "another pod was answered", || {
            let job = cluster.api.try_get(&["job", name])?;
            assert_eq!(count(&job, "failed"), 0, "{}", job["status"]);
            let succeeded = count(&job, "succeeded");
            if succeeded > before { Ok(succeeded) } else { Err(format!("{succeeded} of {pods}: {}", job["status"])) }
        });
    }
}

/// All that left did so by eth1 with its address, a datagram and a connection of each pod at least.
fn right(cluster: &Cluster, pods: u64) -> Result<(), String> {
    let mut right = 0;
    for node in NODES {
        let node = cluster.node(node);
        let seen = node.seen();
        let own = seen.count(Nic::Eth1, node.layout.address(Nic::Eth1).into());
        if seen.0.len() > 1 || (own == 0 && !seen.is_empty()) {
            return Err(format!("{}: not all by eth1 with its address: {seen}", node.name));
        }
        right += own;
    }
    if right >= 2 * pods { Ok(()) } else { Err(format!("{right} packets of {pods} pods")) }
}
