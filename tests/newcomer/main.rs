//! What who meets egressd for the first time does: install it, and look for what is wrong as docs/troubleshooting.md shows it.

mod container;
mod package;
mod page;
mod troubleshooting;

use std::process::ExitCode;

fn main() -> ExitCode {
    let scenarios = [package::scenarios(), container::scenarios(), troubleshooting::scenarios()];
    world::harness::main(scenarios.into_iter().flatten().collect())
}
