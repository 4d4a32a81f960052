//! Changes as one batch of netlink messages.

mod expr;
mod flowtable;
mod gates;

use super::uapi::*;
use super::{Bytes, Chain, ChainKind, Change, Data, Datatype, Family, Hook, Key, Rule, Set, Verdict};
use crate::wire::{Message, flags, netfilter};
pub use gates::gates;

/// Elements of one message, in bytes: an attribute has at most 65,535 and an element less than 400.
const ELEMENTS_PER_MESSAGE: usize = 48 * 1024;

/// Whom the tables let change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Only the socket that makes them; they outlive it, and a later socket may take them over. Needs kernel 6.9.
    Exclusive,
    /// Everyone.
    Shared,
}

impl Ownership {
    /// `NFTA_TABLE_FLAGS`.
    pub fn flags(self) -> u32 {
        match self {
            Self::Exclusive => NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST,
            Self::Shared => 0,
        }
    }
}

/// A batch: what to send, and which change each of its messages came from.
#[derive(Debug)]
pub struct Batch {
    pub bytes: Vec<u8>,
    first: u32,
    origins: Vec<usize>,
}

impl Batch {
    /// Index of the change whose message has this sequence number.
    pub fn origin(&self, sequence: u32) -> Option<usize> {
        // The batch's own beginning has the first number.
        let at = sequence.wrapping_sub(self.first).checked_sub(1)?;
        self.origins.get(at as usize).copied()
    }

    /// How many sequence numbers it takes: those of its messages, its beginning and its end.
    pub fn sequences(&self) -> u32 {
        self.origins.len() as u32 + 2
    }

    /// Number of messages, without the batch's beginning and end.
    pub fn messages(&self) -> usize {
        self.origins.len()
    }
}

/// Encodes changes to the tables named `table`. Messages are numbered from `first` on.
pub fn batch<'a>(table: &str, ownership: Ownership, first: u32, changes: impl IntoIterator<Item = &'a Change>) -> Batch {
    let mut encoder = Encoder { table, ownership, first, bytes: Vec::new(), origins: Vec::new(), change: 0 };
    encoder.boundary(NFNL_MSG_BATCH_BEGIN, first);
    for (index, change) in changes.into_iter().enumerate() {
        encoder.change = index;
        encoder.encode(change);
    }
    encoder.end()
}

/// The beginning of a message to nf_tables.
pub fn message(operation: u16, flags: u16, family: u8) -> Message {
    netfilter::message(netfilter::kind(NFNL_SUBSYS_NFTABLES, operation), flags, family, 0)
}

/// `NFPROTO_*` of a family.
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::Ip => NFPROTO_IPV4,
        Family::Ip6 => NFPROTO_IPV6,
        Family::Bridge => NFPROTO_BRIDGE,
        Family::Inet => NFPROTO_INET,
    }
}

struct Encoder<'t> {
    table: &'t str,
    ownership: Ownership,
    first: u32,
    bytes: Vec<u8>,
    origins: Vec<usize>,
    change: usize,
}

