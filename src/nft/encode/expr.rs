//! A rule's expressions as netlink attributes.

use super::{family_number, write_value, write_verdict};
use crate::nft::uapi::*;
use crate::nft::{Bytes, CmpOp, Ct, Expr, Kept, Meta, PayloadBase, Rate, Refusal, Register, Target, Update};
use crate::wire::Message;

pub(super) fn write(w: &mut Message, expr: &Expr) {
    w.nest(NFTA_LIST_ELEM, |w| {
        w.put_text(NFTA_EXPR_NAME, name(expr));
        w.nest(NFTA_EXPR_DATA, |w| write_body(w, expr));
    });
}

fn name(expr: &Expr) -> &'static str {
    match expr {
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::SocketCgroup { .. } => "socket",
        Expr::Ct { .. } | Expr::SetZone { .. } => "ct",
        Expr::Payload { .. } => "payload",
        Expr::Bitwise { .. } => "bitwise",
        Expr::ToNetworkOrder { .. } => "byteorder",
        Expr::Cmp { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Lookup { .. } => "lookup",
        Expr::FibOutput { .. } | Expr::FibType { .. } => "fib",
        Expr::Numgen { .. } => "numgen",
        Expr::Jhash { .. } => "hash",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Reject(_) => "reject",
        Expr::Update(_) => "dynset",
        Expr::CountOver(_) => "connlimit",
        Expr::Snat { .. } | Expr::Dnat { .. } => "nat",
        Expr::Masquerade => "masq",
        Expr::Offload(_) => "flow_offload",
        Expr::XtMark { .. } => "match",
        Expr::Counter => "counter",
        Expr::Over { .. } => "limit",
    }
}

