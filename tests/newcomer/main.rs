//! A newcomer's first steps: egressd is installed, is run in a container, and is asked what is wrong, as the documents show it.

mod container;
mod package;
mod page;
mod release;
mod troubleshooting;

use std::process::ExitCode;

fn main() -> ExitCode {
    let scenarios = [package::scenarios(), container::scenarios(), troubleshooting::scenarios(), release::scenarios()];
    world::harness::main(scenarios.into_iter().flatten().collect())
}
