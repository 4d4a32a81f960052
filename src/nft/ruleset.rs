//! A ruleset as plain data.

use std::collections::BTreeMap;
use std::fmt;

pub use super::admission::{Kept, Rate, Refusal, Update};
pub use super::elements::Elements;

/// Families that we have tables in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ip,
    Ip6,
    Bridge,
    /// IPv4 and IPv6.
    Inet,
}

/// All tables of ours: at most one in a family, all of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub tables: BTreeMap<Family, Table>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; `None` for a chain that rules jump to.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A rule. Read back from the kernel it is known by `tag` alone (kept in its user data as nft's comment), and `exprs` is empty.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub exprs: Vec<Expr>,
    pub tag: String,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

impl Eq for Rule {}

/// A set, or a map when it has `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub key: Vec<Datatype>,
    pub data: Option<Datatype>,
    /// Keys are ranges (`flags interval`); the key's values are then in network byte order.
    pub interval: bool,
    /// Rules put the elements in, so many at most, each with a timeout (`flags dynamic,timeout`): `elements` is empty, and no plan reads what
    /// there is.
    pub by_rules: Option<u32>,
    pub elements: Elements,
}

/// nft's datatypes that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    IfIndex,
    Ipv4,
    Ipv6,
    /// A hardware address of Ethernet.
    Mac,
    Mark,
    /// A user's number.
    Uid,
    /// The number of a control group (its inode), 8 bytes host order.
    Cgroup,
    /// A transport protocol's number, 1 byte.
    Protocol,
    /// A port, 2 bytes in network order.
    Service,
    /// An IPv4 address and a port, as the data of a map.
    Endpoint4,
    /// An IPv6 address and a port, as the data of a map.
    Endpoint6,
    Verdict,
    /// Another of nft's type numbers: only ever read, in what someone else put into a table of ours.
    Other(u32),
}

impl Datatype {
    /// Bytes of a value.
    pub fn width(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Service => 2,
            Self::Mac => 6,
            Self::Cgroup | Self::Endpoint4 => 8,
            Self::Ipv6 => 16,
            Self::Endpoint6 => 20,
            Self::IfIndex | Self::Ipv4 | Self::Mark | Self::Uid | Self::Verdict | Self::Other(_) => 4,
        }
    }
}

/// An element's key: its bytes as in the kernel's registers, and for an interval the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub first: Bytes,
    pub last: Option<Bytes>,
}

/// Up to 24 bytes in place: two interfaces and an IPv6 address, each field padded to four bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    data: [u8; Self::CAPACITY],
    len: u8,
}

impl Bytes {
    /// Longest value, in bytes.
    pub const CAPACITY: usize = 24;

    /// Appends a field, padded to four bytes. More than 24 bytes in all is a mistake of the ruleset's author.
    pub fn push(mut self, field: &[u8]) -> Self {
        let at = usize::from(self.len);
        self.data[at..at + field.len()].copy_from_slice(field);
        self.len += field.len().next_multiple_of(4) as u8;
        self
    }

    /// A value of just its own length, as comparisons need: what a one-byte field is compared with has one byte.
    /// More than 24 bytes is a mistake of the caller.
    pub fn exact(value: &[u8]) -> Self {
        let mut data = [0; Self::CAPACITY];
        data[..value.len()].copy_from_slice(value);
        Self { data, len: value.len() as u8 }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[..usize::from(self.len)]
    }
}

/// In hexadecimal digits.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What an element of a map leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    Value(Bytes),
    Verdict(Verdict),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// The kernel's 32-bit register slots: slot n is `NFT_REG32_00 + n`, 0 to 15.
pub type Register = u8;

