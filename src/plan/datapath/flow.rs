//! What conntrack says of a flow, as numbers of the kernel (`linux/netfilter/nf_conntrack_common.h`).

/// `ct direction` of answers.
pub const REPLY: u32 = 1;
/// `ct direction` of who began the flow.
pub const ORIGINAL: u32 = 0;
/// `IPS_SRC_NAT`: its source was translated to another.
pub const TRANSLATED: u32 = 1 << 4;
/// `IPS_CONFIRMED`: the flow's first packet has left. (`ct state new` also matches later packets of an unanswered UDP flow.)
pub const CONFIRMED: u32 = 1 << 3;
/// `NF_CT_STATE_INVALID_BIT` and `NF_CT_STATE_UNTRACKED_BIT`.
pub const NO_FLOW: u32 = 1 | 1 << 6;
/// `IPS_EXPECTED`: a helper saw another flow announce this one.
pub const EXPECTED: u32 = 1 << 0;
/// `IPS_DST_NAT`: its destination was.
pub const REDIRECTED: u32 = 1 << 5;
/// `IPS_ASSURED`: both ends have sent, a connection until it was open, datagrams for two seconds.
pub const ASSURED: u32 = 1 << 2;