impl Encoder<'_> {
    fn boundary(&mut self, kind: u16, sequence: u32) {
        self.bytes.extend(netfilter::message(kind, 0, 0, NFNL_SUBSYS_NFTABLES).finish(sequence, 0));
    }

    fn end(mut self) -> Batch {
        let last = self.first.wrapping_add(self.origins.len() as u32 + 1);
        self.boundary(NFNL_MSG_BATCH_END, last);
        Batch { bytes: self.bytes, first: self.first, origins: self.origins }
    }

    fn message(&mut self, operation: u16, flags: u16, family: Family, body: impl FnOnce(&mut Message)) {
        self.origins.push(self.change);
        let mut message = message(operation, flags, family_number(family));
        body(&mut message);
        let sequence = self.first.wrapping_add(self.origins.len() as u32);
        self.bytes.extend(message.finish(sequence, 0));
    }

    fn encode(&mut self, change: &Change) {
        let table = self.table;
        match change {
            Change::AddTable(family) => {
                let flags = self.ownership.flags();
                self.message(NFT_MSG_NEWTABLE, flags::CREATE, *family, |w| {
                    w.put_text(NFTA_TABLE_NAME, table);
                    w.put_be32(NFTA_TABLE_FLAGS, flags);
                });
            }
            Change::DeleteTable(family) => {
                self.message(NFT_MSG_DELTABLE, 0, *family, |w| w.put_text(NFTA_TABLE_NAME, table));
            }
            Change::AddSet(family, name, set) => {
                // The kernel wants a number; it means something only to rules that name the set by it.
                let id = self.origins.len() as u32 + 1;
                self.message(NFT_MSG_NEWSET, flags::CREATE, *family, |w| write_set(w, table, name, id, set));
            }
            Change::DeleteSet(family, name) => self.message(NFT_MSG_DELSET, 0, *family, |w| {
                w.put_text(NFTA_SET_TABLE, table);
                w.put_text(NFTA_SET_NAME, name);
            }),
            Change::AddChain(family, name, base) => {
                let chain = Chain { base: *base, rules: Vec::new() };
                self.message(NFT_MSG_NEWCHAIN, flags::CREATE, *family, |w| write_chain(w, table, name, &chain));
            }
            // Without a handle it takes every rule of the chain.
            Change::FlushChain(family, name) => self.message(NFT_MSG_DELRULE, 0, *family, |w| {
                w.put_text(NFTA_RULE_TABLE, table);
                w.put_text(NFTA_RULE_CHAIN, name);
            }),
            Change::DeleteChain(family, name) => self.message(NFT_MSG_DELCHAIN, 0, *family, |w| {
                w.put_text(NFTA_CHAIN_TABLE, table);
                w.put_text(NFTA_CHAIN_NAME, name);
            }),
            Change::AddRule(family, chain, rule) => {
                self.message(NFT_MSG_NEWRULE, flags::CREATE | flags::APPEND, *family, |w| {
                    write_rule(w, table, chain, rule);
                });
            }
            Change::AddElements(family, set, elements) => {
                let elements = elements.iter().map(|(key, data)| (key, Some(data)));
                self.elements(NFT_MSG_NEWSETELEM, flags::CREATE, *family, set, elements);
            }
            Change::DeleteElements(family, set, keys) => {
                let keys = keys.iter().map(|key| (key, None));
                self.elements(NFT_MSG_DELSETELEM, 0, *family, set, keys);
            }
            Change::AddFlowtable(family, name, flowtable) => {
                self.message(NFT_MSG_NEWFLOWTABLE, flags::CREATE | flags::EXCL, *family, |w| flowtable::write(w, table, name, flowtable));
            }
        }
    }

    fn elements<'a>(
        &mut self,
        operation: u16,
        flags: u16,
        family: Family,
        set: &str,
        elements: impl Iterator<Item = (&'a Key, Option<&'a Data>)>,
    ) {
        let table = self.table;
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.message(operation, flags, family, |w| {
                w.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
                w.put_text(NFTA_SET_ELEM_LIST_SET, set);
                w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                    let full = w.written() + ELEMENTS_PER_MESSAGE;
                    while w.written() < full {
                        let Some((key, data)) = elements.next() else {
                            break;
                        };
                        w.nest(NFTA_LIST_ELEM, |w| write_element(w, key, data));
                    }
                });
            });
        }
    }
}

fn write_chain(w: &mut Message, table: &str, name: &str, chain: &Chain) {
    w.put_text(NFTA_CHAIN_TABLE, table);
    w.put_text(NFTA_CHAIN_NAME, name);
    if let Some(base) = chain.base {
        w.nest(NFTA_CHAIN_HOOK, |w| {
            w.put_be32(NFTA_HOOK_HOOKNUM, hook_number(base.hook));
            w.put_be32(NFTA_HOOK_PRIORITY, base.priority as u32);
        });
        w.put_text(NFTA_CHAIN_TYPE, kind_name(base.kind));
        w.put_be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
    }
}

pub(super) const HOOKS: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(super) fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

fn write_rule(w: &mut Message, table: &str, chain: &str, rule: &Rule) {
    w.put_text(NFTA_RULE_TABLE, table);
    w.put_text(NFTA_RULE_CHAIN, chain);
    w.nest(NFTA_RULE_EXPRESSIONS, |w| {
        for expr in &rule.exprs {
            expr::write(w, expr);
        }
    });
    let length = u8::try_from(rule.tag.len() + 1).expect("a tag is a short text");
    let mut comment = vec![NFTNL_UDATA_RULE_COMMENT, length];
    comment.extend_from_slice(rule.tag.as_bytes());
    comment.push(0);
    w.put(NFTA_RULE_USERDATA, &comment);
}

