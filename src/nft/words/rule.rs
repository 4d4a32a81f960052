//! A rule as `nft` writes it: its expressions are followed as the kernel does it, with words in the registers instead of values.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::value::{Kind, NameOf, number, verdict, write};
use crate::nft::{Bytes, CmpOp, Ct, Datatype, Expr, Family, Kept, Meta, PayloadBase, Refusal, Register, Rule, Target, Update};

/// What a register holds.
#[derive(Clone, Debug)]
enum Held {
    Words { text: String, kind: Kind, prefix: Option<u8> },
    Value(Bytes),
}

impl Held {
    fn new(text: impl Into<String>, kind: Kind) -> Self {
        Self::Words { text: text.into(), kind, prefix: None }
    }
}

struct Reader<'a> {
    registers: BTreeMap<Register, Held>,
    words: Vec<String>,
    family: Family,
    name: NameOf<'a>,
}

/// The rule, without its comment.
pub fn words(rule: &Rule, family: Family, name: NameOf<'_>) -> String {
    let mut reader = Reader { registers: BTreeMap::new(), words: Vec::new(), family, name };
    rule.exprs.iter().for_each(|expr| reader.read(expr));
    reader.words.join(" ")
}

impl Reader<'_> {
    fn read(&mut self, expr: &Expr) {
        let said = match expr {
            Expr::Meta { key, to } => return self.hold(*to, meta(*key)),
            Expr::SocketCgroup { level, to } => {
                return self.hold(*to, Held::new(format!("socket cgroupv2 level {level}"), Kind::Of(Datatype::Cgroup)));
            }
            Expr::Ct { key, to } => return self.hold(*to, ct(*key)),
            Expr::Payload { base, offset, len, to } => return self.hold(*to, payload(*base, *offset, *len)),
            Expr::Bitwise { from, to, mask, xor } => return self.mask(*from, *to, mask, xor),
            // How numbers lie in registers is not written.
            Expr::ToNetworkOrder { .. } => return,
            Expr::FibOutput { to } => return self.hold(*to, Held::new("fib daddr . mark oif", Kind::Of(Datatype::IfIndex))),
            Expr::FibType { to } => return self.hold(*to, Held::new("fib daddr type", Kind::AddressType)),
            Expr::Numgen { random, modulus, to } => {
                let how = if *random { "random" } else { "inc" };
                return self.hold(*to, Held::new(format!("numgen {how} mod {modulus}"), Kind::Number));
            }
            Expr::Jhash { from, modulus, seed, to, .. } => {
                let text = format!("jhash {} mod {modulus} seed {seed:#x}", self.key(*from));
                return self.hold(*to, Held::new(text, Kind::Number));
            }
            Expr::Immediate { value, to } => return self.hold(*to, Held::Value(*value)),
            Expr::Lookup { set, from, to: Target::Register(to), .. } => {
                let text = format!("{} map @{set}", self.key(*from));
                return self.hold(*to, Held::new(text, Kind::Number));
            }
            Expr::Lookup { set, from, to, inverted } => {
                let how = match to {
                    Target::Verdict => "vmap ",
                    _ if *inverted => "!= ",
                    _ => "",
                };
                format!("{} {how}@{set}", self.key(*from))
            }
            Expr::Cmp { from, op, value } => self.compared(*from, *op, value),
            Expr::Range { from, first, last, inverted } => {
                let (text, kind, _) = self.take(*from);
                let [first, last] = [first, last].map(|value| write(kind, value.as_slice(), true, self.name));
                format!("{text} {}{first}-{last}", if *inverted { "!= " } else { "" })
            }
            Expr::SetMeta { key, from } => format!("{} set {}", text_of(&meta(*key)), self.number(*from)),
            Expr::SetZone { from } => format!("ct original zone set {}", self.number(*from)),
            Expr::Verdict(to) => verdict(to),
            Expr::Over { bytes, burst } => format!("limit rate over {bytes} bytes/second burst {burst} bytes"),
            Expr::Snat { family, address, ports } => {
                let at = self.address(*family, *address);
                let ports = ports.map(|ports| ports.map(|port| self.port(port)));
                self.translated("snat", *family, &at, ports.map(|[first, last]| format!("{first}-{last}")))
            }
            Expr::Dnat { family, address, port } => {
                let at = self.address(*family, *address);
                match port.filter(|port| !self.registers.contains_key(port)) {
                    // The map has both.
                    Some(_) => format!("dnat {} to {at}", ip(*family, "ip addr . port")),
                    None => {
                        let port = port.map(|port| self.port(port));
                        self.translated("dnat", *family, &at, port)
                    }
                }
            }
            Expr::Reject(Refusal::Host { v6: false }) => "reject with icmp host-unreachable".to_owned(),
            Expr::Reject(Refusal::Host { v6: true }) => "reject with icmpv6 addr-unreachable".to_owned(),
            Expr::Reject(Refusal::TcpReset) => "reject with tcp reset".to_owned(),
            Expr::Update(update) => self.update(update),
            Expr::CountOver(most) => format!("ct count over {most}"),
            Expr::Offload(flowtable) => format!("flow add @{flowtable}"),
            Expr::Masquerade => "masquerade".to_owned(),
            Expr::XtMark { mark, mask } => format!("meta mark & {mask:#010x} == {mark:#010x}"),
            Expr::Counter => "counter".to_owned(),
        };
        self.words.push(said);
    }

    fn hold(&mut self, at: Register, held: Held) {
        self.registers.insert(at, held);
    }

    /// What a register holds, which is used up by that.
    fn take(&mut self, from: Register) -> (String, Kind, Option<u8>) {
        match self.registers.remove(&from) {
            Some(Held::Words { text, kind, prefix }) => (text, kind, prefix),
            Some(Held::Value(value)) => (number(value.as_slice(), false).to_string(), Kind::Number, None),
            None => ("?".to_owned(), Kind::Number, None),
        }
    }

    /// All fields from a register on, as a key.
    fn key(&mut self, from: Register) -> String {
        let fields = self.registers.split_off(&from);
        fields.values().map(text_of).collect::<Vec<_>>().join(" . ")
    }

    fn mask(&mut self, from: Register, to: Register, mask: &Bytes, xor: &Bytes) {
        let (mut text, kind, _) = self.take(from);
        let mut prefix = None;
        if let Kind::Of(Datatype::Ipv4 | Datatype::Ipv6) = kind {
            let ones: u32 = mask.as_slice().iter().map(|byte| byte.count_ones()).sum();
            prefix = u8::try_from(ones).ok();
        } else {
            // A field of a packet is in network order, and shorter.
            let field = mask.as_slice().len() == 2;
            let [mask, bits] = [mask, xor].map(|value| number(value.as_slice(), field));
            if mask != u64::from(u32::MAX) {
                text += &if field { format!(" & {mask:#06x}") } else { format!(" & {mask:#010x}") };
            }
            if bits != 0 {
                text += &format!(" | {bits:#010x}");
            }
        }
        self.hold(to, Held::Words { text, kind, prefix });
    }

    fn compared(&mut self, from: Register, op: CmpOp, value: &Bytes) -> String {
        let (text, kind, prefix) = self.take(from);
        let masked = text.contains(" & ");
        let op = match op {
            CmpOp::Eq if masked => "== ",
            CmpOp::Eq => "",
            CmpOp::Ne => "!= ",
            CmpOp::Lt => "< ",
            CmpOp::Lte => "<= ",
            CmpOp::Gt => "> ",
            CmpOp::Gte => ">= ",
        };
        let mut value = write(kind, value.as_slice(), false, self.name);
        if let Some(net) = prefix.and_then(|length| format!("{value}/{length}").parse::<IpNet>().ok()) {
            value = net.to_string();
        }
        format!("{text} {op}{value}")
    }

    /// What a register holds, used up by that: its words, or its value as `written`.
    fn held(&mut self, from: Register, written: impl FnOnce(&[u8]) -> String) -> String {
        match self.registers.remove(&from) {
            Some(Held::Value(value)) => written(value.as_slice()),
            Some(Held::Words { text, .. }) => text,
            None => "?".to_owned(),
        }
    }

    /// What a number is set to: a mark, or a zone of two bytes.
    fn number(&mut self, from: Register) -> String {
        let name = self.name;
        self.held(from, |value| match value.len() {
            2 => number(value, false).to_string(),
            _ => write(Kind::Of(Datatype::Mark), value, false, name),
        })
    }

    fn address(&mut self, family: Family, from: Register) -> String {
        let (name, kind) = (self.name, Kind::Of(Datatype::address(family == Family::Ip6)));
        self.held(from, |value| write(kind, value, false, name))
    }

    fn port(&mut self, from: Register) -> String {
        self.held(from, |value| number(value, true).to_string())
    }

    fn translated(&self, how: &str, family: Family, address: &str, ports: Option<String>) -> String {
        let of = if self.family == Family::Inet { ip(family, "ip") + " " } else { String::new() };
        match ports {
            Some(ports) if address.contains(':') && !address.contains(' ') => format!("{how} {of}to [{address}]:{ports}"),
            Some(ports) => format!("{how} {of}to {address}:{ports}"),
            None => format!("{how} {of}to {address}"),
        }
    }

    fn update(&mut self, Update { set, from, timeout, keeps }: &Update) -> String {
        let stays = if timeout % 1_000 == 0 { format!("{}s", timeout / 1_000) } else { format!("{timeout}ms") };
        let value = if let Kept::Value(from) = keeps { format!(" : {}", self.take(*from).0) } else { String::new() };
        let keeps = match keeps {
            Kept::Nothing | Kept::Value(_) => String::new(),
            Kept::Rate(rate) => format!(" limit rate over {}/second burst {} packets", rate.per_second, rate.burst),
            Kept::Counter => " counter".to_owned(),
        };
        format!("update @{set} {{ {} timeout {stays}{keeps}{value} }}", self.key(*from))
    }
}

