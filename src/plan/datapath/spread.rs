//! Several exits for one binding, by turn, at random or by a hash.
//!
//! The first packet is given a way in `prerouting`, if the exits have more than one, and in `postrouting` one of that way's exits. A hash says
//! the same at both; turns are counted at both, so each exit has its exact part of the flows that leave by its way.
//!
//! Flows to a destination for which some exits have hardly a source port left go by chains of their own, over the others: they take nobody's turn.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::spill::{self, Spill};
use super::{names, source_ports};
use crate::contract::MARK_MASK;
use crate::model::binding::Spread;
use crate::model::spread::Shares;
use crate::model::uplinks::Exit;
use crate::model::ways;
use crate::nft::build::{Operand, constant, daddr, fib_oif, hash_of, map, mark, oif, random, ranges, rule, saddr, turn};
use crate::nft::{Bytes, Chain, Data, Datatype, Elements, Family, Key, Rule, Set, Table, Verdict};

/// Fragments that were made before, by policy: a hash over thousands of exits is worked out once, and not in each round.
#[derive(Clone, Debug, Default)]
pub struct Cache(BTreeMap<u32, (Shares, Fragment)>);

/// The chains and sets of one policy.
#[derive(Clone, Debug, Default)]
struct Fragment {
    chains: Vec<(String, Chain)>,
    sets: Vec<(String, Set)>,
    /// Its exits have more than one way.
    several_ways: bool,
}

impl Cache {
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

/// The chain that does so for what is forwarded, but for what goes inside.
fn outside_chain(policy: u32) -> String {
    format!("outside-{policy:08x}")
}

/// The chain that gives a new flow of the policy its way.
fn way_chain(policy: u32) -> String {
    format!("way-{policy:08x}")
}

/// The chain that gives a new flow of the policy its exit.
pub fn exit_chain(policy: u32) -> String {
    format!("exit-{policy:08x}")
}

/// What the slots of a policy lead to that has several exits of one way or of several.
pub fn slots(table: &Table, policy: u32) -> impl Iterator<Item = &Data> {
    let prefix = format!("slots-{policy:08x}");
    let sets = table.sets.range(prefix.clone()..).take_while(move |(name, _)| name.starts_with(&prefix));
    sets.flat_map(|(_, set)| set.elements.values())
}

/// The policy that a set of slots is for.
pub fn policy_of(set: &str) -> Option<u32> {
    let rest = set.strip_prefix("slots-").or_else(|| set.strip_prefix("ways-"))?;
    u32::from_str_radix(rest.get(..8)?, 16).ok()
}

/// The exit that an element of a set of slots leads to, where it leads to a chain of that exit. (`nft` reads no name with a colon.)
pub fn exit_of(data: &Data) -> Option<IpAddr> {
    let Data::Verdict(Verdict::Jump(chain)) = data else { return None };
    chain.strip_prefix("leave-")?.get(9..)?.replace('_', ":").parse().ok()
}

fn leave_chain(policy: u32, exit: &Exit) -> String {
    format!("leave-{policy:08x}-{}", exit.address.to_string().replace(':', "_"))
}

/// Adds a policy's chains and slots to a table of its family.
pub fn add(table: &mut Table, policy: u32, shares: &Shares, v6: bool, made: &mut Cache) {
    let fragment = made.fragment(policy, shares, v6);
    table.chains.extend(fragment.chains.iter().cloned());
    table.sets.extend(fragment.sets.iter().cloned());
    if fragment.several_ways {
        for (name, chain) in [(names::SPREADS, outside_chain(policy)), (names::SOCKET_SPREADS, way_chain(policy))] {
            let jump = Data::Verdict(Verdict::Jump(chain));
            let spreads = table.sets.entry(name.to_owned());
            spreads.and_modify(|set| _ = set.elements.insert(Key::one(Bytes::of_number(policy)), jump));
        }
    }
}

/// The slots of one choice: of all exits of a policy, or of those that are not closed to some destinations.
struct Choice<'a> {
    /// What the names of its sets begin with.
    kind: &'a str,
    /// What those of its chains and sets have behind what they are for.
    name: String,
    spread: Spread,
    slots: Vec<Exit>,
    v6: bool,
}

