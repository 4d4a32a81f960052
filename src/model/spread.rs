//! Several exits for one binding: how its new flows are shared among those that are usable.
//!
//! A flow is given its exit once, by its first packet, and keeps it. The kernel chooses a slot (by turn, at random, or by a hash of an
//! address), and slots lead to exits: so a weight is a number of slots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::binding::{Binding, Selector, Source as Origin, Spread};
use super::facts::Family;
use super::policy::{Standing, number, standing};
use super::port_use::{Destination, Full, Source, closed};
use super::slots::{hashed, turns};
use super::uplinks::{Exit, Uplinks};
use super::workload::{Row, State};

/// One usable exit, and its part of the new flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    pub exit: Exit,
    /// 1 to 100.
    pub weight: u16,
}

/// What a policy that spreads leads to just now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shares {
    pub spread: Spread,
    /// In the binding's order; at least one.
    pub shares: Vec<Share>,
    /// How many exits of the family the binding names, usable or not.
    pub named: usize,
    /// Exits that take no new flow to a destination: they have hardly a source port left for it, and others have.
    pub closed: BTreeMap<Destination, Vec<IpAddr>>,
}

/// The shares of each policy that spreads its flows, for rows that have an exit.
pub fn spreads(rows: &[Row], uplinks: &Uplinks, full: &Full) -> BTreeMap<u32, Shares> {
    let mut spreads = BTreeMap::new();
    for row in rows {
        let (State::Bound(_), Some(binding), Some(net)) = (&row.state, &row.binding, row.address) else { continue };
        if binding.spread == Spread::FirstUsable {
            continue;
        }
        if let Standing::Bound(policy) = standing(row) {
            let family = Family::of(net.addr());
            spreads.entry(policy).or_insert_with(|| all_shares(uplinks, binding, family, full));
        }
    }
    spreads
}

/// Adds those of the files' bindings that nobody has just now, where flows take turns: the turn goes on with whoever is next, be it a program
/// that lives for one flow.
pub fn keep_turns(spreads: &mut BTreeMap<u32, Shares>, bindings: &[Arc<Binding>], uplinks: &Uplinks, full: &Full) {
    let of_host = |binding: &Binding| matches!(binding.selector, Selector::Host(_));
    let takes_turns = |binding: &&Arc<Binding>| binding.spread == Spread::RoundRobin && binding.is_accepted() && !of_host(binding);
    for binding in bindings.iter().filter(takes_turns).filter(|binding| binding.name.source == Origin::File) {
        for family in [Family::V4, Family::V6] {
            let shares = all_shares(uplinks, binding, family, full);
            if !shares.shares.is_empty() {
                spreads.entry(number(binding, family)).or_insert(shares);
            }
        }
    }
}

fn all_shares(uplinks: &Uplinks, binding: &Binding, family: Family, full: &Full) -> Shares {
    let named = binding.exits.iter().filter(|spec| Family::of(spec.address) == family).count();
    let shares = Shares { spread: binding.spread, shares: shares(uplinks, binding, family), named, closed: BTreeMap::new() };
    Shares { closed: closed(&shares.sources().collect::<Vec<_>>(), full), ..shares }
}

fn shares(uplinks: &Uplinks, binding: &Binding, family: Family) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for spec in binding.exits.iter().filter(|spec| !spec.draining && Family::of(spec.address) == family) {
        if let Some(Ok(exit)) = uplinks.exit(spec)
            && shares.iter().all(|share| share.exit.address != exit.address)
        {
            shares.push(Share { exit: *exit, weight: spec.weight });
        }
    }
    shares
}

/// One whole turn of the exits that connections of a binding leave by which another process dials: each as often as its weight says. Empty
/// without a usable one.
pub fn turn(uplinks: &Uplinks, binding: &Binding, family: Family) -> Vec<Exit> {
    let shares = shares(uplinks, binding, family);
    match binding.spread {
        Spread::FirstUsable => shares.first().map(|share| share.exit).into_iter().collect(),
        _ => turns(&shares.iter().map(|share| (share.exit, share.weight)).collect::<Vec<_>>()),
    }
}

