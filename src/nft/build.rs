//! Words to write rules and sets with, so that they read nearly as in nft's language.
//!
//! ```
//! use egressd::nft::build::*;
//!
//! // ct mark & 0x107f != 0 meta mark set ct mark & 0x107f accept
//! let restore = rule().is_not(ct_mark().and(0x107f), 0).set_mark(ct_mark().and(0x107f)).accept();
//! // snat to oif . ct mark & 0xff00107f map @exits
//! let snat = rule().snat(egressd::nft::Family::Ip, map("exits", [oif(), ct_mark().and(0xff00_107f)]));
//! assert_ne!(restore.tag, snat.tag);
//! ```

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Base, Bytes, Chain, ChainKind, CmpOp, Ct, Data, Datatype, Expr, Family, Hook, Key, Meta,
    PayloadBase, Register, Rule, Set, Target, Verdict,
};

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
    Ct(Ct),
    Payload(PayloadBase, u32, u32),
    FibOutput,
    Constant(u32),
    Map(SetName, Vec<Operand>),
}

/// A set's name, and whether its keys are ranges.
#[derive(Clone, Debug)]
pub struct SetName {
    name: String,
    ranges: bool,
}

impl From<&str> for SetName {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ranges: false,
        }
    }
}

/// A set whose keys are ranges: it is looked up in network byte order.
pub fn ranges(name: &str) -> SetName {
    SetName {
        name: name.to_owned(),
        ranges: true,
    }
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

/// `meta l4proto`
pub fn l4proto() -> Operand {
    Source::Meta(Meta::L4Proto).into()
}

/// `meta protocol`: the ethertype.
pub fn protocol() -> Operand {
    Source::Meta(Meta::Protocol).into()
}

/// `ct mark`
pub fn ct_mark() -> Operand {
    Source::Ct(Ct::Mark).into()
}

/// `ct direction`: 0 original, 1 reply.
pub fn ct_direction() -> Operand {
    Source::Ct(Ct::Direction).into()
}

/// `ct status`: `IPS_*`.
pub fn ct_status() -> Operand {
    Source::Ct(Ct::Status).into()
}

/// `ip saddr` or `ip6 saddr`. In the bridge family the rule has to test [`protocol`] first.
pub fn saddr(v6: bool) -> Operand {
    if v6 {
        Source::Payload(PayloadBase::Network, 8, 16)
    } else {
        Source::Payload(PayloadBase::Network, 12, 4)
    }
    .into()
}

/// `ip daddr` or `ip6 daddr`.
pub fn daddr(v6: bool) -> Operand {
    if v6 {
        Source::Payload(PayloadBase::Network, 24, 16)
    } else {
        Source::Payload(PayloadBase::Network, 16, 4)
    }
    .into()
}

/// `th dport`: of TCP, UDP, SCTP, whichever [`l4proto`] says.
pub fn dport() -> Operand {
    Source::Payload(PayloadBase::Transport, 2, 2).into()
}

/// `fib daddr . mark oif`: the interface that the packet would leave by; 0 when it is local or has no route.
pub fn fib_oif() -> Operand {
    Source::FibOutput.into()
}

/// A number.
pub fn constant(value: u32) -> Operand {
    Source::Constant(value).into()
}

/// `KEY map @NAME`: ends the rule for a packet whose key is not in the map.
pub fn map(name: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Operand {
    Source::Map(name.into(), key.into()).into()
}

impl From<Source> for Operand {
    fn from(source: Source) -> Self {
        Self {
            source,
            mask: u32::MAX,
            bits: 0,
        }
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
    fn load(&self, exprs: &mut Vec<Expr>, to: Register, network_order: bool) {
        match &self.source {
            Source::Meta(key) => exprs.push(Expr::Meta { key: *key, to }),
            Source::Ct(key) => exprs.push(Expr::Ct { key: *key, to }),
            Source::Payload(base, offset, len) => exprs.push(Expr::Payload {
                base: *base,
                offset: *offset,
                len: *len,
                to,
            }),
            Source::FibOutput => exprs.push(Expr::FibOutput { to }),
            Source::Constant(value) => exprs.push(Expr::Immediate {
                value: host(*value),
                to,
            }),
            Source::Map(set, key) => {
                load_key(exprs, key, to, set.ranges);
                exprs.push(Expr::Lookup {
                    set: set.name.clone(),
                    from: to,
                    to: Target::Register(to),
                    inverted: false,
                });
            }
        }
        if self.mask != u32::MAX || self.bits != 0 {
            exprs.push(Expr::Bitwise {
                from: to,
                to,
                mask: host(self.mask),
                xor: host(self.bits),
            });
        }
        if network_order && !matches!(self.source, Source::Payload(..)) {
            exprs.push(Expr::ToNetworkOrder { from: to, to });
        }
    }

    fn slots(&self) -> Register {
        if matches!(self.source, Source::Payload(_, _, 16)) {
            4
        } else {
            1
        }
    }

    /// A number as it stands in the slot.
    fn number(&self, value: u32) -> Bytes {
        match &self.source {
            Source::Meta(Meta::L4Proto) | Source::Ct(Ct::Direction) => Bytes::exact(&[value as u8]),
            Source::Meta(Meta::Protocol) | Source::Payload(_, _, 2) => {
                Bytes::exact(&(value as u16).to_be_bytes())
            }
            _ => host(value),
        }
    }
}

fn host(value: u32) -> Bytes {
    Bytes::exact(&value.to_ne_bytes())
}

fn load_key(exprs: &mut Vec<Expr>, key: &[Operand], mut to: Register, network_order: bool) {
    for field in key {
        field.load(exprs, to, network_order);
        to += field.slots();
    }
}

/// A rule that is being written.
#[derive(Clone, Debug, Default)]
pub struct RuleBuilder {
    exprs: Vec<Expr>,
}

/// Begins a rule.
pub fn rule() -> RuleBuilder {
    RuleBuilder::default()
}

impl RuleBuilder {
    /// `what == value`
    pub fn is(self, what: Operand, value: u32) -> Self {
        self.compare(what, CmpOp::Eq, value)
    }

    /// `what != value`
    pub fn is_not(self, what: Operand, value: u32) -> Self {
        self.compare(what, CmpOp::Ne, value)
    }

    fn compare(mut self, what: Operand, op: CmpOp, value: u32) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Cmp {
            from: 0,
            op,
            value: what.number(value),
        });
        self
    }

    /// `what first-last`; of a field in network order, as ports are.
    pub fn between(self, what: Operand, first: u32, last: u32) -> Self {
        self.range(what, first, last, false)
    }

    /// `what != first-last`
    pub fn outside(self, what: Operand, first: u32, last: u32) -> Self {
        self.range(what, first, last, true)
    }

    fn range(mut self, what: Operand, first: u32, last: u32, inverted: bool) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Range {
            from: 0,
            first: what.number(first),
            last: what.number(last),
            inverted,
        });
        self
    }

    /// `what prefix`; of an address of that family.
    pub fn within(self, what: Operand, prefix: IpNet) -> Self {
        self.prefix(what, CmpOp::Eq, prefix)
    }

    /// `what != prefix`
    pub fn not_within(self, what: Operand, prefix: IpNet) -> Self {
        self.prefix(what, CmpOp::Ne, prefix)
    }

    fn prefix(mut self, what: Operand, op: CmpOp, prefix: IpNet) -> Self {
        what.load(&mut self.exprs, 0, false);
        if prefix.prefix_len() < prefix.max_prefix_len() {
            let mask = Bytes::default().address(prefix.netmask());
            let xor = Bytes::exact(&[0; Bytes::CAPACITY][..mask.as_slice().len()]);
            self.exprs.push(Expr::Bitwise {
                from: 0,
                to: 0,
                mask,
                xor,
            });
        }
        self.exprs.push(Expr::Cmp {
            from: 0,
            op,
            value: Bytes::default().address(prefix.network()),
        });
        self
    }

    /// `key @set`
    pub fn found(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Self {
        self.lookup(set.into(), key.into(), Target::None, false)
    }

    /// `key != @set`
    pub fn not_found(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Self {
        self.lookup(set.into(), key.into(), Target::None, true)
    }

    fn lookup(mut self, set: SetName, key: Vec<Operand>, to: Target, inverted: bool) -> Self {
        load_key(&mut self.exprs, &key, 0, set.ranges);
        self.exprs.push(Expr::Lookup {
            set: set.name,
            from: 0,
            to,
            inverted,
        });
        self
    }

    /// `meta mark set what`
    pub fn set_mark(mut self, what: Operand) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::SetMeta {
            key: Meta::Mark,
            from: 0,
        });
        self
    }

    /// `ct mark set what`
    pub fn set_ct_mark(mut self, what: Operand) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::SetCtMark { from: 0 });
        self
    }

    /// `counter`
    pub fn counter(mut self) -> Self {
        self.exprs.push(Expr::Counter);
        self
    }

    /// `key vmap @set`
    pub fn vmap(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Rule {
        self.lookup(set.into(), key.into(), Target::Verdict, false)
            .done()
    }

    /// `snat to address`, which is what a [`map`] leads to.
    pub fn snat(mut self, family: Family, address: Operand) -> Rule {
        address.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Snat { family, address: 0 });
        self.done()
    }

    /// `accept`
    pub fn accept(self) -> Rule {
        self.verdict(Verdict::Accept)
    }

    /// `drop`
    pub fn drop(self) -> Rule {
        self.verdict(Verdict::Drop)
    }

    /// `return`
    pub fn ret(self) -> Rule {
        self.verdict(Verdict::Return)
    }

    /// `jump chain`
    pub fn jump(self, chain: &str) -> Rule {
        self.verdict(Verdict::Jump(chain.to_owned()))
    }

    /// `goto chain`
    pub fn goto(self, chain: &str) -> Rule {
        self.verdict(Verdict::Goto(chain.to_owned()))
    }

    fn verdict(mut self, verdict: Verdict) -> Rule {
        self.exprs.push(Expr::Verdict(verdict));
        self.done()
    }

    /// The rule, without a verdict: the packet goes on to the next one.
    pub fn done(self) -> Rule {
        Rule {
            tag: tag(&self.exprs),
            exprs: self.exprs,
        }
    }
}

