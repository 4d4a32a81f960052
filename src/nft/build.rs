//! Words to write rules and sets with, so that they read nearly as in nft's language.
//!
//! ```
//! use egressd::nft::build::*;
//!
//! // ct direction reply meta mark set ct original ip daddr map @called accept
//! let answer = rule().is(ct_direction(), 1).set_mark(map("called", [ct_original_daddr(false)])).accept();
//! // snat to oif . iif . ip saddr map @exits
//! let snat = rule().snat(egressd::nft::Family::Ip, map("exits", [oif(), iif(), saddr(false)]));
//! assert_ne!(answer.tag, snat.tag);
//! ```

mod literals;
mod operand;

use std::fmt::{self, Write};
use std::hash::Hasher;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Bytes, CmpOp, Expr, Family, Kept, Meta, Rate, Refusal, Register, Rule, Target, Update, Verdict};
use crate::fnv::Fnv;
use operand::load_key;
pub use operand::*;

/// A rule that is being written.
#[derive(Clone, Debug, Default)]
pub struct RuleBuilder {
    exprs: Vec<Expr>,
    counter: Option<&'static str>,
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
        self.exprs.push(Expr::Cmp { from: 0, op, value: what.number(value) });
        self
    }

    /// `what name`; of an interface's name, whether there is such an interface or not.
    pub fn named(mut self, what: Operand, name: &str) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Cmp { from: 0, op: CmpOp::Eq, value: Bytes::of_name(name) });
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
        self.exprs.push(Expr::Range { from: 0, first: what.number(first), last: what.number(last), inverted });
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
            self.exprs.push(Expr::Bitwise { from: 0, to: 0, mask, xor });
        }
        self.exprs.push(Expr::Cmp { from: 0, op, value: Bytes::default().address(prefix.network()) });
        self
    }

    /// `key @set`. A map where a set is meant needs kernel 6.5; before that, and with marks other than 0, `is_not(map(..), 0)` says the same.
    pub fn found(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Self {
        self.lookup(set.into(), key.into(), Target::None, false)
    }

    /// `key != @set`
    pub fn not_found(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Self {
        self.lookup(set.into(), key.into(), Target::None, true)
    }

    fn lookup(mut self, set: SetName, key: Vec<Operand>, to: Target, inverted: bool) -> Self {
        load_key(&mut self.exprs, &key, 0, set.ranges);
        self.exprs.push(Expr::Lookup { set: set.name, from: 0, to, inverted });
        self
    }

    /// `meta mark set what`
    pub fn set_mark(mut self, what: Operand) -> Self {
        what.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::SetMeta { key: Meta::Mark, from: 0 });
        self
    }

    /// `ct original zone set zone`. A map of zones `nft` could not write: no datatype that it knows by name is a zone's.
    pub fn set_zone(mut self, zone: u16) -> Self {
        self.exprs.push(Expr::Immediate { value: Bytes::exact(&zone.to_ne_bytes()), to: 0 });
        self.exprs.push(Expr::SetZone { from: 0 });
        self
    }

    /// `counter comment "name …"`: what it counts is told apart by the name when it is read back.
    pub fn counter(mut self, name: &'static str) -> Self {
        self.counter = Some(name);
        self.exprs.push(Expr::Counter);
        self
    }

    /// `key vmap @set`
    pub fn vmap(self, set: impl Into<SetName>, key: impl Into<Vec<Operand>>) -> Rule {
        self.lookup(set.into(), key.into(), Target::Verdict, false).done()
    }

    /// `limit rate over BYTES bytes/second burst BURST bytes`
    pub fn over(mut self, bytes: u64, burst: u32) -> Self {
        self.exprs.push(Expr::Over { bytes, burst });
        self
    }

    /// `snat to address`, which is what a [`map`] leads to.
    pub fn snat(mut self, family: Family, address: Operand) -> Rule {
        address.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Snat { family, address: 0, ports: None });
        self.done()
    }

    /// `snat to address:first-last`; of a rule for a protocol that has ports.
    pub fn snat_ports(mut self, family: Family, address: Operand, first: u16, last: u16) -> Rule {
        address.load(&mut self.exprs, 0, false);
        let behind = behind_address(family);
        self.load_ports(family, [first, last]);
        self.exprs.push(Expr::Snat { family, address: 0, ports: Some([behind, behind + 1]) });
        self.done()
    }

    /// `dnat to address`, which is what a [`map`] leads to.
    pub fn dnat(mut self, family: Family, address: Operand) -> Rule {
        address.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Dnat { family, address: 0, port: None });
        self.done()
    }

    /// `dnat to address . port`, which is what a [`map`] leads to.
    pub fn dnat_endpoint(mut self, family: Family, endpoint: Operand) -> Rule {
        endpoint.load(&mut self.exprs, 0, false);
        self.exprs.push(Expr::Dnat { family, address: 0, port: Some(behind_address(family)) });
        self.done()
    }

    /// `masquerade`
    pub fn masquerade(mut self) -> Rule {
        self.exprs.push(Expr::Masquerade);
        self.done()
    }

    /// `flow add @flowtable`
    pub fn offload(mut self, flowtable: &str) -> Rule {
        self.exprs.push(Expr::Offload(flowtable.to_owned()));
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

    /// `dnat to address`, or `dnat to address:port`
    pub fn dnat_to(mut self, address: IpAddr, port: Option<u16>) -> Rule {
        let family = Family::ip(address.is_ipv6());
        operand::address(address).load(&mut self.exprs, 0, false);
        self.load_ports(family, port);
        self.exprs.push(Expr::Dnat { family, address: 0, port: port.map(|_| behind_address(family)) });
        self.done()
    }

    /// Puts ports into the slots behind an address.
    fn load_ports(&mut self, family: Family, ports: impl IntoIterator<Item = u16>) {
        let ports = ports.into_iter().zip(behind_address(family)..);
        self.exprs.extend(ports.map(|(port, to)| Expr::Immediate { value: Bytes::exact(&port.to_be_bytes()), to }));
    }

    /// `reject`: the sender is told. Of an ip family.
    pub fn reject(mut self, with: Refusal) -> Rule {
        self.exprs.push(Expr::Reject(with));
        self.done()
    }

    /// `update @set { key timeout … }`, of a set that rules fill.
    pub fn update(self, set: &str, key: impl Into<Vec<Operand>>, milliseconds: u64) -> Self {
        self.put(set, key.into(), milliseconds, Kept::Nothing)
    }

    /// `update @set { key timeout … limit rate over … }`: the rule goes on for what exceeds the key's rate.
    pub fn exceeds(self, set: &str, key: impl Into<Vec<Operand>>, milliseconds: u64, rate: Rate) -> Self {
        self.put(set, key.into(), milliseconds, Kept::Rate(rate))
    }

    /// `update @set { key timeout … counter }`: the packets of each key are counted.
    pub fn count_in(self, set: &str, key: impl Into<Vec<Operand>>, milliseconds: u64) -> Self {
        self.put(set, key.into(), milliseconds, Kept::Counter)
    }

    /// `update @map { key timeout … : meta mark }`
    pub fn keep_mark(mut self, map: &str, key: impl Into<Vec<Operand>>, milliseconds: u64) -> Self {
        let behind = load_key(&mut self.exprs, &key.into(), 0, false);
        self.exprs.push(Expr::Meta { key: Meta::Mark, to: behind });
        self.exprs.push(Expr::Update(Update { set: map.to_owned(), from: 0, timeout: milliseconds, keeps: Kept::Value(behind) }));
        self
    }

    fn put(mut self, set: &str, key: Vec<Operand>, timeout: u64, keeps: Kept) -> Self {
        load_key(&mut self.exprs, &key, 0, false);
        self.exprs.push(Expr::Update(Update { set: set.to_owned(), from: 0, timeout, keeps }));
        self
    }

    /// `ct count over most`
    pub fn more_flows_than(mut self, most: u32) -> Self {
        self.exprs.push(Expr::CountOver(most));
        self
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
        let tag = tag(&self.exprs);
        let tag = match self.counter {
            Some(name) => format!("{name} {tag}"),
            None => tag,
        };
        Rule { exprs: self.exprs, tag }
    }
}

/// The first slot behind an address in the slots from 0 on.
fn behind_address(family: Family) -> Register {
    if family == Family::Ip6 { 4 } else { 1 }
}

/// A short name of what a rule does, by which it is known when it is read back: FNV-1a of its expressions' text.
fn tag(exprs: &[Expr]) -> String {
    fingerprint(format_args!("{exprs:?}"))
}

/// 16 hexadecimal digits that stand for a text, the same in every version of this program: its FNV-1a hash.
pub fn fingerprint(text: fmt::Arguments<'_>) -> String {
    let mut hash = Fnv::default();
    hash.write_fmt(text).expect("hashing does not fail");
    format!("{:016x}", hash.finish())
}
