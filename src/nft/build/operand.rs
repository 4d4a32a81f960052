//! What rules look at, and how it is brought into the registers.

use std::net::IpAddr;

use crate::contract::HASH_SEED;
use crate::nft::{Bytes, Ct, Expr, Meta, PayloadBase, Register, Target};

/// Where a VLAN tag has its number; the rest is priority (IEEE 802.1Q, 9.6).
const VLAN_ID: u32 = 0x0fff;

/// What a rule looks at, or sets a mark to.
#[derive(Clone, Debug)]
pub struct Operand {
    source: Source,
    mask: u32,
    bits: u32,
}

#[derive(Clone, Debug)]
enum Source {
    Meta(Meta),
    SocketCgroup(u32),
    Ct(Ct),
    Payload(PayloadBase, u32, u32),
    FibOutput,
    FibType,
    Constant(u32),
    Address(IpAddr),
    Map(SetName, Vec<Operand>),
    Numgen { random: bool, modulus: u32 },
    Jhash { of: Box<Operand>, modulus: u32 },
}

/// A set's name, and whether its keys are ranges.
#[derive(Clone, Debug)]
pub struct SetName {
    pub(super) name: String,
    pub(super) ranges: bool,
}

impl From<&str> for SetName {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), ranges: false }
    }
}

/// A set whose keys are ranges: it is looked up in network byte order.
pub fn ranges(name: &str) -> SetName {
    SetName { name: name.to_owned(), ranges: true }
}

/// `meta mark`
pub fn mark() -> Operand {
    Source::Meta(Meta::Mark).into()
}

/// `iif`
pub fn iif() -> Operand {
    Source::Meta(Meta::Iif).into()
}

/// `oif`
pub fn oif() -> Operand {
    Source::Meta(Meta::Oif).into()
}

/// `iifname`
pub fn iif_name() -> Operand {
    Source::Meta(Meta::IifName).into()
}

/// `oifname`
pub fn oif_name() -> Operand {
    Source::Meta(Meta::OifName).into()
}

/// `meta skuid`: the user of the socket that a program has open.
pub fn socket_user() -> Operand {
    Source::Meta(Meta::SocketUid).into()
}

/// `socket cgroupv2 level LEVEL`: the control group at that level that the socket was made in or below.
pub fn socket_cgroup(level: u32) -> Operand {
    Source::SocketCgroup(level).into()
}

/// `meta l4proto`
pub fn l4proto() -> Operand {
    Source::Meta(Meta::L4Proto).into()
}

/// `meta nfproto`: the version of IP, as `NFPROTO_IPV4` or `NFPROTO_IPV6`, of a packet in the family inet.
pub fn nfproto() -> Operand {
    Source::Meta(Meta::NfProto).into()
}

/// `meta protocol`: the ethertype.
pub fn protocol() -> Operand {
    Source::Meta(Meta::Protocol).into()
}

/// `ct direction`: 0 original, 1 reply.
pub fn ct_direction() -> Operand {
    Source::Ct(Ct::Direction).into()
}

/// `ct state`: a bit each.
pub fn ct_state() -> Operand {
    Source::Ct(Ct::State).into()
}

/// `ct reply ip daddr`: the address that the flow was translated to.
pub fn ct_reply_daddr(v6: bool) -> Operand {
    Source::Ct(Ct::ReplyDaddr { v6 }).into()
}

/// `ct original ip daddr`: the address that was called.
pub fn ct_original_daddr(v6: bool) -> Operand {
    Source::Ct(Ct::OriginalDaddr { v6 }).into()
}

/// `ct reply ip saddr`: who was called, behind any translation.
pub fn ct_reply_saddr(v6: bool) -> Operand {
    Source::Ct(Ct::ReplySaddr { v6 }).into()
}

/// `ct original ip saddr`: who began the flow, ahead of any translation.
pub fn ct_original_saddr(v6: bool) -> Operand {
    Source::Ct(Ct::OriginalSaddr { v6 }).into()
}

