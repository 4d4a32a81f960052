//! Everything around a bound pod dies and comes back, while the pod sends all the time.

use std::net::IpAddr;

use serde_json::json;
use world::{
    Cluster, Nic, Scenario,
    cluster::{IMAGE, NODES, Pod, STATIC_PODS, until},
    layout::{PORT, SERVER},
    sender,
    talk::{self, Flow},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("whatever is killed around a bound pod, no packet of it goes astray, and its flows go on", nothing_ends_a_flow)
            .shown(),
        Scenario::new("without the API server bound pods stay bound, and new ones are", the_api_server_is_away).shown(),
    ]
}

fn nothing_ends_a_flow() {
    let mut cluster = Cluster::builder().build();
    let pod = cluster.run("bound", "n1", &[("app", "crawler")]);
    let n1 = cluster.node("n1");
    n1.leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 1);

    let mut flow = open(&cluster, &pod);
    let _trickle = cluster.node("n1").trickle(&pod.netns, true);
    let mut stage = |cluster: &mut Cluster, what: &str, happens: &dyn Fn(&mut Cluster)| {
        cluster.node("n1").forget();
        happens(cluster);
        let asked = flow.ask().unwrap_or_else(|error| panic!("{what}: the flow does not go on: {error}"));
        assert_eq!(asked, flow.seen, "{what}: the server sees another peer");
        goes_right(cluster, &pod).unwrap_or_else(|error| panic!("{what}: {error}"));
        println!("{what}: {} left", cluster.node("n1").seen());
    };
    stage(&mut cluster, "nothing is killed", &|_| {});
    stage(&mut cluster, "the agent is killed", &|cluster| cluster.kill_agent("n1"));
    for program in ["kubelet", "containerd"] {
        stage(&mut cluster, &format!("{program} is killed"), &|cluster| cluster.node_mut("n1").kill(program));
        stage(&mut cluster, &format!("{program} runs again"), &|cluster| {
            cluster.node_mut("n1").restart(program);
            a_new_pod_is_bound(cluster, &format!("after-{program}"));
        });
    }
    stage(&mut cluster, "the API server is killed", &|cluster| cluster.api.kill());
    stage(&mut cluster, "the API server runs again", &|cluster| {
        cluster.api.restart();
        a_new_pod_is_bound(cluster, "after-api");
    });
    stage(&mut cluster, "helm upgrade replaces the agents", &|cluster| {
        let before = NODES.map(|node| cluster.agent(node));
        cluster.upgrade(&["--set=log.json=true"]).unwrap_or_else(|error| panic!("{error}"));
        cluster.await_agents();
        NODES.iter().zip(before).for_each(|(node, before)| assert_ne!(cluster.agent(node), before, "it is another pod"));
        a_new_pod_is_bound(cluster, "after-upgrade");
    });
}

fn the_api_server_is_away() {
    let mut cluster = Cluster::builder().build();
    // As without egressd: the kubelet runs it, and it leaves by eth0.
    run_static(&cluster, "control");
    await_sent(&cluster, Nic::Eth0);
    remove_static(&cluster, "control");

    let pod = cluster.run("bound", "n1", &[("app", "crawler")]);
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 1);
    let mut flow = open(&cluster, &pod);
    cluster.api.kill();

    let n1 = cluster.node("n1");
    n1.forget();
    run_static(&cluster, "meanwhile");
    await_sent(&cluster, Nic::Eth1);
    assert_eq!(flow.ask().expect("it stays bound"), flow.seen);
    // Its next sandbox is another namespace with another address, of which the API server will not hear for long.
    n1.kill_sandbox(&pod);
    let again = until("it has another network", || {
        let netns = n1.netns_of(&pod.uid)?;
        if netns.name() == pod.netns.name() { Err("the old one".to_owned()) } else { Ok(netns) }
    });
    let peer = until("it is answered", || talk::ask_udp(&again, (SERVER, PORT).into()).map_err(|error| error.to_string()));
    assert_eq!(peer.ip(), IpAddr::from(n1.layout.eip(Nic::Eth1)));
    goes_right(&cluster, &pod).unwrap_or_else(|error| panic!("{error}"));
    println!("without the API server: {} left", cluster.node("n1").seen());

    cluster.api.restart();
    cluster.await_programmed("crawler", 2);
    a_new_pod_is_bound(&cluster, "after");
    goes_right(&cluster, &pod).unwrap_or_else(|error| panic!("{error}"));
    cluster.api.delete(&["egressbinding", "crawler"]);
    await_sent(&cluster, Nic::Eth0);
}

fn open(cluster: &Cluster, pod: &Pod) -> Flow {
    let flow = Flow::open(&pod.netns, (SERVER, PORT).into()).expect("it is answered");
    assert_eq!(flow.seen.ip(), IpAddr::from(cluster.node(&pod.node).layout.eip(Nic::Eth1)), "{} is bound", pod.name);
    flow
}

fn a_new_pod_is_bound(cluster: &Cluster, name: &str) {
    let pod = cluster.run(name, "n1", &[("app", "crawler")]);
    for ask in [talk::ask_tcp, talk::ask_udp] {
        let peer = ask(&pod.netns, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{name}: no answer: {error}"));
        assert_eq!(peer.ip(), IpAddr::from(cluster.node("n1").layout.eip(Nic::Eth1)), "{name} is bound");
    }
    cluster.api.delete(&["pod", name]);
}

/// What left the pod's node did so by eth1 with its address, and something did.
fn goes_right(cluster: &Cluster, pod: &Pod) -> Result<(), String> {
    let node = cluster.node(&pod.node);
    let seen = node.seen();
    let own = seen.count(Nic::Eth1, node.layout.address(Nic::Eth1).into());
    if own > 0 && seen.0.len() == 1 { Ok(()) } else { Err(format!("not all by eth1 with its address: {seen}")) }
}

/// Waits until something more leaves n1 by this NIC.
fn await_sent(cluster: &Cluster, nic: Nic) {
    let n1 = cluster.node("n1");
    let before = n1.seen().by(nic);
    until(&format!("something leaves by {}", nic.name()), || {
        let seen = n1.seen();
        if seen.by(nic) > before { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// Makes n1's kubelet run a pod that sends all the time.
fn run_static(cluster: &Cluster, name: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default", "labels": { "app": "crawler" } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "sender", "image": IMAGE, "command": sender::sends("always", PORT) }],
        },
    });
    cluster.node("n1").write(&format!("{STATIC_PODS}/{name}.json"), &pod.to_string());
}

fn remove_static(cluster: &Cluster, name: &str) {
    let n1 = cluster.node("n1");
    n1.remove(&format!("{STATIC_PODS}/{name}.json"));
    until("it sends no more", || {
        let seen = n1.watch(|| std::thread::sleep(std::time::Duration::from_millis(300))).1;
        if seen.is_empty() { Ok(()) } else { Err(seen.to_string()) }
    });
}