impl Shares {
    /// Its exits, with the source ports that their flows may have.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.shares.iter().map(|share| (share.exit.address, share.exit.source_ports()))
    }

    /// The same without the exits that are closed to a destination.
    #[must_use]
    pub fn without(&self, closed: &[IpAddr]) -> Self {
        let open = self.shares.iter().filter(|share| !closed.contains(&share.exit.address));
        Self { shares: open.cloned().collect(), closed: BTreeMap::new(), ..*self }
    }

    /// The exit of each slot.
    pub fn slots(&self) -> Vec<Exit> {
        let weighted: Vec<(Exit, u16)> = self.shares.iter().map(|share| (share.exit, share.weight)).collect();
        match self.spread {
            Spread::FirstUsable => self.shares.first().map(|share| share.exit).into_iter().collect(),
            Spread::RoundRobin | Spread::Random => turns(&weighted),
            Spread::BySource | Spread::ByDestination => hashed(self.named, &weighted, |exit| exit.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(host: u8, weight: u16) -> Share {
        Share { exit: Exit { address: [172, 31, 0, host].into(), interface: 3, way: 1, ports: None }, weight }
    }

    fn slots(spread: Spread, shares: &[Share]) -> Vec<u8> {
        let slots = Shares { spread, shares: shares.to_vec(), named: shares.len(), closed: BTreeMap::new() }.slots();
        slots.iter().map(|exit| if let IpAddr::V4(address) = exit.address { address.octets()[3] } else { 0 }).collect()
    }

    #[test]
    fn a_turn_is_each_exit_as_often_as_its_weight_says() {
        assert_eq!(slots(Spread::RoundRobin, &[share(1, 1), share(2, 1), share(3, 1)]), [1, 2, 3]);
        assert_eq!(slots(Spread::RoundRobin, &[share(1, 5), share(2, 1), share(3, 1)]), [1, 1, 2, 1, 1, 3, 1]);
        assert_eq!(slots(Spread::Random, &[share(1, 50), share(2, 100)]), [2, 1, 2]);
    }

    #[test]
    fn an_exit_that_goes_leaves_all_other_slots_as_they_were() {
        // From nine to eight a power of two would change, if the slots were as few as can be.
        for exits in [2, 5, 9, 17] {
            let all: Vec<Share> = (1..=exits).map(|host| share(host, 1)).collect();
            let before = slots(Spread::BySource, &all);
            let after = slots(Spread::BySource, &all[..usize::from(exits) - 1]);
            assert_eq!(before.len(), after.len());
            assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == exits));
            assert!(!after.contains(&exits));
            let fair = before.len() / usize::from(exits);
            for host in 1..=exits {
                let own = before.iter().filter(|slot| **slot == host).count();
                assert!((fair / 2..=2 * fair).contains(&own), "{own} of {} slots for one of {exits}", before.len());
            }
        }
    }

    #[test]
    fn exits_that_cannot_be_used_just_now_count_for_the_number_of_slots() {
        let usable: Vec<Share> = (1..=32).map(|host| share(host, 1)).collect();
        let slots = |named| Shares { spread: Spread::BySource, shares: usable.clone(), named, closed: BTreeMap::new() }.slots().len();
        assert_eq!((slots(32), slots(33)), (256, 1024));
    }

    #[test]
    fn slots_of_a_hash_follow_weights_and_not_the_order() {
        let before = slots(Spread::ByDestination, &[share(1, 1), share(2, 3)]);
        assert_eq!(before, slots(Spread::ByDestination, &[share(2, 3), share(1, 1)]));
        let own = before.iter().filter(|slot| **slot == 2).count();
        assert!((160..=224).contains(&own), "{own} of 256 slots for three of four parts");
    }
}
