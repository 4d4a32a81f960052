//! egressd on Debian's kernel, in a virtual machine: uplinks of kinds that a machine's own kernel may lack, and a kernel whose nftables tables
//! have no owner, and SCTP.
//!
//! Every check of packets is made twice in the same world: without egressd, where it has to fail, and with it.

mod fast_path;
mod ipvs;
mod kernel;
mod kinds;
mod sctp;
mod sctp_inbound;

use std::{process::ExitCode, time::Duration};

/// The processor is emulated.
const LIMIT: Duration = Duration::from_secs(900);

/// What scenarios need of the kernel, but for IPVS, which the kernel itself loads when egressd asks for it.
const MODULES: [&str; 12] = [
    "8021q",
    "bonding",
    "ip_gre",
    "ipvlan",
    "macvlan",
    "nf_flow_table_inet",
    "nft_flow_offload",
    "ppp_async",
    "sctp",
    "vrf",
    "vxlan",
    "wireguard",
];

fn main() -> ExitCode {
    let groups =
        [kinds::scenarios(), kernel::scenarios(), ipvs::scenarios(), sctp::scenarios(), sctp_inbound::scenarios(), fast_path::scenarios()];
    world::vm::main(&MODULES, groups.into_iter().flatten().map(|scenario| scenario.within(LIMIT)).collect())
}
