//! Containers of real Docker daemons, one way of use a module.
//!
//! Every check of packets is made twice: with egressd, and, as its negative control, in the same scenario without.

mod first_packet;
mod own_nic;
mod restart;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let modules = [own_nic::scenarios(), first_packet::scenarios(), restart::scenarios()];
    world::harness::main(modules.into_iter().flatten().collect())
}
