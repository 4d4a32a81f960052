//! Several exits for one binding, by turn, at random or by a hash.
//!
//! The first packet is given a way in `prerouting`, if the exits have more than one, and in `postrouting` one of that way's exits. A hash says
//! the same at both; turns are counted at both, so each exit has its exact part of the flows that leave by its way.

use std::collections::BTreeMap;

use super::names;
use crate::contract::MARK_MASK;
use crate::model::binding::Spread;
use crate::model::spread::Shares;
use crate::model::uplinks::Exit;
use crate::model::ways;
use crate::nft::build::{Operand, daddr, hash_of, map, mark, random, rule, saddr, turn};
use crate::nft::{Bytes, Chain, Data, Datatype, Elements, Family, Key, Set, Table, Verdict};

/// Where slots lead that were worked out before: a hash over thousands of exits is done once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Made(BTreeMap<Shares, Vec<Exit>>);

impl Made {
    /// Forgets all but these.
    pub fn keep_only<'a>(&mut self, now: impl Iterator<Item = &'a Shares> + Clone) {
        self.0.retain(|shares, _| now.clone().any(|one| one == shares));
    }

    fn slots(&mut self, shares: &Shares) -> &[Exit] {
        self.0.entry(shares.clone()).or_insert_with(|| shares.slots())
    }
}

/// The chain that gives a new flow of the policy its way.
pub fn way_chain(policy: u32) -> String {
    format!("way-{policy:08x}")
}

/// The chain that gives a new flow of the policy its exit.
pub fn exit_chain(policy: u32) -> String {
    format!("exit-{policy:08x}")
}

/// The policy that a set of slots is for.
pub fn policy_of(set: &str) -> Option<u32> {
    let rest = set.strip_prefix("slots-").or_else(|| set.strip_prefix("ways-"))?;
    u32::from_str_radix(rest.get(..8)?, 16).ok()
}

/// Adds a policy's chains and slots to a table of its family.
pub fn add(table: &mut Table, policy: u32, shares: &Shares, v6: bool, made: &mut Made) {
    let slots = made.slots(shares);
    let mut by_way: BTreeMap<u8, Vec<Exit>> = BTreeMap::new();
    slots.iter().for_each(|exit| by_way.entry(exit.way).or_default().push(*exit));
    if by_way.len() > 1 {
        let set = format!("ways-{policy:08x}");
        let elements = numbered(slots, |exit| Data::mark(ways::mark(exit.way)));
        table.sets.insert(set.clone(), Set { elements, ..Set::map([Datatype::Mark], Datatype::Mark) });
        let choose = rule().set_mark(map(set.as_str(), [slot(shares.spread, slots.len(), v6)])).done();
        table.chains.insert(way_chain(policy), Chain::regular([choose]));
        let jump = Data::Verdict(Verdict::Jump(way_chain(policy)));
        let spreads = table.sets.entry(names::SPREADS.to_owned());
        spreads.and_modify(|set| drop(set.elements.insert(Key::one(Bytes::of_number(policy)), jump)));
    }
    let (family, address) = if v6 { (Family::Ip6, Datatype::Ipv6) } else { (Family::Ip, Datatype::Ipv4) };
    let hashed = matches!(shares.spread, Spread::BySource | Spread::ByDestination);
    let mut rules = Vec::new();
    for (way, own) in &by_way {
        // By turn, a way's slots are its own; a hash finds the slot again that it found in `prerouting`.
        let (set, own) = if hashed { (format!("slots-{policy:08x}"), slots) } else { (format!("slots-{policy:08x}-{way}"), &own[..]) };
        let elements = numbered(own, |exit| Data::address(exit.address));
        table.sets.insert(set.clone(), Set { elements, ..Set::map([Datatype::Mark], address) });
        let of_way = rule().is(mark().and(MARK_MASK), ways::mark(*way));
        rules.push(of_way.snat(family, map(set.as_str(), [slot(shares.spread, own.len(), v6)])));
    }
    table.chains.insert(exit_chain(policy), Chain::regular(rules));
}

fn numbered(slots: &[Exit], data: impl Fn(&Exit) -> Data) -> Elements {
    slots.iter().zip(0..).map(|(exit, number)| (Key::one(Bytes::of_number(number)), data(exit))).collect()
}

/// The number of a slot, 0 to `slots` - 1.
fn slot(spread: Spread, slots: usize, v6: bool) -> Operand {
    let slots = slots as u32;
    match spread {
        Spread::FirstUsable | Spread::RoundRobin => turn(slots),
        Spread::Random => random(slots),
        Spread::BySource => hash_of(saddr(v6), slots),
        Spread::ByDestination => hash_of(daddr(v6), slots),
    }
}
