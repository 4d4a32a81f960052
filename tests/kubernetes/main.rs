//! egressd in a cluster: installed with Helm from the real image, told with `kubectl apply`, and seen at the routers.
//!
//! Every check of packets is made twice: with egressd, and, as its negative control, in the same scenario without.

mod apply;
mod boot;
mod conflicts;
mod first_packet;
mod leaving;
mod life;
mod pools;
mod reach;
mod reused;
mod rights;
mod support;

use std::{process::ExitCode, time::Duration};

/// A cluster takes seconds, and the thousand pods of `make soak` some minutes.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let modules = [
        apply::scenarios(),
        boot::scenarios(),
        conflicts::scenarios(),
        first_packet::scenarios(),
        leaving::scenarios(),
        life::scenarios(),
        pools::scenarios(),
        reach::scenarios(),
        reused::scenarios(),
        rights::scenarios(),
    ];
    world::harness::main(modules.into_iter().flatten().map(|scenario| scenario.within(LIMIT).with_cluster()).collect())
}
