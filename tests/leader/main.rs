//! What is written back to the API server, against a real one with nothing else: no node, no controller. Nodes' reports are made by hand.
//!
//! What this cannot show is that reports are true: `tests/kubernetes` has nodes.

mod kubectl;
mod lease;
mod many;
mod proxy;
mod status;
mod support;

use std::{process::ExitCode, time::Duration};

use world::Scenario;

/// For five thousand reports on a busy machine.
const LONG: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    world::harness::main_of_waiting(vec![
        Scenario::new("a thousand nodes cost a write a second", many::a_thousand_nodes).within(LONG).shown(),
        Scenario::new("who is cut off from the API server lets go of the Lease, and another controller takes it", lease::cut_off),
        Scenario::new("who stops hands the Lease over at once", lease::handed_over),
        Scenario::new("a binding gets an address, its status and its Events; exhaustion is told, and what is free is lent", status::lent),
        Scenario::new("status belongs to egressd and spec to who wrote it, and nothing is written when nothing changed", status::owned),
        Scenario::new("bindings that come back without a status, in another order, get the addresses that they had", status::restored),
        Scenario::new("a report goes with its node, and is not written when it says the same", status::reported),
        Scenario::new("kubectl egress shows bindings, a pod and a node, and says what is missing", kubectl::shown),
    ])
}