fn text_of(held: &Held) -> String {
    match held {
        Held::Words { text, .. } => text.clone(),
        Held::Value(value) => number(value.as_slice(), false).to_string(),
    }
}

/// Words of IPv4, as those of the family.
fn ip(family: Family, words: &str) -> String {
    if family == Family::Ip6 { words.replacen("ip", "ip6", 1) } else { words.to_owned() }
}

fn meta(key: Meta) -> Held {
    let (text, kind) = match key {
        Meta::Mark => ("meta mark", Kind::Of(Datatype::Mark)),
        Meta::Iif => ("iif", Kind::Of(Datatype::IfIndex)),
        Meta::Oif => ("oif", Kind::Of(Datatype::IfIndex)),
        Meta::IifName => ("iifname", Kind::Name),
        Meta::OifName => ("oifname", Kind::Name),
        Meta::SocketUid => ("meta skuid", Kind::Of(Datatype::Uid)),
        Meta::NfProto => ("meta nfproto", Kind::IpVersion),
        Meta::L4Proto => ("meta l4proto", Kind::Of(Datatype::Protocol)),
        Meta::Protocol => ("meta protocol", Kind::EtherType),
    };
    Held::new(text, kind)
}

fn ct(key: Ct) -> Held {
    let of = |text: &str, v6: bool| Held::new(ip(Family::ip(v6), text), Kind::Of(Datatype::address(v6)));
    match key {
        Ct::Direction => Held::new("ct direction", Kind::Direction),
        Ct::State => Held::new("ct state", Kind::Number),
        Ct::Status => Held::new("ct status", Kind::Number),
        Ct::ReplyDaddr { v6 } => of("ct reply ip daddr", v6),
        Ct::OriginalDaddr { v6 } => of("ct original ip daddr", v6),
        Ct::ReplySaddr { v6 } => of("ct reply ip saddr", v6),
        Ct::Id => Held::new("ct id", Kind::Number),
        Ct::OriginalSaddr { v6 } => of("ct original ip saddr", v6),
    }
}