/// One expression; the names are nft's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Meta {
        key: Meta,
        to: Register,
    },
    SetMeta {
        key: Meta,
        from: Register,
    },
    /// `socket cgroupv2 level N`: the ancestor, so many levels below the root, of the control group that the packet's socket was made in
    /// (itself included). Ends the rule where there is no such socket, or its group is not so deep. In `prerouting`, `input` and `output`
    /// only (kernel 5.13).
    SocketCgroup {
        level: u32,
        to: Register,
    },
    Ct {
        key: Ct,
        to: Register,
    },
    /// `ct original zone set`: the zone in which flows that begin here are found, and no answers. Ahead of conntrack only. A zone has two bytes
    /// (kernel 4.3, with `CONFIG_NF_CONNTRACK_ZONES`).
    SetZone {
        from: Register,
    },
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
        to: Register,
    },
    Bitwise {
        from: Register,
        to: Register,
        mask: Bytes,
        xor: Bytes,
    },
    /// Swaps between host and network order, 4 bytes (`hton`).
    ToNetworkOrder {
        from: Register,
        to: Register,
    },
    Cmp {
        from: Register,
        op: CmpOp,
        value: Bytes,
    },
    /// In (or, inverted, not in) `first..=last`, compared as network order.
    Range {
        from: Register,
        first: Bytes,
        last: Bytes,
        inverted: bool,
    },
    /// Looks the registers up; into `to` for a map (and `to: None` with `verdict` for a verdict map).
    Lookup {
        set: String,
        from: Register,
        to: Target,
        inverted: bool,
    },
    /// `fib daddr . mark oif`: the interface that this packet would leave by; 0 when it is local or has no route.
    FibOutput {
        to: Register,
    },
    /// `fib daddr type`: what the destination is to this host (`RTN_*`).
    FibType {
        to: Register,
    },
    /// `numgen`: 0 to `modulus` - 1, one more each time, or at random.
    Numgen {
        random: bool,
        modulus: u32,
        to: Register,
    },
    /// `jhash … mod … seed …`
    Jhash {
        from: Register,
        len: u32,
        modulus: u32,
        seed: u32,
        to: Register,
    },
    Immediate {
        value: Bytes,
        to: Register,
    },
    Verdict(Verdict),
    /// `limit rate over … bytes/second burst … bytes`: ends the rule for what is not over it.
    Over {
        bytes: u64,
        burst: u32,
    },
    /// `snat to` the address in the register, with one of the ports from one register's to another's.
    Snat {
        family: Family,
        address: Register,
        ports: Option<[Register; 2]>,
    },
    Reject(Refusal),
    Update(Update),
    /// `ct count over N`: the rule's own open flows, this one included, are more than so many.
    CountOver(u32),
    /// `dnat to` the address in the register, and to the port in another one.
    Dnat {
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    /// `flow add @flowtable`: the flow's later packets are forwarded where they come in, by whatever the flowtable's devices are. In `forward`
    /// only.
    Offload(String),
    /// `masquerade`: source NAT to the address that the output interface has toward the destination.
    Masquerade,
    /// iptables' `-m mark`: the packet mark under a mask, by the kernel's `xt_mark`, revision 1.
    XtMark {
        mark: u32,
        mask: u32,
    },
    Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A set: only whether it is there.
    None,
    Register(Register),
    Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Mark,
    /// Interface index it came in by, 4 bytes host order.
    Iif,
    Oif,
    /// Name of the interface it came in by, 16 bytes (`IFNAMSIZ`), zeros behind it.
    IifName,
    OifName,
    /// The user of the packet's socket, 4 bytes host order. Ends the rule where there is no socket that a program has open.
    SocketUid,
    /// `NFPROTO_*` of the packet, in the family inet; 1 byte.
    NfProto,
    /// 1 byte.
    L4Proto,
    /// Ethertype, 2 bytes network order.
    Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// 1 byte: 0 original, 1 reply.
    Direction,
    /// One bit for each state, 4 bytes host order.
    State,
    /// `IPS_*` bits, 4 bytes host order.
    Status,
    /// Destination of the reply direction: the address that the flow was translated to, if it was.
    ReplyDaddr { v6: bool },
    /// Destination of the original direction: the address that was called.
    OriginalDaddr { v6: bool },
    /// Source of the reply direction: who was called, behind any translation.
    ReplySaddr { v6: bool },
    /// Source of the original direction: who began the flow, ahead of any translation.
    OriginalSaddr { v6: bool },
    /// What tells a flow from all others that there are, from its first packet on.
    Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The frame's header, as long as the packet still has it.
    Link,
    Network,
    Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
}