fn write_set(w: &mut Message, table: &str, name: &str, id: u32, set: &Set) {
    let map = if set.data.is_some() { NFT_SET_MAP } else { 0 };
    let interval = if set.interval { NFT_SET_INTERVAL | NFT_SET_CONCAT } else { 0 };
    let dynamic = if set.by_rules.is_some() { NFT_SET_EVAL | NFT_SET_TIMEOUT } else { 0 };
    w.put_text(NFTA_SET_TABLE, table);
    w.put_text(NFTA_SET_NAME, name);
    w.put_be32(NFTA_SET_FLAGS, map | interval | dynamic);
    w.put_be32(NFTA_SET_KEY_TYPE, key_type(&set.key));
    w.put_be32(NFTA_SET_KEY_LEN, key_length(&set.key));
    if let Some(data) = set.data {
        let number = if data == Datatype::Verdict { NFT_DATA_VERDICT } else { type_number(data) };
        w.put_be32(NFTA_SET_DATA_TYPE, number);
        if data != Datatype::Verdict {
            w.put_be32(NFTA_SET_DATA_LEN, data.width());
        }
    }
    if let Some(most) = set.by_rules {
        w.nest(NFTA_SET_DESC, |w| w.put_be32(NFTA_SET_DESC_SIZE, most));
    }
    if set.interval {
        w.nest(NFTA_SET_DESC, |w| {
            w.nest(NFTA_SET_DESC_CONCAT, |w| {
                for field in &set.key {
                    w.nest(NFTA_LIST_ELEM, |w| w.put_be32(NFTA_SET_FIELD_LEN, field.width()));
                }
            });
        });
    }
    w.put_be32(NFTA_SET_ID, id);
    w.put(NFTA_SET_USERDATA, &set_userdata(set));
}

/// The byte orders, as `nft` writes them for itself: without them it prints an interface's or a mark's number reversed.
fn set_userdata(set: &Set) -> Vec<u8> {
    let key = match set.key.as_slice() {
        [field] => byte_order(*field),
        // Of several fields each has its own.
        _ => 0,
    };
    let mut bytes = vec![NFTNL_UDATA_SET_KEYBYTEORDER, 4];
    bytes.extend_from_slice(&key.to_ne_bytes());
    if let Some(data) = set.data {
        bytes.extend_from_slice(&[NFTNL_UDATA_SET_DATABYTEORDER, 4]);
        bytes.extend_from_slice(&byte_order(data).to_ne_bytes());
    }
    bytes
}

/// nft's `enum byteorder`: 1 host, 2 network.
fn byte_order(field: Datatype) -> u32 {
    match field {
        Datatype::IfIndex | Datatype::Mark | Datatype::Uid | Datatype::Cgroup => 1,
        Datatype::Ipv4 | Datatype::Ipv6 | Datatype::Mac | Datatype::Protocol | Datatype::Service => 2,
        Datatype::Verdict | Datatype::Endpoint4 | Datatype::Endpoint6 | Datatype::Other(_) => 0,
    }
}

/// nft's number of a type (`enum datatypes`); the kernel only keeps it.
pub(super) fn type_number(field: Datatype) -> u32 {
    match field {
        Datatype::Verdict => 1,
        Datatype::Ipv4 => 7,
        Datatype::Ipv6 => 8,
        Datatype::Mac => 9,
        Datatype::Protocol => 12,
        Datatype::Service => 13,
        Datatype::Endpoint4 => key_type(&[Datatype::Ipv4, Datatype::Service]),
        Datatype::Endpoint6 => key_type(&[Datatype::Ipv6, Datatype::Service]),
        Datatype::Mark => 19,
        Datatype::IfIndex => 20,
        Datatype::Uid => 24,
        Datatype::Cgroup => 46,
        Datatype::Other(number) => number,
    }
}

/// Bits of one field's number in a concatenation's.
pub(super) const TYPE_BITS: u32 = 6;

fn key_type(fields: &[Datatype]) -> u32 {
    fields.iter().fold(0, |number, field| number << TYPE_BITS | type_number(*field))
}

/// Each field begins at a slot of its own. A key of one field is as long as that.
fn key_length(fields: &[Datatype]) -> u32 {
    match fields {
        [field] => field.width(),
        several => several.iter().map(|field| field.width().next_multiple_of(4)).sum(),
    }
}

fn write_element(w: &mut Message, key: &Key, data: Option<&Data>) {
    w.nest(NFTA_SET_ELEM_KEY, |w| write_value(w, &key.first));
    if let Some(last) = &key.last {
        w.nest(NFTA_SET_ELEM_KEY_END, |w| write_value(w, last));
    }
    match data {
        None | Some(Data::None) => {}
        Some(Data::Value(value)) => w.nest(NFTA_SET_ELEM_DATA, |w| write_value(w, value)),
        Some(Data::Verdict(verdict)) => w.nest(NFTA_SET_ELEM_DATA, |w| write_verdict(w, verdict)),
    }
}

fn write_value(w: &mut Message, value: &Bytes) {
    w.put(NFTA_DATA_VALUE, value.as_slice());
}

fn write_verdict(w: &mut Message, verdict: &Verdict) {
    w.nest(NFTA_DATA_VERDICT, |w| {
        let (code, chain) = match verdict {
            Verdict::Accept => (NF_ACCEPT, None),
            Verdict::Drop => (NF_DROP, None),
            Verdict::Return => (NFT_RETURN, None),
            Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        w.put_be32(NFTA_VERDICT_CODE, code);
        if let Some(chain) = chain {
            w.put_text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}
