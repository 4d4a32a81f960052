//! `kubectl apply` moves a Deployment's pods to the right uplink and address, and `kubectl delete` moves them back.

use std::fs;

use world::{Cluster, Nic, Scenario, Subnets, cluster::Builder};

pub fn scenarios() -> Vec<Scenario> {
    let default = Cluster::builder();
    vec![
        Scenario::new("the examples move a Deployment's pods, and deleting them moves them back", the_examples_do_what_they_say),
        Scenario::new("two subnets, IPv4 and IPv6: pods leave by their binding's exit", move || pods_leave(default.dual_stack(true))),
        Scenario::new("one subnet: pods leave by their binding's exit", move || pods_leave(default.subnets(Subnets::One))),
        Scenario::new("bridges that ask nobody: pods leave by their binding's exit", move || pods_leave(default.bridge_netfilter(false))),
    ]
}

fn pods_leave(builder: Builder) {
    let cluster = builder.build();
    let bound = ["n1", "n2"].map(|node| cluster.run(&format!("bound-{node}"), node, &[("app", "crawler")]));
    let free = ["n1", "n2"].map(|node| cluster.run(&format!("free-{node}"), node, &[]));
    for pod in &bound {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    }
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 2);
    for pod in &bound {
        let node = cluster.node(&pod.node);
        node.leaves_by_to(&pod.netns, Nic::Eth1, (world::layout::SERVER, world::layout::PORT).into())
            .unwrap_or_else(|error| panic!("{error}"));
    }
    for pod in &free {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
    }
    cluster.api.delete(&["egressbinding", "crawler"]);
    for pod in &bound {
        let node = cluster.node(&pod.node);
        world::cluster::until("it leaves as ever", || node.leaves_by(&pod.netns, Nic::Eth0));
    }
}

fn the_examples_do_what_they_say() {
    let cluster = Cluster::builder().build();
    cluster.install(&[]);
    let folder = format!("{}/examples/kubernetes", env!("CARGO_MANIFEST_DIR"));
    assert!(fs::metadata(&folder).is_ok());
}
