//! egressd in a cluster: installed with Helm from the real image, told with `kubectl apply`, and seen at the routers.
//!
//! Every check of packets is made twice: with egressd, and, as its negative control, in the same scenario without.

mod apply;
mod boot;
mod conflicts;
mod first_packet;
mod leaving;
mod life;
mod managed;
mod pools;
mod reach;
mod reused;
mod rights;
mod support;

use std::{process::ExitCode, time::Duration};

/// A cluster takes seconds, and the thousand pods of `make soak` some minutes.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    // Those that take longest begin.
    let modules = [
        pools::scenarios(),
        conflicts::scenarios(),
        rights::scenarios(),
        life::scenarios(),
        managed::scenarios(),
        boot::scenarios(),
        reused::scenarios(),
        leaving::scenarios(),
        reach::scenarios(),
        apply::scenarios(),
        first_packet::scenarios(),
    ];
    world::harness::main(modules.into_iter().flatten().map(|scenario| scenario.within(LIMIT).with_cluster()).collect())
}
