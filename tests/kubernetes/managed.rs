//! A pool whose addresses the controller gives to nodes, and whose agents put them on their NICs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{NODES, Pod, until},
    layout::{PORT, SERVER},
    talk,
};

use crate::support::{await_failing, await_said, binding, pool, restart_agents, restart_controllers};

/// Addresses of eth1's subnet that nobody has.
const FREE: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 31, 16, 100), Ipv4Addr::new(172, 31, 16, 101)];

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "each address of a managed pool is on one node's NIC, pods leave by it, and it goes to another node when its own is deleted",
        managed,
    )]
}

fn managed() {
    let cluster = Cluster::builder().build();
    let pods = cluster.run_all([("crawler-n1", "n1", "crawler"), ("crawler-n2", "n2", "crawler")]);
    for (pod, address) in pods.iter().zip(FREE) {
        assert_eq!(cluster.node("n1").layout.gateway(Nic::Eth1).octets()[..3], address.octets()[..3], "they are of its subnet");
        cluster.node(&pod.node).assign(Nic::Eth1, address, true);
        leaves_as(&cluster, pod, address).expect_err("without egressd it leaves by eth0");
    }
    cluster.install(&[]);
    cluster.api.apply(&managed_pool(&cluster, &json!({})));
    await_said(&cluster, &["egresspool", "public"], "Assigned", "True", "Assigned");
    assert_eq!(given(&cluster), json!([{ "name": "n1", "addresses": [FREE[0]] }, { "name": "n2", "addresses": [FREE[1]] }]));
    assert_eq!(NODES.map(|node| on_nic(&cluster, node)), [vec![FREE[0]], vec![FREE[1]]], "each is on one NIC before anybody asks for it");

    cluster.api.apply(&binding("crawler", "crawler", &json!({ "pool": { "name": "public", "count": 2 } })));
    cluster.await_programmed("crawler", 2);
    for (pod, address) in pods.iter().zip(FREE) {
        leaves_as(&cluster, pod, address).unwrap_or_else(|error| panic!("{error}"));
    }
    one_address(&cluster, &pods);
    outlive(&cluster, &pods);
    in_use(&cluster);
    node_gone(&cluster, &pods[0]);
}

/// Both addresses as a managed pool, with these further fields.
fn managed_pool(cluster: &Cluster, fields: &Value) -> String {
    let mut spec = fields.clone();
    spec["blocks"] = json!([{ "start": FREE[0], "end": FREE[1] }]);
    spec["assignment"] = json!("Managed");
    spec["interface"] = json!("eth1");
    spec["gateway"] = json!(cluster.node("n1").layout.gateway(Nic::Eth1));
    pool("public", &spec)
}

/// What the pool gave to which node.
fn given(cluster: &Cluster) -> Value {
    cluster.api.get(&["egresspool", "public"])["status"]["nodes"].clone()
}

/// Which of the addresses a node's eth1 holds.
fn on_nic(cluster: &Cluster, node: &str) -> Vec<Ipv4Addr> {
    let listed = cluster.node(node).netns().run(&["ip", "-j", "-4", "address", "show"]);
    let links: Value = serde_json::from_str(&listed).expect("ip prints JSON");
    let on = |nic: &str| {
        let link = links.as_array().into_iter().flatten().find(|link| link["ifname"] == nic).expect("it is there");
        let all = link["addr_info"].as_array().into_iter().flatten().filter_map(|one| one["local"].as_str()?.parse().ok());
        all.filter(|address| FREE.contains(address)).collect::<Vec<_>>()
    };
    assert_eq!(on("eth0"), Vec::<Ipv4Addr>::new(), "it is not the pool's interface");
    on("eth1")
}

/// Whether the server sees the pod as this address.
fn leaves_as(cluster: &Cluster, pod: &Pod, address: Ipv4Addr) -> Result<(), String> {
    let (answer, seen) = cluster.node(&pod.node).watch(|| talk::ask_tcp(&pod.netns, SocketAddr::new(SERVER.into(), PORT)));
    match &answer {
        Ok(peer) if peer.ip() == IpAddr::from(address) && seen.count(Nic::Eth1, address.into()) > 0 && seen.by(Nic::Eth0) == 0 => Ok(()),
        other => Err(format!("{}: not as {address}: {other:?}, {seen} left", pod.name)),
    }
}

