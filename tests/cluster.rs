//! The test cluster itself: what later tests trust has to be seen to work, and to notice what is wrong.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use world::{Cluster, Nic, Scenario, cluster::NODES};

fn main() -> ExitCode {
    world::harness::main(vec![
        Scenario::new("pods leave masqueraded by eth0, with their node's address", pods_leave_by_eth0).within(LIMIT).shown(),
    ])
}

const LIMIT: Duration = Duration::from_secs(300);

fn pods_leave_by_eth0() {
    let start = Instant::now();
    let cluster = Cluster::builder().build();
    println!("both nodes are ready after {:.1} s", start.elapsed().as_secs_f64());
    for name in NODES {
        let pod = cluster.run(&format!("pod-{name}"), name, &[]);
        println!("{pod:?} after {:.1} s", start.elapsed().as_secs_f64());
        let node = cluster.node(name);
        node.leaves_by(&pod.netns, Nic::Eth0).expect("the CNI plugin masquerades");
        node.leaves_by(&pod.netns, Nic::Eth1).expect_err("nothing sends it there");
    }
}
