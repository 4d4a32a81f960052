//! Exits that egressd puts on a NIC itself, and exits that are on none.

mod addresses;
mod container;
mod crowd;
mod gateways;
mod routed;
mod stage;

use std::process::ExitCode;

use world::Scenario;

fn main() -> ExitCode {
    let scenarios = vec![
        Scenario::new("a managed address is added, announced and left by, and the host's own source stays", addresses::added),
        Scenario::new("a managed address is put back whoever takes it away", addresses::put_back),
        Scenario::new("an address that a neighbour has is refused with its MAC, until it is free", addresses::duplicate),
        Scenario::new("a managed address outlives the daemon, and goes with the last that asks for it", addresses::lifetime),
        Scenario::new("an address that somebody else added is never taken away", addresses::foreign),
        Scenario::new("an address without a NIC of its subnet, or that no machine may have, is refused", addresses::refused),
        Scenario::new("of a thousand addresses that a neighbour has none is added, and the few that are free are", crowd::taken),
        Scenario::new("an address that another program takes away all the time is let be for a moment, and told", crowd::contested),
        Scenario::new("an address that another machine takes later is told with its MAC, and announced again", crowd::conflict),
        Scenario::new("an address that another machine is known to have is not added, though nobody answers for it", crowd::known),
        Scenario::new("an exit that is routed to this host is left by, and what belongs to no flow goes nowhere", routed::left_by),
        Scenario::new("a container's label has its addresses put on the NIC, until the container is removed", container::labelled),
        Scenario::new("status and explain show the public address of an exit", routed::public),
        Scenario::new("exits of a spread whose gateway is dead take no new flow, until it is back", gateways::spread),
        Scenario::new("a single exit whose gateway is dead follows whenUnavailable", gateways::alone),
        Scenario::new("a gateway with a link-local address, as router advertisements have it, is asked, too", gateways::on_every_link),
        Scenario::new("a gateway that never answered is never called dead", gateways::silent),
        Scenario::new("a gateway that is dead is dead after a restart, and one that dies meanwhile is found", gateways::restart),
        Scenario::new("no gateway is asked from an address that has gone to another machine", gateways::moved),
    ];
    world::harness::main_of_waiting(scenarios)
}
