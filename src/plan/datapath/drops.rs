//! Why the datapath drops a packet. Each rule that does so counts, and bears one of these as the first word of its comment: so the counters
//! can be read back by reason, and `nft list ruleset` shows them with it.

/// A source that nobody vouches for, on its way to somewhere that is not known to be inside.
pub const GUARD: &str = "Guard";
/// A bound source without a usable exit: the program gets "unreachable".
pub const NO_EXIT: &str = "NoExit";
/// What has a way would leave by another NIC than that way's, or with another address than that NIC's.
pub const SEAL: &str = "Seal";
/// A bound source's packet that bears no mark of ours: another program took it away, or conntrack does not know the flow.
pub const FOREIGN_MARK: &str = "ForeignMark";
/// What a binding's workloads send is more than its `rate`.
pub const RATE: &str = "Rate";
/// A flow of who was bound until just now, while it is being ended.
pub const DEPARTED: &str = "Departed";
/// A new flow to a server that has as many as it may have, or to a port whose servers all have: the client is refused.
pub const SERVER_LIMIT: &str = "ServerLimit";
/// A new flow of a client that has begun as many in this second as it may.
pub const CLIENT_LIMIT: &str = "ClientLimit";
/// An owned address as the source of another port of a bridge.
pub const SPOOFED: &str = "Spoofed";