fn write_body(w: &mut Message, expr: &Expr) {
    match expr {
        Expr::Meta { key, to } => {
            w.put_be32(NFTA_META_KEY, meta(*key));
            w.put_be32(NFTA_META_DREG, slot(*to));
        }
        Expr::SetMeta { key, from } => {
            w.put_be32(NFTA_META_KEY, meta(*key));
            w.put_be32(NFTA_META_SREG, slot(*from));
        }
        Expr::SocketCgroup { level, to } => {
            w.put_be32(NFTA_SOCKET_KEY, NFT_SOCKET_CGROUPV2);
            w.put_be32(NFTA_SOCKET_DREG, slot(*to));
            w.put_be32(NFTA_SOCKET_LEVEL, *level);
        }
        Expr::Ct { key, to } => {
            w.put_be32(NFTA_CT_KEY, ct(*key));
            w.put_be32(NFTA_CT_DREG, slot(*to));
            if let Some(direction) = direction(*key) {
                w.put(NFTA_CT_DIRECTION, &[direction]);
            }
        }
        Expr::SetZone { from } => {
            w.put_be32(NFTA_CT_KEY, NFT_CT_ZONE);
            w.put_be32(NFTA_CT_SREG, slot(*from));
            w.put(NFTA_CT_DIRECTION, &[IP_CT_DIR_ORIGINAL]);
        }
        Expr::Payload { base, offset, len, to } => {
            w.put_be32(NFTA_PAYLOAD_DREG, slot(*to));
            w.put_be32(NFTA_PAYLOAD_BASE, payload_base(*base));
            w.put_be32(NFTA_PAYLOAD_OFFSET, *offset);
            w.put_be32(NFTA_PAYLOAD_LEN, *len);
        }
        Expr::Bitwise { from, to, mask, xor } => {
            w.put_be32(NFTA_BITWISE_SREG, slot(*from));
            w.put_be32(NFTA_BITWISE_DREG, slot(*to));
            w.put_be32(NFTA_BITWISE_LEN, mask.as_slice().len() as u32);
            value(w, NFTA_BITWISE_MASK, mask);
            value(w, NFTA_BITWISE_XOR, xor);
        }
        Expr::ToNetworkOrder { from, to } => {
            w.put_be32(NFTA_BYTEORDER_SREG, slot(*from));
            w.put_be32(NFTA_BYTEORDER_DREG, slot(*to));
            w.put_be32(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON);
            w.put_be32(NFTA_BYTEORDER_LEN, 4);
            w.put_be32(NFTA_BYTEORDER_SIZE, 4);
        }
        Expr::Cmp { from, op, value: against } => {
            w.put_be32(NFTA_CMP_SREG, slot(*from));
            w.put_be32(NFTA_CMP_OP, comparison(*op));
            value(w, NFTA_CMP_DATA, against);
        }
        Expr::Range { from, first, last, inverted } => {
            w.put_be32(NFTA_RANGE_SREG, slot(*from));
            w.put_be32(NFTA_RANGE_OP, if *inverted { NFT_RANGE_NEQ } else { NFT_RANGE_EQ });
            value(w, NFTA_RANGE_FROM_DATA, first);
            value(w, NFTA_RANGE_TO_DATA, last);
        }
        Expr::Lookup { set, from, to, inverted } => {
            w.put_text(NFTA_LOOKUP_SET, set);
            w.put_be32(NFTA_LOOKUP_SREG, slot(*from));
            match to {
                Target::None => {}
                Target::Register(register) => w.put_be32(NFTA_LOOKUP_DREG, slot(*register)),
                Target::Verdict => w.put_be32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT),
            }
            if *inverted {
                w.put_be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
            }
        }
        Expr::FibOutput { to } => {
            w.put_be32(NFTA_FIB_DREG, slot(*to));
            w.put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
            w.put_be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR | NFTA_FIB_F_MARK);
        }
        Expr::FibType { to } => {
            w.put_be32(NFTA_FIB_DREG, slot(*to));
            w.put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            w.put_be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        }
        Expr::Numgen { random, modulus, to } => {
            w.put_be32(NFTA_NG_DREG, slot(*to));
            w.put_be32(NFTA_NG_MODULUS, *modulus);
            w.put_be32(NFTA_NG_TYPE, if *random { NFT_NG_RANDOM } else { NFT_NG_INCREMENTAL });
        }
        Expr::Jhash { from, len, modulus, seed, to } => {
            w.put_be32(NFTA_HASH_SREG, slot(*from));
            w.put_be32(NFTA_HASH_DREG, slot(*to));
            w.put_be32(NFTA_HASH_LEN, *len);
            w.put_be32(NFTA_HASH_MODULUS, *modulus);
            w.put_be32(NFTA_HASH_SEED, *seed);
            w.put_be32(NFTA_HASH_TYPE, NFT_HASH_JENKINS);
        }
        Expr::Immediate { value: constant, to } => {
            w.put_be32(NFTA_IMMEDIATE_DREG, slot(*to));
            value(w, NFTA_IMMEDIATE_DATA, constant);
        }
        Expr::Verdict(verdict) => {
            w.put_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            w.nest(NFTA_IMMEDIATE_DATA, |w| write_verdict(w, verdict));
        }
        Expr::Over { bytes, burst } => over(w, NFT_LIMIT_PKT_BYTES, *bytes, *burst),
        Expr::Snat { family, address, ports } => {
            w.put_be32(NFTA_NAT_TYPE, NFT_NAT_SNAT);
            w.put_be32(NFTA_NAT_FAMILY, family_number(*family).into());
            w.put_be32(NFTA_NAT_REG_ADDR_MIN, slot(*address));
            if let Some([first, last]) = ports {
                w.put_be32(NFTA_NAT_REG_PROTO_MIN, slot(*first));
                w.put_be32(NFTA_NAT_REG_PROTO_MAX, slot(*last));
            }
        }
        Expr::Reject(refusal) => reject(w, *refusal),
        Expr::Update(change) => update(w, change),
        Expr::CountOver(most) => {
            w.put_be32(NFTA_CONNLIMIT_COUNT, *most);
            w.put_be32(NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV);
        }
        Expr::Dnat { family, address, port } => {
            w.put_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
            w.put_be32(NFTA_NAT_FAMILY, family_number(*family).into());
            w.put_be32(NFTA_NAT_REG_ADDR_MIN, slot(*address));
            if let Some(port) = port {
                w.put_be32(NFTA_NAT_REG_PROTO_MIN, slot(*port));
            }
        }
        Expr::Masquerade => {}
        Expr::Offload(flowtable) => w.put_text(NFTA_FLOW_TABLE_NAME, flowtable),
        Expr::XtMark { mark, mask } => {
            w.put_text(NFTA_MATCH_NAME, "mark");
            w.put_be32(NFTA_MATCH_REV, 1);
            // `struct xt_mark_mtinfo1`: mark, mask, whether it is inverted; padded to 8 bytes.
            let info = [mark.to_ne_bytes(), mask.to_ne_bytes(), [0; 4], [0; 4]];
            w.put(NFTA_MATCH_INFO, &info.concat());
        }
        // Counts from 0.
        Expr::Counter => {}
    }
}

fn reject(w: &mut Message, refusal: Refusal) {
    let (kind, code) = match refusal {
        Refusal::Host { v6: false } => (NFT_REJECT_ICMP_UNREACH, ICMP_HOST_UNREACH),
        Refusal::Host { v6: true } => (NFT_REJECT_ICMP_UNREACH, ICMPV6_ADDR_UNREACH),
        Refusal::TcpReset => (NFT_REJECT_TCP_RST, 0),
    };
    w.put_be32(NFTA_REJECT_TYPE, kind);
    w.put(NFTA_REJECT_ICMP_CODE, &[code]);
}

