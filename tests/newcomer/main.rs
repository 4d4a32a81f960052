//! What who meets egressd for the first time does by its documents: look for what is wrong, as docs/troubleshooting.md shows it.

mod page;
mod troubleshooting;

use std::process::ExitCode;

fn main() -> ExitCode {
    world::harness::main(troubleshooting::scenarios())
}