impl Fragment {
    fn of(policy: u32, shares: &Shares, v6: bool) -> Self {
        let all = Choice { kind: "", name: format!("{policy:08x}"), spread: shares.spread, slots: shares.slots(), v6 };
        let mut fragment = Self { several_ways: all.slots.iter().any(|exit| exit.way != all.slots[0].way), ..Self::default() };
        let chains = shares.shares.iter().any(|share| share.exit.ports.is_some());
        if chains {
            let leave = |exit: &Exit| (leave_chain(policy, exit), Chain::regular(source_ports::to(exit)));
            fragment.chains.extend(shares.shares.iter().map(|share| leave(&share.exit)));
        }
        let leads_to = |exit: &Exit| match chains {
            true => Data::Verdict(Verdict::Jump(leave_chain(policy, exit))),
            false => Data::address(exit.address),
        };
        let spill = Spill::of(shares);
        let [ways, exits] = ["ways", "exits"].map(|what| spill::set_name(what, policy));
        // These rules are always there: a rule that comes makes those behind it anew, and the turn would begin anew with them.
        let to_ways = vec![spill::look_up(&ways, v6)];
        let to_exits = vec![spill::look_up(&exits, v6)];
        // A way that is chosen is not chosen again; where it has no exit that is open, the closed ones of it have to do.
        if fragment.several_ways {
            let rules: Vec<Rule> = not_for_the_inside(all.slots[0], v6).into_iter().chain([rule().goto(&way_chain(policy))]).collect();
            fragment.chains.push((outside_chain(policy), Chain::regular(rules)));
            fragment.sets.push((ways, spill.set(v6, |name| Data::Verdict(Verdict::Goto(format!("{}-{name}", way_chain(policy)))))));
        }
        fragment.sets.push((exits, spill.set(v6, |name| Data::Verdict(Verdict::Jump(format!("{}-{name}", exit_chain(policy)))))));
        for (closed, name) in spill.choices() {
            let slots = shares.without(closed).slots();
            let open = Choice { kind: "spill-", name: format!("{policy:08x}-{name}"), slots, ..all };
            fragment.choose(&open, [Vec::new(), Vec::new()], leads_to, chains);
        }
        fragment.choose(&all, [to_ways, to_exits], leads_to, chains);
        fragment
    }

    /// Adds the chains of a choice, behind rules that come first in them.
    fn choose(&mut self, choice: &Choice, [mut to_ways, mut to_exits]: [Vec<Rule>; 2], leads_to: impl Fn(&Exit) -> Data, chains: bool) {
        if self.several_ways {
            to_ways.push(choice.way(&mut self.sets));
            self.chains.push((format!("way-{}", choice.name), Chain::regular(to_ways)));
        }
        to_exits.extend(choice.exits(leads_to, chains, &mut self.sets));
        self.chains.push((format!("exit-{}", choice.name), Chain::regular(to_exits)));
    }
}

impl Choice<'_> {
    /// The rule that chooses a way.
    fn way(&self, sets: &mut Vec<(String, Set)>) -> Rule {
        let set = format!("{}ways-{}", self.kind, self.name);
        let elements = numbered(&self.slots, |exit| Data::mark(ways::mark(exit.way)));
        let choose = rule().set_mark(map(set.as_str(), [slot(self.spread, self.slots.len(), self.v6)])).done();
        sets.push((set, Set { elements, ..Set::map([Datatype::Mark], Datatype::Mark) }));
        choose
    }

    /// The rules that choose an exit, one for each way.
    fn exits(&self, leads_to: impl Fn(&Exit) -> Data, jumps: bool, sets: &mut Vec<(String, Set)>) -> Vec<Rule> {
        let mut by_way: BTreeMap<u8, Vec<Exit>> = BTreeMap::new();
        self.slots.iter().for_each(|exit| by_way.entry(exit.way).or_default().push(*exit));
        let hashed = matches!(self.spread, Spread::BySource | Spread::ByDestination);
        let datatype = if jumps { Datatype::Verdict } else { Datatype::address(self.v6) };
        // Behind the routing its NIC tells a way, whatever another program has made of the mark; but where two of them have one NIC.
        let alone = |way: u8| {
            let nic = by_way[&way][0].interface;
            by_way.iter().all(|(other, exits)| *other == way || exits[0].interface != nic)
        };
        let mut rules = Vec::new();
        for (way, own) in &by_way {
            // By turn, a way's slots are its own; a hash finds the slot again that it found in `prerouting`.
            let set = format!("{}slots-{}", self.kind, self.name);
            let own_nic = own[0].interface;
            let (set, own) = if hashed { (set, &self.slots) } else { (format!("{set}-{way}"), own) };
            let of_way = if alone(*way) { rule().is(oif(), own_nic) } else { rule().is(mark().and(MARK_MASK), ways::mark(*way)) };
            let slot = slot(self.spread, own.len(), self.v6);
            rules.push(match jumps {
                true => of_way.vmap(set.as_str(), [slot]),
                false => of_way.snat(Family::ip(self.v6), map(set.as_str(), [slot])),
            });
            sets.push((set, Set { elements: numbered(own, &leads_to), ..Set::map([Datatype::Mark], datatype) }));
        }
        rules
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