/// A pod on a node that has none of its binding's addresses does not leave by those of others.
fn one_address(cluster: &Cluster, [first, second]: &[Pod; 2]) {
    cluster.api.apply(&binding("crawler", "crawler", &json!({ "pool": { "name": "public", "addresses": [FREE[0]] } })));
    let cure = await_failing(cluster, "crawler", 1, "NoExitOnNode");
    assert!(cure.contains(&format!("({} is on n1)", FREE[0])), "{cure}");
    leaves_as(cluster, first, FREE[0]).unwrap_or_else(|error| panic!("{error}"));
    cluster.node("n2").leaves_not_at_all(&second.netns).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(on_nic(cluster, "n2"), [FREE[1]], "it is the node's all the same");
    cluster.api.apply(&binding("crawler", "crawler", &json!({ "pool": { "name": "public", "addresses": FREE } })));
    cluster.await_programmed("crawler", 2);
}

/// Agents and controllers that are replaced move nothing, and pods do not notice.
fn outlive(cluster: &Cluster, [first, _]: &[Pod; 2]) {
    let (before, node) = (given(cluster), cluster.node("n1"));
    let seen = node.count(|| {
        let _trickle = node.trickle(&first.netns, true);
        restart_agents(cluster);
        restart_controllers(cluster);
        await_said(cluster, &["egresspool", "public"], "Assigned", "True", "Assigned");
    });
    assert!(seen.count(Nic::Eth1, FREE[0].into()) > 0 && seen.by(Nic::Eth0) == 0, "{seen}");
    assert_eq!((given(cluster), on_nic(cluster, "n1")), (before, vec![FREE[0]]));
}

/// An address that a neighbour has is not added; the pool says so, and the other one goes on.
fn in_use(cluster: &Cluster) {
    let taken = Ipv4Addr::new(172, 31, 16, 50);
    assert_eq!(taken, cluster.node("n1").layout.neighbour(Nic::Eth1));
    let mut third: Value = serde_json::from_str(&managed_pool(cluster, &json!({}))).expect("it is JSON");
    third["spec"]["blocks"].as_array_mut().expect("a list").push(json!({ "start": taken, "end": taken }));
    cluster.api.apply(&third.to_string());
    let said = await_said(cluster, &["egresspool", "public"], "Assigned", "False", "AddressDuplicate");
    assert!(said.starts_with(&format!("{taken} on n1: ")), "{said}");
    assert_eq!(NODES.map(|node| on_nic(cluster, node)), [vec![FREE[0]], vec![FREE[1]]]);
    cluster.api.apply(&managed_pool(cluster, &json!({})));
    await_said(cluster, &["egresspool", "public"], "Assigned", "True", "Assigned");
}

/// The address of a node that is deleted goes to the other one, and off its NIC.
fn node_gone(cluster: &Cluster, first: &Pod) {
    cluster.api.kubectl(&["delete", "node", "n2", "--wait=false"]);
    cluster.api.await_object(&["egresspool", "public"], |pool| {
        let all = format!("{}-{}", FREE[0], FREE[1]);
        pool["status"]["nodes"] == json!([{ "name": "n1", "addresses": [all] }])
    });
    until("both addresses are on n1, and none on n2", || {
        let on = NODES.map(|node| on_nic(cluster, node));
        if on == [FREE.to_vec(), vec![]] { Ok(()) } else { Err(format!("{on:?}")) }
    });
    await_said(cluster, &["egresspool", "public"], "Assigned", "True", "Assigned");
    cluster.node("n2").assign(Nic::Eth1, FREE[1], false);
    cluster.node("n1").assign(Nic::Eth1, FREE[1], true);
    cluster.api.apply(&binding("crawler", "crawler", &json!({ "pool": { "name": "public", "addresses": [FREE[1]] } })));
    until("the pod leaves by it", || leaves_as(cluster, first, FREE[1]));
}
