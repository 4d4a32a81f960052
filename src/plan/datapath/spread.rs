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
use crate::nft::build::{Operand, constant, daddr, fib_oif, hash_of, map, mark, random, ranges, rule, saddr, turn};
use crate::nft::{Bytes, Chain, Data, Datatype, Elements, Family, Key, Rule, Set, Table, Verdict};

/// Fragments that were made before, by policy: a hash over thousands of exits is worked out once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Made(BTreeMap<u32, (Shares, Fragment)>);

/// The chains and sets of one policy.
#[derive(Clone, Debug, Default)]
struct Fragment {
    chains: Vec<(String, Chain)>,
    sets: Vec<(String, Set)>,
    /// Its exits have more than one way.
    several_ways: bool,
}

impl Made {
    /// Forgets all but these.
    pub fn keep_only(&mut self, spreads: &BTreeMap<u32, Shares>) {
        self.0.retain(|policy, (shares, _)| spreads.get(policy) == Some(shares));
    }

    fn fragment(&mut self, policy: u32, shares: &Shares, v6: bool) -> &Fragment {
        let made = self.0.entry(policy).or_insert_with(|| (shares.clone(), Fragment::of(policy, shares, v6)));
        if made.0 != *shares {
            *made = (shares.clone(), Fragment::of(policy, shares, v6));
        }
        &made.1
    }
}

/// The chain that gives a new flow of the policy its way.
fn way_chain(policy: u32) -> String {
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
    let fragment = made.fragment(policy, shares, v6);
    table.chains.extend(fragment.chains.iter().cloned());
    table.sets.extend(fragment.sets.iter().cloned());
    if fragment.several_ways {
        let jump = Data::Verdict(Verdict::Jump(way_chain(policy)));
        let spreads = table.sets.entry(names::SPREADS.to_owned());
        spreads.and_modify(|set| drop(set.elements.insert(Key::one(Bytes::of_number(policy)), jump)));
    }
}

impl Fragment {
    fn of(policy: u32, shares: &Shares, v6: bool) -> Self {
        let slots = shares.slots();
        let mut by_way: BTreeMap<u8, Vec<Exit>> = BTreeMap::new();
        slots.iter().for_each(|exit| by_way.entry(exit.way).or_default().push(*exit));
        let mut fragment = Self { several_ways: by_way.len() > 1, ..Self::default() };
        if fragment.several_ways {
            let set = format!("ways-{policy:08x}");
            let elements = numbered(&slots, |exit| Data::mark(ways::mark(exit.way)));
            let choose = rule().set_mark(map(set.as_str(), [slot(shares.spread, slots.len(), v6)])).done();
            let rules = not_for_the_inside(slots[0], v6).into_iter().chain([choose]);
            fragment.chains.push((way_chain(policy), Chain::regular(rules.collect::<Vec<_>>())));
            fragment.sets.push((set, Set { elements, ..Set::map([Datatype::Mark], Datatype::Mark) }));
        }
        let hashed = matches!(shares.spread, Spread::BySource | Spread::ByDestination);
        let mut rules = Vec::new();
        for (way, own) in &by_way {
            // By turn, a way's slots are its own; a hash finds the slot again that it found in `prerouting`.
            let (set, own) = if hashed { (format!("slots-{policy:08x}"), &slots) } else { (format!("slots-{policy:08x}-{way}"), own) };
            let of_way = rule().is(mark().and(MARK_MASK), ways::mark(*way));
            rules.push(of_way.snat(Family::ip(v6), map(set.as_str(), [slot(shares.spread, own.len(), v6)])));
            let elements = numbered(own, |exit| Data::address(exit.address));
            fragment.sets.push((set, Set { elements, ..Set::map([Datatype::Mark], Datatype::address(v6)) }));
        }
        fragment.chains.push((exit_chain(policy), Chain::regular(rules)));
        fragment
    }
}

/// What the host reaches without its default routes takes no turn: flows to the inside between those to the outside would make all of these
/// leave by one way.
fn not_for_the_inside(any: Exit, v6: bool) -> [Rule; 3] {
    let any = || constant(ways::mark(any.way));
    [
        rule().found(names::INSIDE_LINKS, [fib_oif()]).set_mark(any()).ret(),
        rule().found(names::INSIDE_HOSTS, [fib_oif(), daddr(v6)]).set_mark(any()).ret(),
        rule().found(ranges(names::INSIDE_ROUTES), [fib_oif(), daddr(v6)]).set_mark(any()).ret(),
    ]
}

pub fn numbered(slots: &[Exit], data: impl Fn(&Exit) -> Data) -> Elements {
    slots.iter().zip(0..).map(|(exit, number)| (Key::one(Bytes::of_number(number)), data(exit))).collect()
}

/// The number of a slot, 0 to `slots` - 1.
pub fn slot(spread: Spread, slots: usize, v6: bool) -> Operand {
    let slots = slots as u32;
    match spread {
        Spread::FirstUsable | Spread::RoundRobin => turn(slots),
        Spread::Random => random(slots),
        Spread::BySource => hash_of(saddr(v6), slots),
        Spread::ByDestination => hash_of(daddr(v6), slots),
    }
}
