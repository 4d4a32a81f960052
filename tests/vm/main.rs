//! egressd on Debian's kernel, in a virtual machine: uplinks of kinds that a machine's own kernel may lack, and a kernel whose nftables tables
//! have no owner, and SCTP.
//!
//! Every check of packets is made twice in the same world: without egressd, where it has to fail, and with it.

mod fast_path;
mod ipvs;
mod kernel;
mod kinds;
mod sctp;

use std::{process::ExitCode, time::Duration};

/// The processor is emulated.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let groups = [kinds::scenarios(), kernel::scenarios(), ipvs::scenarios(), sctp::scenarios(), fast_path::scenarios()];
    world::vm::main(groups.into_iter().flatten().map(|scenario| scenario.within(LIMIT)).collect())
}
