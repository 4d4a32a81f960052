//! Two nodes with kubelet, containerd, a network plugin and kube-proxy.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;
use world::{
    Cluster, Egressd, Nic,
    callers::Callers,
    cluster::{CONTAINERD, IMAGE, Node, Proxy, until},
    egressd::program,
    published::{CALLED, TARGET},
    service::Service,
    talk::{Guests, ask_tcp, serve},
};

/// Clients that call at once.
const CLIENTS: usize = 3;
/// Calls of each that something is given the time for.
const CALLS: usize = 40;
/// Goes on for seconds when it is told to end.
const SLOW_TO_END: &str = "trap 'sleep 4; exit 0' TERM; while :; do sleep 0.1; done";

pub fn each_node_serves_its_own(proxy: Proxy) {
    let cluster = Cluster::builder().proxy(proxy).build();
    let served = [("one", "n1"), ("two", "n1"), ("three", "n2")].map(|(name, node)| run(&cluster, name, node));
    cluster.run("beside", "n1", &[]);
    for node in cluster.nodes() {
        node.netns().run(&["iptables", "-P", "FORWARD", "DROP"]);
    }
    let [n1, n2] = cluster.nodes();
    for node in [n1, n2] {
        ask_tcp(&cluster.internet, called(node)).expect_err("nobody serves it without egressd");
    }
    let _agents = start(&cluster);
    for definition in [pool(&cluster), binding(&cluster)] {
        cluster.api.apply(&definition);
    }
    let published = ["--for=condition=Published", "--timeout=90s", "egressbinding/web"];
    cluster.api.kubectl(&[&["wait"], published.as_slice()].concat());
    until("both nodes serve it", || {
        [n1, n2].into_iter().try_for_each(|node| ask_tcp(&cluster.internet, called(node)).map(drop)).map_err(|error| error.to_string())
    });
    let services = [("n1", 2), ("n2", 1)].map(|(node, servers)| {
        let service = format!("tcp/{}:{CALLED}", cluster.node(node).layout.address(Nic::Eth1));
        json!({ "service": service, "node": node, "servers": servers, "ready": servers })
    });
    cluster.api.await_object(&["egressbinding", "web"], |binding| binding["status"]["services"] == json!(services));

    assert_eq!(calls_of(&served, || by_turn(&cluster, n1, 6)), [3, 3, 0], "by turn, and not to the other node's");
    assert_eq!(calls_of(&served, || by_turn(&cluster, n2, 4)), [0, 0, 4]);
    for node in [n1, n2] {
        let rules = node.netns().run(&["iptables", "-S", "FORWARD"]);
        assert!(rules.contains("-P FORWARD DROP") && rules.matches("egressd").count() == 1, "one rule lets calls through: {rules}");
        node.no_problems().unwrap_or_else(|error| panic!("{}: {error}", node.name));
    }
    ends_without_a_lost_call(&cluster, n1, &served);
    // Else they would not reach themselves by a Service any more.
    assert_eq!(hairpins(n1), 2, "the network plugin gives each port hairpin mode");
    cluster.api.kubectl(&["delete", "egressbinding", "web"]);
    until("nobody serves it", || match ask_tcp(&cluster.internet, called(n1)) {
        Ok(_) => Err("it is served".to_owned()),
        Err(_) => Ok(()),
    });
    assert_eq!(hairpins(n1), 2, "and they keep it");
}

/// How many ports of the pods' bridge let frames leave by the port that they came in by.
fn hairpins(node: &Node) -> usize {
    node.netns().run(&["ip", "-d", "link", "show", "master", "cni0"]).matches("hairpin on").count()
}

