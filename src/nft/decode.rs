//! What the kernel tells of our tables, back into a [`Ruleset`].
//!
//! What egressd wrote reads back equal to what was written. What someone else put in reads as something that differs from all that egressd
//! writes, so that the next difference takes it out.

use std::fmt;

use super::encode::{HOOKS, TYPE_BITS, family_number, kind_name, type_number};
use super::uapi::*;
use super::{Base, Bytes, Chain, ChainKind, Data, Datatype, Family, Hook, Key, Rule, Ruleset, Set, Table, Verdict};
use crate::contract::{PRIORITY_SNAT, TABLE};
use crate::wire::{Received, attributes, find, number_be, text};

/// A message of the kernel that lacks what it always has, or has it in another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to understand the kernel's description of a {0}")]
pub struct Malformed(&'static str);

/// A table's name and who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableHead<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    pub name: &'a str,
    /// `NFT_TABLE_F_*`.
    pub flags: u32,
    /// Port of the netlink socket that owns it.
    pub owner: Option<u32>,
}

/// Any chain, in whichever table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyChain {
    /// As nft names it.
    pub family: &'static str,
    pub table: String,
    pub chain: String,
    /// Where the kernel enters it, if that is a hook that we know.
    pub base: Option<Base>,
    /// Its policy is to drop.
    pub drops: bool,
    /// Rules in it and jumps to it.
    pub uses: u32,
}

impl AnyChain {
    /// Somebody else's NAT chain that sees a flow before ours does. All NAT chains of a hook run at one place, ordered by priority; of equals
    /// the one that came last is first.
    pub fn is_nat_ahead_of_ours(&self) -> bool {
        let nat = |base: Base| base.kind == ChainKind::Nat && base.hook == Hook::Postrouting && base.priority <= PRIORITY_SNAT;
        self.table != TABLE && self.base.is_some_and(nat)
    }
}

/// As nft names it.
impl fmt::Display for AnyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// The head of a table.
pub fn table<'a>(message: &Received<'a>) -> Option<TableHead<'a>> {
    Some(TableHead {
        family: message.family(),
        name: message.attribute(NFTA_TABLE_NAME).and_then(text)?,
        flags: message.attribute(NFTA_TABLE_FLAGS).and_then(number_be).unwrap_or(0),
        owner: message.attribute(NFTA_TABLE_OWNER).and_then(number_be),
    })
}

/// The family that a message tells of, when egressd has tables in it.
pub fn family(message: &Received) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family_number(*family) == message.family())
}

/// nft's name of a family.
pub fn family_name(family: u8) -> &'static str {
    match family {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_ARP => "arp",
        NFPROTO_NETDEV => "netdev",
        NFPROTO_BRIDGE => "bridge",
        NFPROTO_IPV6 => "ip6",
        _ => "unknown",
    }
}

/// The chain that a message tells of.
pub fn any_chain(message: &Received) -> Option<AnyChain> {
    Some(AnyChain {
        family: family_name(message.family()),
        table: message.attribute(NFTA_CHAIN_TABLE).and_then(text)?.to_owned(),
        chain: message.attribute(NFTA_CHAIN_NAME).and_then(text)?.to_owned(),
        base: base(message),
        drops: message.attribute(NFTA_CHAIN_POLICY).and_then(number_be) == Some(NF_DROP),
        uses: message.attribute(NFTA_CHAIN_USE).and_then(number_be).unwrap_or(0),
    })
}

/// The name that a rule's counter has in [`counter`](super::build::RuleBuilder::counter), and the packets that it has counted.
pub fn counted<'a>(message: &Received<'a>) -> Option<(&'a str, u64)> {
    let (name, _) = message.attribute(NFTA_RULE_USERDATA).and_then(comment)?.split_once(' ')?;
    let mut expressions = attributes(message.attribute(NFTA_RULE_EXPRESSIONS)?);
    Some((name, expressions.find_map(|(_, expr)| packets(expr))?))
}

/// The packets that an expression has counted, if it is a counter.
fn packets(expr: &[u8]) -> Option<u64> {
    find(expr, NFTA_EXPR_NAME).and_then(text).filter(|name| *name == "counter")?;
    Some(u64::from_be_bytes(*find(find(expr, NFTA_EXPR_DATA)?, NFTA_COUNTER_PACKETS)?.first_chunk()?))
}

