//! `make demo-kubernetes`: pods of a real two-node cluster, each with the public address of its own NIC, before and after egressd.
//!
//! It runs in namespaces of its own, ends by itself and leaves nothing behind; it is a test as well, and fails when the table
//! does not show what it should.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use world::{
    Cluster, Nic, Scenario,
    cluster::Pod,
    layout::{PORT, SERVER},
    talk,
};

fn main() -> ExitCode {
    let demo = Scenario::new("demo", demo).within(Duration::from_secs(180)).shown().with_cluster();
    world::harness::main(vec![demo])
}

fn demo() {
    let cluster = Cluster::builder().build();
    println!(
        "\n\nA Kubernetes cluster of two nodes with two NICs each, in a cloud that drops what does not come from a NIC's own address:"
    );
    for node in cluster.nodes() {
        for nic in Nic::ALL {
            let (address, public) = (node.layout.address(nic), node.layout.eip(nic));
            println!("  {}  {}  {address:<12}  public (elastic) address {public}", node.name, nic.name());
        }
    }
    let pods = [("crawler-n1", "n1", "crawler"), ("web-n1", "n1", "web"), ("crawler-n2", "n2", "crawler"), ("web-n2", "n2", "web")];
    let pods = cluster.run_all(pods);
    let before: Vec<Call> = pods.iter().map(|pod| call(&cluster, pod)).collect();

    println!("\n  helm install egressd charts/egressd");
    cluster.install(&[]);
    println!("  kubectl apply -f -    # an EgressPool with eth1's addresses, and this EgressBinding:\n");
    println!("  spec:\n    podSelector: {{matchLabels: {{app: crawler}}}}\n    pool: {{name: pool-crawler, addresses: [...]}}");
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 2);
    let after: Vec<Call> = pods.iter().map(|pod| call(&cluster, pod)).collect();

    println!("\nEach pod calls a server on the internet ({SERVER}):\n");
    row(["", "pod", "node", "assigned", "server saw", "left by"]);
    for (when, calls) in [("before", &before), ("after", &after)] {
        for (pod, call) in pods.iter().zip(calls) {
            let assigned = cluster.node(&pod.node).layout.address(Nic::Eth1).to_string();
            let assigned = if pod.name.starts_with("crawler") { assigned.as_str() } else { "-" };
            let seen = call.seen.map_or("nothing".to_owned(), |seen| seen.to_string());
            row([when, &pod.name, &pod.node, assigned, &seen, &call.nics.join("+")]);
        }
    }
    println!("\n\"before\" is without egressd, \"after\" with it. kubectl get egressbindings,egresspools,egressnodes:\n");
    println!("{}", cluster.api.kubectl(&["get", "egressbindings,egresspools,egressnodes"]));

    for (pod, (before, after)) in pods.iter().zip(before.iter().zip(&after)) {
        let nic = if pod.name.starts_with("crawler") { Nic::Eth1 } else { Nic::Eth0 };
        let public = IpAddr::from(cluster.node(&pod.node).layout.eip(nic));
        assert_eq!(
            (after.seen, after.nics.as_slice()),
            (Some(public), [nic.name()].as_slice()),
            "{} has its address, and its NIC",
            pod.name
        );
        assert_eq!(before.nics, [Nic::Eth0.name()], "without egressd all leave by eth0");
    }
}

/// What happened to a pod's call.
struct Call {
    seen: Option<IpAddr>,
    nics: Vec<&'static str>,
}

fn call(cluster: &Cluster, pod: &Pod) -> Call {
    let (peer, seen) = cluster.node(&pod.node).watch(|| talk::ask_tcp(&pod.netns, (SERVER, PORT).into()));
    Call { seen: peer.ok().map(|peer| peer.ip()), nics: Nic::ALL.into_iter().filter(|nic| seen.by(*nic) > 0).map(Nic::name).collect() }
}

fn row(cells: [&str; 6]) {
    let [when, pod, node, assigned, saw, by] = cells;
    println!("  {when:<7} {pod:<11} {node:<5} {assigned:<12} {saw:<15} {by}");
}