fn update(w: &mut Message, change: &Update) {
    w.put_text(NFTA_DYNSET_SET_NAME, &change.set);
    w.put_be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
    w.put_be32(NFTA_DYNSET_SREG_KEY, slot(change.from));
    w.put(NFTA_DYNSET_TIMEOUT, &change.timeout.to_be_bytes());
    match change.keeps {
        Kept::Nothing => {}
        Kept::Rate(Rate { per_second, burst }) => w.nest(NFTA_DYNSET_EXPR, |w| {
            w.put_text(NFTA_EXPR_NAME, "limit");
            w.nest(NFTA_EXPR_DATA, |w| over(w, NFT_LIMIT_PKTS, per_second.into(), burst));
        }),
        Kept::Value(from) => w.put_be32(NFTA_DYNSET_SREG_DATA, slot(from)),
        // From 0.
        Kept::Counter => w.nest(NFTA_DYNSET_EXPR, |w| w.put_text(NFTA_EXPR_NAME, "counter")),
    }
}

/// A limit that fits what is over it: so much each second, in the unit of `kind`.
fn over(w: &mut Message, kind: u32, rate: u64, burst: u32) {
    w.put(NFTA_LIMIT_RATE, &rate.to_be_bytes());
    // Seconds.
    w.put(NFTA_LIMIT_UNIT, &1_u64.to_be_bytes());
    w.put_be32(NFTA_LIMIT_BURST, burst);
    w.put_be32(NFTA_LIMIT_TYPE, kind);
    w.put_be32(NFTA_LIMIT_FLAGS, NFT_LIMIT_F_INV);
}

fn value(w: &mut Message, kind: u16, value: &Bytes) {
    w.nest(kind, |w| write_value(w, value));
}

fn slot(register: Register) -> u32 {
    NFT_REG32_00 + u32::from(register)
}

fn meta(key: Meta) -> u32 {
    match key {
        Meta::Mark => NFT_META_MARK,
        Meta::Iif => NFT_META_IIF,
        Meta::Oif => NFT_META_OIF,
        Meta::IifName => NFT_META_IIFNAME,
        Meta::OifName => NFT_META_OIFNAME,
        Meta::SocketUid => NFT_META_SKUID,
        Meta::NfProto => NFT_META_NFPROTO,
        Meta::L4Proto => NFT_META_L4PROTO,
        Meta::Protocol => NFT_META_PROTOCOL,
    }
}

fn ct(key: Ct) -> u32 {
    match key {
        Ct::Direction => NFT_CT_DIRECTION,
        Ct::State => NFT_CT_STATE,
        Ct::Status => NFT_CT_STATUS,
        Ct::ReplyDaddr { v6: false } | Ct::OriginalDaddr { v6: false } => NFT_CT_DST_IP,
        Ct::ReplyDaddr { v6: true } | Ct::OriginalDaddr { v6: true } => NFT_CT_DST_IP6,
        Ct::Id => NFT_CT_ID,
        Ct::ReplySaddr { v6: false } | Ct::OriginalSaddr { v6: false } => NFT_CT_SRC_IP,
        Ct::ReplySaddr { v6: true } | Ct::OriginalSaddr { v6: true } => NFT_CT_SRC_IP6,
    }
}

/// The direction whose address is asked for.
fn direction(key: Ct) -> Option<u8> {
    match key {
        Ct::ReplyDaddr { .. } | Ct::ReplySaddr { .. } => Some(IP_CT_DIR_REPLY),
        Ct::OriginalDaddr { .. } | Ct::OriginalSaddr { .. } => Some(IP_CT_DIR_ORIGINAL),
        Ct::Direction | Ct::State | Ct::Status | Ct::Id => None,
    }
}

fn payload_base(base: PayloadBase) -> u32 {
    match base {
        PayloadBase::Link => NFT_PAYLOAD_LL_HEADER,
        PayloadBase::Network => NFT_PAYLOAD_NETWORK_HEADER,
        PayloadBase::Transport => NFT_PAYLOAD_TRANSPORT_HEADER,
    }
}

/// `NFT_CMP_*`.
fn comparison(op: CmpOp) -> u32 {
    match op {
        CmpOp::Eq => 0,
        CmpOp::Ne => 1,
        CmpOp::Lt => 2,
        CmpOp::Lte => 3,
        CmpOp::Gt => 4,
        CmpOp::Gte => 5,
    }
}