/// Puts what a message tells of the table `name` into the ruleset. Says nothing of other tables. Whether it told nothing twice: the kernel
/// counts how far a dump of a set has come, so when the set's hash grows meanwhile some elements come twice, and as many not at all.
pub fn absorb(ruleset: &mut Ruleset, name: &str, message: &Received) -> Result<bool, Malformed> {
    // Every kind of message has its table's name in attribute 1.
    let ours = message.attribute(NFTA_TABLE_NAME).and_then(text) == Some(name);
    let (Some(family), Some(operation), true) = (family(message), message.operation(NFNL_SUBSYS_NFTABLES), ours) else {
        return Ok(true);
    };
    let table = ruleset.tables.entry(family).or_default();
    match operation {
        NFT_MSG_NEWCHAIN => chain(table, message).ok_or(Malformed("chain"))?,
        NFT_MSG_NEWRULE => rule(table, message).ok_or(Malformed("rule"))?,
        NFT_MSG_NEWSET => set(table, message).ok_or(Malformed("set"))?,
        NFT_MSG_NEWSETELEM => return elements(table, message).ok_or(Malformed("set's element")),
        _ => {}
    }
    Ok(true)
}

fn chain(table: &mut Table, message: &Received) -> Option<()> {
    let name = message.attribute(NFTA_CHAIN_NAME).and_then(text)?;
    table.chains.insert(name.to_owned(), Chain { base: base(message), rules: Vec::new() });
    Some(())
}

fn base(message: &Received) -> Option<Base> {
    let hook = message.attribute(NFTA_CHAIN_HOOK)?;
    let name = message.attribute(NFTA_CHAIN_TYPE).and_then(text)?;
    Some(Base {
        kind: [ChainKind::Filter, ChainKind::Nat, ChainKind::Route].into_iter().find(|kind| kind_name(*kind) == name)?,
        hook: hook_of(find(hook, NFTA_HOOK_HOOKNUM).and_then(number_be)?)?,
        priority: find(hook, NFTA_HOOK_PRIORITY).and_then(number_be)? as i32,
    })
}

fn hook_of(number: u32) -> Option<Hook> {
    HOOKS.get(number as usize).copied()
}

fn rule(table: &mut Table, message: &Received) -> Option<()> {
    let chain = message.attribute(NFTA_RULE_CHAIN).and_then(text)?;
    let tag = message.attribute(NFTA_RULE_USERDATA).and_then(comment).unwrap_or_default();
    let rule = Rule { exprs: Vec::new(), tag: tag.to_owned() };
    table.chains.entry(chain.to_owned()).or_default().rules.push(rule);
    Some(())
}

/// The comment in a rule's user data: a row of (type, length, value).
pub fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == NFTNL_UDATA_RULE_COMMENT {
            return text(value);
        }
        userdata = &rest[value.len()..];
    }
    None
}

fn set(table: &mut Table, message: &Received) -> Option<()> {
    let flags = message.attribute(NFTA_SET_FLAGS).and_then(number_be).unwrap_or(0);
    if flags & NFT_SET_ANONYMOUS != 0 {
        // Goes with the rule that it is written in, and cannot be deleted by itself.
        return Some(());
    }
    let name = message.attribute(NFTA_SET_NAME).and_then(text)?;
    let data = match message.attribute(NFTA_SET_DATA_TYPE).and_then(number_be) {
        Some(NFT_DATA_VERDICT) => Some(Datatype::Verdict),
        Some(number) => Some(datatype(number)),
        None => None,
    };
    let most = message.attribute(NFTA_SET_DESC).and_then(|desc| find(desc, NFTA_SET_DESC_SIZE)).and_then(number_be);
    let set = Set {
        key: fields(message.attribute(NFTA_SET_KEY_TYPE).and_then(number_be)?),
        data,
        interval: flags & NFT_SET_INTERVAL != 0,
        by_rules: (flags & NFT_SET_EVAL != 0).then(|| most.unwrap_or(0)),
        elements: Default::default(),
    };
    table.sets.insert(name.to_owned(), set);
    Some(())
}

fn fields(mut number: u32) -> Vec<Datatype> {
    let mut fields = Vec::new();
    while number != 0 {
        fields.push(datatype(number & ((1 << TYPE_BITS) - 1)));
        number >>= TYPE_BITS;
    }
    fields.reverse();
    fields
}

fn datatype(number: u32) -> Datatype {
    use Datatype::{Cgroup, Endpoint4, Endpoint6, IfIndex, Ipv4, Ipv6, Mac, Mark, Protocol, Service, Uid};
    [IfIndex, Ipv4, Ipv6, Mac, Mark, Uid, Cgroup, Protocol, Service, Endpoint4, Endpoint6]
        .into_iter()
        .find(|known| type_number(*known) == number)
        .unwrap_or(Datatype::Other(number))
}

fn elements(table: &mut Table, message: &Received) -> Option<bool> {
    let name = message.attribute(NFTA_SET_ELEM_LIST_SET).and_then(text)?;
    let Some(set) = table.sets.get_mut(name).filter(|set| set.by_rules.is_none()) else {
        return Some(true);
    };
    let mut once = true;
    for element in listed(message) {
        let Some(key) = find(element, NFTA_SET_ELEM_KEY) else {
            // A catch-all element has no key; egressd has none, and has no way to name it.
            continue;
        };
        let last = match find(element, NFTA_SET_ELEM_KEY_END) {
            Some(last) => Some(value(last)?),
            None => None,
        };
        let key = Key { first: value(key)?, last };
        let data = find(element, NFTA_SET_ELEM_DATA).and_then(data).unwrap_or(Data::None);
        once &= set.elements.insert(key, data).is_none();
    }
    Some(once)
}

