//! Calls to ports of a node's exits go to its pods, as far as the pool's owner lends these: an agent and a controller at a real API server, and
//! packets between namespaces.

mod lent;
mod node;
mod real;
mod served;
mod tenants;

use std::{process::ExitCode, time::Duration};

use world::{Scenario, cluster::Proxy};

/// An API server or a cluster takes seconds, and more on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for (name, proxy) in [("iptables", Proxy::Iptables), ("nftables", Proxy::Nftables)] {
        scenarios.push(
            Scenario::new(
                format!("{name}: each node's exit leads to its own pods though FORWARD drops, and no call is lost while one of them ends"),
                move || real::each_node_serves_its_own(proxy),
            )
            .with_cluster(),
        );
    }
    scenarios.push(Scenario::new(
        "calls go to a node's pods by turn, the exit that was called answers, and a pod that ends gets no new one",
        served::by_turn,
    ));
    scenarios.push(Scenario::new(
        "health, datagrams and masquerade are as for containers, and an engine that is missing is told",
        served::as_containers_are,
    ));
    scenarios.push(Scenario::new("a port that the pool does not lend is refused by itself, until it is lent", lent::by_its_pool_alone));
    scenarios.push(Scenario::new(
        "of two namespaces that publish one port the older binding has it, and a listener of the node keeps its own",
        tenants::the_older_has_it,
    ));
    world::harness::main(scenarios.into_iter().map(|scenario| scenario.within(LIMIT)).collect())
}
