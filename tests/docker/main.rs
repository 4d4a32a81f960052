//! Containers of real Docker daemons, one way of use a module.
//!
//! Every check of packets is made twice: with egressd, and, as its negative control, in the same scenario without.

mod address_taken;
mod boot;
mod clock;
mod firewall;
mod first_packet;
mod guard;
mod inbound;
mod labels;
mod lifecycle;
mod networks;
mod own_nic;
mod placement;
mod proxy;
mod published;
mod replace;
mod restart;
mod spread;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Those that take longest begin, but for the very first: a scenario of another program may be waiting until it can be alone.
    let modules = [
        own_nic::scenarios(),
        restart::scenarios(),
        first_packet::scenarios(),
        placement::scenarios(),
        address_taken::scenarios(),
        boot::scenarios(),
        clock::scenarios(),
        published::scenarios(),
        inbound::scenarios(),
        spread::scenarios(),
        replace::scenarios(),
        networks::scenarios(),
        labels::scenarios(),
        firewall::scenarios(),
        guard::scenarios(),
        lifecycle::scenarios(),
        proxy::scenarios(),
    ];
    world::harness::main(modules.into_iter().flatten().collect())
}
