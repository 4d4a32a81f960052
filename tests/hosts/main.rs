//! egressd on hosts that people really have: their uplinks, their routers, other programs' marks, neighbours, and odd answers.
//!
//! Every check of packets is made twice in the same world: without egressd, where it has to fail, and with it.

mod gone;
mod held;
mod identity;
mod others;
mod several;
mod support;
mod tagged;
mod uplinks;

use std::process::ExitCode;

fn main() -> ExitCode {
    let groups = [
        uplinks::scenarios(),
        identity::scenarios(),
        tagged::scenarios(),
        held::scenarios(),
        gone::scenarios(),
        others::scenarios(),
        several::scenarios(),
    ];
    world::harness::main_of_waiting(groups.into_iter().flatten().collect())
}
