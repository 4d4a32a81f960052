//! egressd leaves a cluster, or a node, and nothing of it stays there; when it only dies, all of it stays.

use world::{
    Cluster, Nic, Scenario, State,
    cluster::{NAMESPACE, NODES, Pod, until},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "a killed agent leaves all as it is, a node that leaves the selector is as it was found, and helm uninstall leaves both nodes so",
            agents_leave,
        ),
        Scenario::new("a bridge stays guarded by an agent that finds no pod on it", a_guard_outlives_agents),
    ]
}

/// One after the other in one cluster, and at last without the chart.
fn agents_leave() {
    // A controller's pod would be of that node's state.
    let (mut cluster, pods, before) =
        bound(&["--set=nodeSelector.egress=yes", r"--set=controller.nodeSelector.kubernetes\.io/hostname=n1"]);
    a_killed_agent_leaves_all(&mut cluster, &pods);
    a_node_leaves_the_selector(&cluster, &pods, &before);
    uninstalled(&cluster, &pods, &before);
}

/// Definitions and bindings stay.
fn uninstalled(cluster: &Cluster, pods: &[Pod; 2], before: &[State; 2]) {
    cluster.api.helm(&["uninstall", "egressd", "-n", NAMESPACE, "--wait", "--timeout=90s"]).unwrap_or_else(|error| panic!("{error}"));
    for pod in pods {
        as_found(cluster, pod, before);
    }
    for kind in ["egressbindings", "egresspools"] {
        let left = cluster.api.get(&[kind]);
        assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{kind} stay: {left:#}");
    }
    // What stayed is in force again with the next installation.
    cluster.upgrade(&[]).unwrap_or_else(|error| panic!("{error}"));
    // Its status is still of the agents that went, and tells nothing.
    for pod in pods {
        until("it leaves by its exit again", || cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1));
    }
}

/// The other goes on.
fn a_node_leaves_the_selector(cluster: &Cluster, pods: &[Pod; 2], before: &[State; 2]) {
    let n1 = cluster.node("n1").state();
    cluster.api.kubectl(&["label", "node", "n2", "egress-"]);
    as_found(cluster, &pods[1], before);
    leaves(cluster, &pods[0], Nic::Eth1);
    n1.assert_same(&cluster.node("n1").state(), "the other node's agent goes on");
    cluster.api.await_object(&["egressbinding", "crawler"], |object| object["status"]["summary"]["programmed"] == 1);
    cluster.api.kubectl(&["label", "node", "n2", "egress=yes"]);
    cluster.await_programmed("crawler", 2);
    pods.iter().for_each(|pod| leaves(cluster, pod, Nic::Eth1));
}

/// So does the next one.
fn a_killed_agent_leaves_all(cluster: &mut Cluster, pods: &[Pod; 2]) {
    let before = cluster.node("n1").state();
    let agent = cluster.agent("n1");
    // So that nobody starts it again.
    cluster.node_mut("n1").kill("kubelet");
    cluster.node("n1").kill_container(NAMESPACE, &agent, "egressd");
    cluster.node("n1").fetch("/readyz").expect_err("it is dead");
    before.assert_same(&cluster.node("n1").state(), "its end changes nothing");
    leaves(cluster, &pods[0], Nic::Eth1);
    cluster.node_mut("n1").restart("kubelet");
    let n1 = cluster.node("n1");
    until("there is an agent again", || n1.fetch("/readyz").map_err(|error| error.to_string()));
    before.assert_same(&n1.state(), "its start changes nothing");
    assert_eq!(n1.metric("egressd_kernel_changes_total"), 0, "not even for a moment");
    leaves(cluster, &pods[0], Nic::Eth1);
}

/// Whoever starts before the agent has heard of it is held, also where the agent that saw the bridge's last pod is not there any more.
fn a_guard_outlives_agents() {
    let cluster = Cluster::builder().build();
    let free = cluster.run("early", "n1", &[("app", "crawler")]);
    leaves(&cluster, &free, Nic::Eth0);
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 1);
    cluster.api.delete(&["pod", "early"]);
    cluster.await_programmed("crawler", 0);
    cluster.kill_agent("n1");
    let n1 = cluster.node("n1");
    let late = n1.stopped(NAMESPACE, &cluster.agent("n1"), "egressd", || {
        let late = cluster.run("late", "n1", &[("app", "crawler")]);
        n1.leaves_not_at_all(&late.netns).unwrap_or_else(|error| panic!("nobody has bound it yet: {error}"));
        late
    });
    until("it is bound", || n1.leaves_by(&late.netns, Nic::Eth1));
}

/// A cluster with a bound pod on each node, and what the nodes were like before egressd.
fn bound(values: &[&str]) -> (Cluster, [Pod; 2], [State; 2]) {
    let cluster = Cluster::builder().build();
    NODES.iter().for_each(|node| drop(cluster.api.kubectl(&["label", "node", node, "egress=yes"])));
    let pods = cluster.run_all([("bound-n1", "n1", "crawler"), ("bound-n2", "n2", "crawler")]);
    pods.iter().for_each(|pod| leaves(&cluster, pod, Nic::Eth0));
    let before = NODES.map(|node| cluster.node(node).state());
    cluster.install(values);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 2);
    pods.iter().for_each(|pod| leaves(&cluster, pod, Nic::Eth1));
    for (node, before) in NODES.iter().zip(&before) {
        assert!(!before.difference(&cluster.node(node).state()).is_empty(), "it has programmed something on {node}");
    }
    (cluster, pods, before)
}

fn leaves(cluster: &Cluster, pod: &Pod, nic: Nic) {
    cluster.node(&pod.node).leaves_by(&pod.netns, nic).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until the pod's node is as it was before egressd, and then the pod leaves as then.
fn as_found(cluster: &Cluster, pod: &Pod, before: &[State; 2]) {
    let node = cluster.node(&pod.node);
    let before = &before[usize::from(node.layout.machine)];
    until(&format!("{} is as it was found", node.name), || {
        let difference = before.difference(&node.state());
        if difference.is_empty() { Ok(()) } else { Err(difference.join("\n")) }
    });
    leaves(cluster, pod, Nic::Eth0);
}
