//! Every number that egressd puts into a place it shares with other programs: once.
//!
//! ARCHITECTURE.md has the same numbers with who else uses such.

/// Name of the nftables tables, one in each of the families `ip`, `ip6` and `bridge`.
pub const TABLE: &str = "egressd";

/// Packet mark: set on each packet that egressd routes. With [`NIC`], all that a packet carries on its way.
pub const FLAG: u32 = 0x0000_1000;
/// Packet and conntrack mark: number of the NIC, 1 to 127; 0 is no NIC.
pub const NIC: u32 = 0x0000_007f;
/// Largest number of a NIC.
pub const NIC_MAX: u8 = 127;
/// Conntrack mark: number of the exit on its NIC, 1 to 255. 0 with [`FLAG`] says only "arrived by this NIC".
pub const EXIT: u32 = 0xff00_0000;
/// Lowest bit of [`EXIT`].
pub const EXIT_SHIFT: u32 = 24;
/// What the packet mark may carry of ours when a packet is routed.
pub const PACKET_MASK: u32 = FLAG | NIC;
/// What a conntrack mark may carry of ours; the packet mark bears the same bits only between the bridge's hook and ours in `prerouting`.
pub const FLOW_MASK: u32 = FLAG | NIC | EXIT;
/// Bits of well-behaved neighbours that may stand beside ours: kube-proxy's 0x4000 and 0x8000, portmap's 0x2000.
pub const NEIGHBOUR_MASK: u32 = 0x0000_e000;

/// A workload that is known to be unbound.
pub const CLAIM_FREE: u32 = FLAG | (1 << EXIT_SHIFT);
/// A workload that is bound and has no usable exit: nothing of it leaves.
pub const CLAIM_NO_EXIT: u32 = FLAG | (2 << EXIT_SHIFT);

/// Chain priority in the bridge family's `prerouting`: ahead of br_netfilter's detour into the ip hooks (0).
pub const PRIORITY_BRIDGE: i32 = -300;
/// Chain priority in `prerouting`: right behind destination NAT (-100), so that the real destination is seen, and behind mangle (-150), so that others' marks are.
pub const PRIORITY_PREROUTING: i32 = -99;
/// Chain priority in `output` (a route chain, as mangle's).
pub const PRIORITY_OUTPUT: i32 = -149;
/// Source NAT: ahead of every masquerade at `srcnat` (100). The first NAT chain that translates a flow wins.
pub const PRIORITY_SNAT: i32 = 95;
/// Behind source NAT: what leaves an uplink bears one of that NIC's addresses.
pub const PRIORITY_SEAL: i32 = 110;

/// The guard from boot on: in `forward`, where both interfaces are known by name.
pub const PRIORITY_BOOT_GUARD: i32 = -1;

/// Preference of the policy rule that finds what is inside, ahead of the NIC rules.
pub const PREFERENCE_INSIDE: u32 = 1560;
/// Preference of the policy rules `fwmark NIC lookup table`.
pub const PREFERENCE_NIC: u32 = 1561;
/// Preference of the policy rules `from EXIT lookup main`, without its default route and the uplinks.
pub const PREFERENCE_FROM_INSIDE: u32 = 1562;
/// Preference of the policy rules `from EXIT lookup TABLE_NODES`.
pub const PREFERENCE_FROM_NODES: u32 = 1563;
/// Preference of the policy rules `from EXIT lookup table`.
pub const PREFERENCE_FROM: u32 = 1564;
/// Table of NIC n is this plus n.
pub const TABLE_BASE: u32 = 15600;
/// Table of the ways to what is inside behind other nodes: the last of ours.
pub const TABLE_NODES: u32 = TABLE_BASE + NIC_MAX as u32 + 1;
/// Metric of the last route of each of our tables: unreachable.
pub const METRIC_LAST: u32 = u32::MAX;
/// Link group of the uplinks ("eg" in ASCII).
pub const UPLINK_GROUP: u32 = 0x6567;
/// Protocol number (`rtm_protocol`, `FRA_PROTOCOL`) of every route and rule that is ours.
pub const PROTOCOL: u8 = 156;