/// The keys of the elements that a message tells of, as they are, of any set.
pub fn keys(message: &Received) -> impl Iterator<Item = Bytes> {
    listed(message).filter_map(|element| value(find(element, NFTA_SET_ELEM_KEY)?))
}

/// The same of a set whose elements count, with the packets of each.
pub fn counted_keys(message: &Received) -> impl Iterator<Item = (Bytes, u64)> {
    listed(message).filter_map(|element| Some((value(find(element, NFTA_SET_ELEM_KEY)?)?, packets(find(element, NFTA_SET_ELEM_EXPR)?)?)))
}

fn listed<'a>(message: &Received<'a>) -> impl Iterator<Item = &'a [u8]> {
    attributes(message.attribute(NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default()).map(|(_, element)| element)
}

fn value(nest: &[u8]) -> Option<Bytes> {
    let bytes = find(nest, NFTA_DATA_VALUE)?;
    (bytes.len() <= Bytes::CAPACITY).then(|| Bytes::exact(bytes))
}

/// `None` for what egressd never writes.
fn data(nest: &[u8]) -> Option<Data> {
    let Some(verdict) = find(nest, NFTA_DATA_VERDICT) else {
        return value(nest).map(Data::Value);
    };
    let chain = || find(verdict, NFTA_VERDICT_CHAIN).and_then(text).map(str::to_owned);
    Some(Data::Verdict(match number_be(find(verdict, NFTA_VERDICT_CODE)?)? {
        NF_ACCEPT => Verdict::Accept,
        NF_DROP => Verdict::Drop,
        NFT_RETURN => Verdict::Return,
        NFT_JUMP => Verdict::Jump(chain()?),
        NFT_GOTO => Verdict::Goto(chain()?),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nft::build::{daddr, rule};
    use crate::nft::encode::{Ownership, batch};
    use crate::nft::samples::a_ruleset;
    use crate::nft::{Change, diff};
    use crate::wire::messages;

    /// The kernel describes a thing as it was described to it.
    fn read_back(sent: &[u8]) -> Result<Ruleset, Malformed> {
        let mut ruleset = Ruleset::default();
        for message in messages(sent) {
            absorb(&mut ruleset, "egressd", &message)?;
        }
        Ok(ruleset)
    }

    fn encoded(changes: &[Change]) -> Vec<u8> {
        batch("egressd", Ownership::Exclusive, 1, changes).bytes
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(ruleset in a_ruleset()) {
            let sent = encoded(&diff(&ruleset, &Ruleset::default()));
            prop_assert_eq!(read_back(&sent), Ok(ruleset));
        }

        #[test]
        fn no_damage_to_a_message_is_a_panic(ruleset in a_ruleset(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
            let mut sent = encoded(&diff(&ruleset, &Ruleset::default()));
            for (index, byte) in damage {
                let at = index.index(sent.len());
                sent[at] = byte;
            }
            let _outcome = read_back(&sent);
        }
    }

    #[test]
    fn many_elements_are_split_and_none_is_lost() {
        let mut set = Set::map([Datatype::Mark], Datatype::Mark);
        for key in 0..5_000 {
            set.elements.insert(Key::one(Bytes::of_number(key)), Data::mark(key));
        }
        let table = Table { sets: [("marks".to_owned(), set)].into(), ..Table::default() };
        let ruleset = Ruleset { tables: [(Family::Ip, table)].into() };
        let sent = encoded(&diff(&ruleset, &Ruleset::default()));
        assert!(messages(&sent).count() > 6);
        assert_eq!(read_back(&sent), Ok(ruleset));
    }

    #[test]
    fn another_table_is_left_out() {
        let sent = encoded(&[Change::AddTable(Family::Ip)]);
        let mut ruleset = Ruleset::default();
        for message in messages(&sent) {
            assert_eq!(absorb(&mut ruleset, "other", &message), Ok(true));
        }
        assert_eq!(ruleset, Ruleset::default());
    }

    #[test]
    fn a_comment_is_found_behind_other_user_data() {
        assert_eq!(comment(&[1, 2, 9, 9, 0, 3, b'a', b'b', 0]), Some("ab"));
        assert_eq!(comment(&[1, 2, 9, 9]), None);
        assert_eq!(comment(&[0, 9, b'a']), None);
    }

    #[test]
    fn rules_that_do_the_same_have_the_same_tag_and_others_another() {
        let to = |prefix: &str| rule().within(daddr(false), prefix.parse().expect("a prefix")).drop();
        assert_eq!(to("10.0.0.0/8"), to("10.0.0.0/8"));
        assert_ne!(to("10.0.0.0/8"), to("10.0.0.0/9"));
    }
}
