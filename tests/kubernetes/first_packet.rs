//! Pods that send in their first instruction: not one packet with a foreign source.

use serde_json::json;
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, NAMESPACE, NODES, until},
    sender,
};

/// Pods in all, and at once.
const PODS: usize = 1000;
const AT_ONCE: usize = 100;
/// As many without egressd.
const CONTROL: usize = 8;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("1,000 pods that send in their first instruction leave by their exit, and by nothing else", never_by_another)]
}

fn never_by_another() {
    let cluster = Cluster::builder().build();
    run(&cluster, "control", 0..CONTROL);
    right(&cluster, CONTROL).expect_err("without egressd they leave by eth0");

    cluster.install(&[]);
    cluster.bind("sender", Nic::Eth1);
    cluster.api.await_condition(&["egressbinding", "sender"], "Accepted");
    cluster.nodes().iter().for_each(|node| node.forget());
    for batch in 0..PODS / AT_ONCE {
        // The agents are replaced while pods start.
        if batch == PODS / AT_ONCE / 2 {
            cluster.api.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset", "egressd"]);
        }
        run(&cluster, &format!("batch-{batch}"), batch * AT_ONCE..(batch + 1) * AT_ONCE);
        right(&cluster, (batch + 1) * AT_ONCE).unwrap_or_else(|error| panic!("batch {batch}: {error}"));
    }
    cluster.await_agents();
}

/// Runs a Job's worth of pods, all at once, and waits until each was answered by UDP and TCP.
fn run(cluster: &Cluster, name: &str, pods: std::ops::Range<usize>) {
    let count = pods.len();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": {
            "completions": count, "parallelism": count, "backoffLimit": 0,
            "template": {
                "metadata": { "labels": { "app": "sender" } },
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 0,
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
    until("each pod was answered", || {
        let job = cluster.api.try_get(&["job", name])?;
        let succeeded = job["status"]["succeeded"].as_u64().unwrap_or(0);
        if succeeded == count as u64 { Ok(()) } else { Err(format!("{succeeded} of {count}: {}", job["status"])) }
    });
    cluster.api.delete(&["job", name, "--cascade=foreground"]);
}

/// All that left did so by eth1 with its address, a datagram and a connection of each pod at least.
fn right(cluster: &Cluster, pods: usize) -> Result<(), String> {
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
    if right >= 2 * pods as u64 { Ok(()) } else { Err(format!("{right} packets of {pods} pods")) }
}