/// A short name of what a rule does, by which it is known when it is read back: FNV-1a of its expressions' text.
fn tag(exprs: &[Expr]) -> String {
    let hash = format!("{exprs:?}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}

impl Chain {
    /// A chain that the kernel enters by itself.
    pub fn base(kind: ChainKind, hook: Hook, priority: i32, rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            base: Some(Base {
                kind,
                hook,
                priority,
            }),
            rules: rules.into(),
        }
    }

    /// A chain that rules and verdict maps lead to.
    pub fn regular(rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            base: None,
            rules: rules.into(),
        }
    }
}

impl Set {
    /// An empty set.
    pub fn set(key: impl Into<Vec<Datatype>>) -> Self {
        Self {
            key: key.into(),
            data: None,
            interval: false,
            elements: Default::default(),
        }
    }

    /// An empty map.
    pub fn map(key: impl Into<Vec<Datatype>>, data: Datatype) -> Self {
        Self {
            data: Some(data),
            ..Self::set(key)
        }
    }

    /// Its keys are ranges. Needs two fields or more: the kernel's set of one field's ranges has another form, which this does not write.
    pub fn with_ranges(self) -> Self {
        Self {
            interval: true,
            ..self
        }
    }
}

impl Bytes {
    /// Appends a number in host order: an interface, a mark.
    pub fn number(self, value: u32) -> Self {
        self.push(&value.to_ne_bytes())
    }

    /// Appends a number in network order, as keys that are ranges have it.
    pub fn network_number(self, value: u32) -> Self {
        self.push(&value.to_be_bytes())
    }

    /// Appends an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }
}

impl Key {
    /// One value.
    pub fn one(value: Bytes) -> Self {
        Self {
            first: value,
            last: None,
        }
    }

    /// In a set of ranges: an interface, and the addresses of a prefix.
    pub fn prefix(interface: u32, prefix: IpNet) -> Self {
        let bytes = Bytes::default().network_number(interface);
        Self {
            first: bytes.address(prefix.network()),
            last: Some(bytes.address(prefix.broadcast())),
        }
    }
}

impl Data {
    /// A mark.
    pub fn mark(value: u32) -> Self {
        Self::Value(host(value))
    }

    /// An address.
    pub fn address(address: IpAddr) -> Self {
        Self::Value(Bytes::default().address(address))
    }
}
