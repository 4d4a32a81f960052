//! Every number that egressd puts into a place it shares with other programs: once.
//!
//! ARCHITECTURE.md has the same numbers with who else uses such.

/// Name of the nftables tables, one in each of the families `ip`, `ip6` and `bridge`, and in `inet` while a binding has a rate.
pub const TABLE: &str = "egressd";

/// Packet mark: egressd routes this packet. With [`WAY`] it is all that a packet carries, from `prerouting` to the end of `postrouting`.
pub const FLAG: u32 = 0x0000_1000;
/// Packet mark: number of the way, or of an exit of the host's programs, 1 to 127; 0 is no way out.
pub const WAY: u32 = 0x0000_007f;
/// Largest number of a way.
pub const WAY_MAX: u8 = 127;
/// Bits of well-behaved neighbours that may stand beside ours: kube-proxy's 0x4000 and 0x8000, portmap's 0x2000.
pub const NEIGHBOUR_MASK: u32 = 0x0000_e000;
/// A packet mark is compared under this mask: all bits but the neighbours' have to be as egressd writes them, so that no other program's
/// mark is taken for one of ours.
pub const MARK_MASK: u32 = !NEIGHBOUR_MASK;
/// The same, whatever the way is.
pub const FLAG_MASK: u32 = MARK_MASK & !WAY;

/// Chain priority in the bridge family's `prerouting`: ahead of br_netfilter's detour into the ip hooks (0).
pub const PRIORITY_BRIDGE: i32 = -300;
/// Chain priority in `prerouting`: right behind destination NAT (-100), so that the real destination is seen, and behind mangle (-150), so
/// that others' marks are.
pub const PRIORITY_PREROUTING: i32 = -99;
/// Destination NAT of published ports, in `prerouting` and `output`: ahead of Docker's and kube-proxy's (-100). The first NAT chain that
/// translates a flow wins.
pub const PRIORITY_DNAT: i32 = -101;
/// Chain priority in `output`, ahead of conntrack (-200), where raw is: datagrams of bound programs get a zone of their policy.
pub const PRIORITY_ZONES: i32 = -300;
/// Chain priority in `output` (a route chain, as mangle's).
pub const PRIORITY_OUTPUT: i32 = -149;
/// Chain priority in `output`, behind what others do there: a mark that one of them sets must not lead a bound program's packet elsewhere.
pub const PRIORITY_BEHIND_OUTPUT: i32 = 300;
/// Source NAT: ahead of every masquerade at `srcnat` (100). The first NAT chain that translates a flow wins.
pub const PRIORITY_SNAT: i32 = 95;
/// Source NAT of calls to published ports: ahead of that of what leaves.
pub const PRIORITY_INBOUND_SNAT: i32 = 94;
/// Behind source NAT: what leaves an uplink bears one of that NIC's addresses.
pub const PRIORITY_SEAL: i32 = 110;

/// Packet mark of what egressd sends on its own account, and of what `egressd proxy` dials from an exit: a mark that is none of a way and no
/// neighbour's. It goes by the exit that is its source, whatever the host's own rules are. Where all programs of the host are bound, marked
/// packets are left alone.
pub const OWN_MARK: u32 = 0x0000_1080;

/// The guard from boot on: in `forward`, where both interfaces are known by name.
pub const PRIORITY_BOOT_GUARD: i32 = -1;

/// Packet mark in `forward` only (with IPVS in `input` and `output`, too), between [`PRIORITY_BEFORE_FORWARD`] and [`PRIORITY_BEHIND_FORWARD`],
/// beside ours: the flow is one to a published port, or of a program in a network namespace. A firewall lets it through by one rule.
pub const FORWARDED_MARK: u32 = 0x0000_0280;
/// [`FORWARDED_MARK`] is compared under this mask: with any bit of another program there is none.
pub const FORWARDED_MASK: u32 = FLAG_MASK & !FLAG;
/// Chain priority in `forward`, ahead of filters (0).
pub const PRIORITY_BEFORE_FORWARD: i32 = -5;
/// Chain priority in `forward`, behind all filters (security is at 50), and ahead of IPVS (99), which routes answers anew, by their mark.
pub const PRIORITY_BEHIND_FORWARD: i32 = 98;