/// A pod that is deleted serves on for some seconds. Whoever calls meanwhile is answered, and at last by the other one.
fn ends_without_a_lost_call(cluster: &Cluster, node: &Node, served: &[Guests; 3]) {
    let (internet, at) = (cluster.internet.clone(), called(node));
    let callers = Callers::start(CLIENTS, move || ask_tcp(&internet, at));
    callers.await_each(CALLS);
    cluster.api.kubectl(&["delete", "pod", "two", "--wait=false"]);
    until("it gets no new connection", || {
        let status = node.status();
        let servers = status["services"][0]["servers"].as_array().into_iter().flatten();
        let left: Vec<u64> = servers.filter_map(|server| server["weight"].as_u64()).collect();
        if left.iter().sum::<u64>() == 1 { Ok(()) } else { Err(status["services"].to_string()) }
    });
    callers.await_each(1);
    let before = served[1].list().len();
    callers.await_each(CALLS);
    cluster.api.kubectl(&["wait", "--for=delete", "--timeout=90s", "pod/two"]);
    callers.await_each(CALLS);
    let answered = callers.end().len();
    assert_eq!(served[1].list().len(), before, "it ended without another call");
    assert!(answered >= 3 * CLIENTS * CALLS && served[0].list().len() > 2 * CLIENTS * CALLS, "{answered}");
}

/// So many calls, each of which is answered by eth1 with its address alone.
fn by_turn(cluster: &Cluster, node: &Node, times: usize) {
    let (answers, seen) = node.watch(|| (0..times).map(|_| ask_tcp(&cluster.internet, called(node))).collect::<Vec<_>>());
    for answer in answers {
        let peer = answer.unwrap_or_else(|error| panic!("{}: {error}; {seen}", node.name));
        assert!(!node.layout.own(Nic::Eth1).contains(&peer.ip()), "the pod sees its client's address: {peer}");
    }
    let own = IpAddr::from(node.layout.address(Nic::Eth1));
    assert_eq!(seen.count(Nic::Eth1, own), seen.0.values().sum::<u64>(), "{}: {seen}", node.name);
}

/// How often each was called meanwhile.
fn calls_of(served: &[Guests; 3], f: impl FnOnce()) -> [usize; 3] {
    let count = || served.each_ref().map(|guests| guests.list().len());
    let before = count();
    f();
    let after = count();
    std::array::from_fn(|at| after[at] - before[at])
}

fn called(node: &Node) -> SocketAddr {
    SocketAddr::new(node.layout.public(Nic::Eth1, IpAddr::from(node.layout.address(Nic::Eth1))), CALLED)
}

/// Runs a pod that serves, and returns whom it sees.
fn run(cluster: &Cluster, name: &str, node: &str) -> Guests {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "web" } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 30,
            "containers": [{ "name": "c", "image": IMAGE, "command": ["sh", "-c", SLOW_TO_END] }],
        },
    });
    cluster.api.apply(&pod.to_string());
    let pod = cluster.pod("default", name);
    serve(&pod.netns, &pod.addresses(), &[TARGET])
}

/// The definitions, an agent on each node, and a controller beside the first.
fn start(cluster: &Cluster) -> (Vec<Egressd>, Service) {
    for definition in ["egressbinding", "egressnode", "egresspool"] {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crds/{definition}.yaml"));
        cluster.api.apply(&std::fs::read_to_string(file).expect("it is committed"));
    }
    cluster.api.kubectl(&["wait", "--for=condition=Established", "--timeout=90s", "crd", "--all"]);
    cluster.api.kubectl(&["create", "namespace", "egressd"]);
    let kubeconfig = cluster.api.kubeconfig();
    let agents = cluster.nodes().iter().map(|node| {
        node.egressd(&[
            "--no-docker",
            "--kubernetes",
            "--node-name",
            &node.name,
            "--kubeconfig",
            &kubeconfig,
            "--containerd-socket",
            CONTAINERD,
        ])
    });
    let agents = agents.collect();
    let mut controller = std::process::Command::new(program());
    controller.args(["controller", "--pod-name", "controller-1", "--kubeconfig", &kubeconfig]);
    (agents, cluster.nodes()[0].netns().enter(|| Service::start("controller", controller)))
}

fn pool(cluster: &Cluster) -> String {
    let mut pool: serde_json::Value = serde_json::from_str(&cluster.pool("public", Nic::Eth1)).expect("JSON");
    pool["spec"]["inboundPorts"] = json!([{ "protocol": "TCP", "port": CALLED }]);
    pool.to_string()
}

fn binding(cluster: &Cluster) -> String {
    let mut binding: serde_json::Value = serde_json::from_str(&cluster.binding("web", "web", "public", Nic::Eth1)).expect("JSON");
    binding["spec"]["inbound"] = json!([{ "protocol": "TCP", "port": CALLED, "targetPort": TARGET }]);
    binding.to_string()
}