/// `ct id`
pub fn ct_id() -> Operand {
    Source::Ct(Ct::Id).into()
}

/// `ct status`: `IPS_*`.
pub fn ct_status() -> Operand {
    Source::Ct(Ct::Status).into()
}

/// `ip saddr` or `ip6 saddr`. In the bridge family the rule has to test [`protocol`] first.
pub fn saddr(v6: bool) -> Operand {
    if v6 { Source::Payload(PayloadBase::Network, 8, 16) } else { Source::Payload(PayloadBase::Network, 12, 4) }.into()
}

/// `ip daddr` or `ip6 daddr`.
pub fn daddr(v6: bool) -> Operand {
    if v6 { Source::Payload(PayloadBase::Network, 24, 16) } else { Source::Payload(PayloadBase::Network, 16, 4) }.into()
}

/// `ether saddr`: of a frame of Ethernet, as it came in.
pub fn ether_saddr() -> Operand {
    Source::Payload(PayloadBase::Link, 6, 6).into()
}

/// The number of the VLAN tag (IEEE 802.1Q) that the kernel has taken off a frame which has another one. The rule has to test [`protocol`] first.
pub fn outer_vlan() -> Operand {
    Operand::from(Source::Payload(PayloadBase::Link, 14, 2)).and(VLAN_ID)
}

/// The number of the tag that is left, of the header as it came in (`nft` 1.0.6 ends where a rule reads it from the network header). The rule has to
/// test [`protocol`] first.
pub fn inner_vlan() -> Operand {
    Operand::from(Source::Payload(PayloadBase::Link, 18, 2)).and(VLAN_ID)
}

/// `arp saddr ip`: whose hardware address an ARP packet tells (RFC 826). The rule has to test [`protocol`] first.
pub fn arp_sender() -> Operand {
    Source::Payload(PayloadBase::Network, 14, 4).into()
}

/// `icmpv6 type`. The rule has to test [`l4proto`] first.
pub fn icmpv6_type() -> Operand {
    Source::Payload(PayloadBase::Transport, 0, 1).into()
}

/// `icmpv6 taddr`: whose hardware address a neighbour advertisement tells (RFC 4861). The rule has to test [`icmpv6_type`] first.
pub fn nd_target() -> Operand {
    Source::Payload(PayloadBase::Transport, 8, 16).into()
}

/// `th dport`: of TCP, UDP, SCTP, whichever [`l4proto`] says.
pub fn dport() -> Operand {
    Source::Payload(PayloadBase::Transport, 2, 2).into()
}

/// `th sport`, with the same.
pub fn sport() -> Operand {
    Source::Payload(PayloadBase::Transport, 0, 2).into()
}

/// `fib daddr . mark oif`: the interface that the packet would leave by; 0 when it is local or has no route.
pub fn fib_oif() -> Operand {
    Source::FibOutput.into()
}

/// `fib daddr type`: what the destination is to this host (`RTN_*` of `linux/rtnetlink.h`).
pub fn fib_type() -> Operand {
    Source::FibType.into()
}

/// A number.
pub fn constant(value: u32) -> Operand {
    Source::Constant(value).into()
}

/// An address.
pub fn address(value: IpAddr) -> Operand {
    Source::Address(value).into()
}

/// `numgen inc mod N`: the rule's packets by turn.
pub fn turn(modulus: u32) -> Operand {
    Source::Numgen { random: false, modulus }.into()
}

/// `numgen random mod N`
pub fn random(modulus: u32) -> Operand {
    Source::Numgen { random: true, modulus }.into()
}

/// `jhash WHAT mod N seed S`
pub fn hash_of(what: Operand, modulus: u32) -> Operand {
    Source::Jhash { of: Box::new(what), modulus }.into()
}