/// Chain priority in `forward` of the limits of bindings, behind all that may drop a packet: what is dropped there has not been sent.
pub const PRIORITY_RATE: i32 = 310;

/// Name of the table of the fast path, in the family inet, while it is open.
pub const FAST_TABLE: &str = "egressd-fast";
/// Chain priority in `forward` of the rule that adds flows to the fast path, behind all that may drop a packet.
pub const PRIORITY_FAST: i32 = 320;
/// Priority of the flowtable among what looks at frames as a device gets them: behind others' filters (0).
pub const PRIORITY_FLOWTABLE: i32 = 100;

/// Preference of the policy rules for the host's own addresses, where another program has put the kernel's behind ours. Rules of one preference
/// are asked in the order in which they were added, so these have one of their own.
pub const PREFERENCE_LOCAL: u32 = PREFERENCE_INSIDE - 1;
/// Preference of the policy rules that find what is inside, ahead of the ways' rules.
pub const PREFERENCE_INSIDE: u32 = 1560;
/// Preference of the policy rules `fwmark WAY lookup table`.
pub const PREFERENCE_WAY: u32 = 1561;
/// Preference of the policy rules `from EXIT goto PREFERENCE_FROM_INSIDE`: the last ahead of main, since what the host itself sends goes by the
/// host's own rules first. Of the host's with this preference, which `ip rule` gives the first one that has none, they stand behind.
pub const PREFERENCE_FROM: u32 = 32_765;
/// Preference of the policy rules `from EXIT lookup main`, without its default route and the uplinks. They and those after them stand behind main
/// and default, where nothing comes by itself: from [`PREFERENCE_FROM`], and what bears [`OWN_MARK`] from [`PREFERENCE_WAY`] at once.
pub const PREFERENCE_FROM_INSIDE: u32 = 32_768;
/// Preference of the policy rules `from EXIT lookup TABLE_NODES`.
pub const PREFERENCE_FROM_NODES: u32 = 32_769;
/// Preference of the policy rules `from EXIT fwmark OWN_MARK lookup table`, where a binding names another gateway than the NIC's.
pub const PREFERENCE_FROM_OWN: u32 = 32_770;
/// Preference of the policy rules `from EXIT lookup table`.
pub const PREFERENCE_FROM_WAY: u32 = 32_771;
/// Preference of the policy rule `fwmark OWN_MARK lookup main`: what comes from no exit goes as it would have.
pub const PREFERENCE_FROM_MAIN: u32 = 32_772;
/// Preference of the policy rule `fwmark OWN_MARK lookup default`.
pub const PREFERENCE_FROM_DEFAULT: u32 = 32_773;
/// Table of way n is this plus n; of no way, this.
pub const TABLE_BASE: u32 = 15600;
/// Table of the ways to what is inside behind other nodes: the last of ours.
pub const TABLE_NODES: u32 = TABLE_BASE + WAY_MAX as u32 + 1;
/// Preference of the policy rules in the network namespaces of servers whose answers are routed back through this host: where `ip rule` puts
/// the first one, so ahead of main alone.
pub const PREFERENCE_ROUTE_BACK: u32 = 32_765;
/// Table in the network namespaces of servers whose answers are routed back through this host. Here it is not used.
pub const TABLE_ROUTE_BACK: u32 = TABLE_NODES + 1;
/// Metric of the last route of each of our tables: unreachable.
pub const METRIC_LAST: u32 = u32::MAX;
/// Link group of the uplinks ("eg" in ASCII).
pub const UPLINK_GROUP: u32 = 0x6567;
/// Seed of all hashes that choose a slot: without one of ours the kernel takes another each time that a rule is made.
pub const HASH_SEED: u32 = 0x6567_7265;
/// Protocol number (`rtm_protocol`, `FRA_PROTOCOL`, `IFA_PROTO`) of every route, rule and address that is ours.
pub const PROTOCOL: u8 = 156;
/// Metric of the subnet route that an address of ours never gets ("egrs" in ASCII): what tells it where the kernel keeps no protocol of
/// addresses (before 5.18).
pub const ADDRESS_METRIC: u32 = 0x6567_7273;