/// The fields that rules are written with (`build::operand`).
fn payload(base: PayloadBase, offset: u32, length: u32) -> Held {
    let (text, kind) = match (base, offset, length) {
        (PayloadBase::Network, 12, 4) => ("ip saddr", Datatype::Ipv4),
        (PayloadBase::Network, 16, 4) => ("ip daddr", Datatype::Ipv4),
        (PayloadBase::Network, 8, 16) => ("ip6 saddr", Datatype::Ipv6),
        (PayloadBase::Network, 24, 16) => ("ip6 daddr", Datatype::Ipv6),
        (PayloadBase::Network, 14, 4) => ("arp saddr ip", Datatype::Ipv4),
        (PayloadBase::Link, 6, 6) => ("ether saddr", Datatype::Mac),
        (PayloadBase::Transport, 0, 2) => ("th sport", Datatype::Service),
        (PayloadBase::Transport, 2, 2) => ("th dport", Datatype::Service),
        (PayloadBase::Transport, 0, 1) => return Held::new("icmpv6 type", Kind::Number),
        (PayloadBase::Transport, 8, 16) => ("icmpv6 taddr", Datatype::Ipv6),
        (base, offset, length) => {
            let base = match base {
                PayloadBase::Link => "ll",
                PayloadBase::Network => "nh",
                PayloadBase::Transport => "th",
            };
            return Held::new(format!("@{base},{},{}", offset * 8, length * 8), Kind::Number);
        }
    };
    Held::new(text, Kind::Of(kind))
}