/// `KEY map @NAME`: ends the rule for a packet whose key is not in the map.
pub fn map(name: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Operand {
    Source::Map(name.into(), key.into()).into()
}

impl From<Source> for Operand {
    fn from(source: Source) -> Self {
        Self { source, mask: u32::MAX, bits: 0 }
    }
}

impl Operand {
    /// `& mask`; of a number in host order.
    pub fn and(mut self, mask: u32) -> Self {
        self.mask &= mask;
        self.bits &= mask;
        self
    }

    /// `| bits`
    pub fn or(mut self, bits: u32) -> Self {
        self.mask &= !bits;
        self.bits |= bits;
        self
    }

    /// Puts it into the slots from `to` on.
    pub(super) fn load(&self, exprs: &mut Vec<Expr>, to: Register, network_order: bool) {
        match &self.source {
            Source::Meta(key) => exprs.push(Expr::Meta { key: *key, to }),
            Source::SocketCgroup(level) => exprs.push(Expr::SocketCgroup { level: *level, to }),
            Source::Ct(key) => exprs.push(Expr::Ct { key: *key, to }),
            Source::Payload(base, offset, len) => exprs.push(Expr::Payload { base: *base, offset: *offset, len: *len, to }),
            Source::FibOutput => exprs.push(Expr::FibOutput { to }),
            Source::FibType => exprs.push(Expr::FibType { to }),
            Source::Constant(value) => exprs.push(Expr::Immediate { value: Bytes::of_number(*value), to }),
            Source::Address(value) => exprs.push(Expr::Immediate { value: Bytes::default().address(*value), to }),
            Source::Numgen { random, modulus } => exprs.push(Expr::Numgen { random: *random, modulus: *modulus, to }),
            Source::Jhash { of, modulus } => {
                of.load(exprs, to, false);
                exprs.push(Expr::Jhash { from: to, len: u32::from(of.slots()) * 4, modulus: *modulus, seed: HASH_SEED, to });
            }
            Source::Map(set, key) => {
                load_key(exprs, key, to, set.ranges);
                exprs.push(Expr::Lookup { set: set.name.clone(), from: to, to: Target::Register(to), inverted: false });
            }
        }
        if self.mask != u32::MAX || self.bits != 0 {
            exprs.push(Expr::Bitwise { from: to, to, mask: self.number(self.mask), xor: self.number(self.bits) });
        }
        if network_order && !self.is_in_network_order() {
            exprs.push(Expr::ToNetworkOrder { from: to, to });
        }
    }

    fn slots(&self) -> Register {
        match self.source {
            Source::Payload(_, _, 16)
            | Source::Address(IpAddr::V6(_))
            | Source::Ct(
                Ct::ReplyDaddr { v6: true } | Ct::OriginalDaddr { v6: true } | Ct::ReplySaddr { v6: true } | Ct::OriginalSaddr { v6: true },
            ) => 4,
            Source::SocketCgroup(_) | Source::Payload(_, _, 6) => 2,
            _ => 1,
        }
    }

    /// It stands in network order already, or is a single byte.
    fn is_in_network_order(&self) -> bool {
        match self.source {
            Source::Payload(..) | Source::Address(_) | Source::Meta(Meta::NfProto | Meta::L4Proto | Meta::Protocol) => true,
            Source::Ct(key) => !matches!(key, Ct::State | Ct::Status),
            _ => false,
        }
    }

    /// A number as it stands in the slot.
    pub(super) fn number(&self, value: u32) -> Bytes {
        match &self.source {
            Source::Meta(Meta::NfProto | Meta::L4Proto) | Source::Ct(Ct::Direction) | Source::Payload(_, _, 1) => {
                Bytes::exact(&[value as u8])
            }
            Source::SocketCgroup(_) => Bytes::of_cgroup(value.into()),
            Source::Meta(Meta::Protocol) | Source::Payload(_, _, 2) => Bytes::exact(&(value as u16).to_be_bytes()),
            _ => Bytes::of_number(value),
        }
    }
}

/// Puts the fields into the slots from `to` on; which is the next one.
pub(super) fn load_key(exprs: &mut Vec<Expr>, key: &[Operand], mut to: Register, network_order: bool) -> Register {
    for field in key {
        field.load(exprs, to, network_order);
        to += field.slots();
    }
    to
}
