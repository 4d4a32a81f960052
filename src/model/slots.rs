//! Slots: the places that a turn, chance or a hash chooses from. Each leads to one of several targets, and a weight is a number of slots.

use std::hash::{Hash, Hasher};

use crate::fnv::Fnv;

/// Fewest slots of a hash.
const FEWEST: usize = 256;
/// Slots of a hash for each target, at least: a lost one's go to many others.
const EACH: usize = 8;
/// How many times as many slots there are where those do not suffice.
const MORE: usize = 4;

/// One whole turn: each target as often as its weight says, as far apart as can be (the smooth weighted round robin of nginx).
pub fn turns<T: Copy>(weighted: &[(T, u16)]) -> Vec<T> {
    let common = weighted.iter().fold(0, |common, (_, weight)| greatest_common_divisor(common, *weight)).max(1);
    let weights: Vec<i64> = weighted.iter().map(|(_, weight)| i64::from(weight / common)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weighted.len()];
    let turn = (0..total).map(|_| {
        credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
        let next = (0..credit.len()).rev().max_by_key(|at| credit[*at]).expect("there is one for each of the total");
        credit[next] -= total;
        weighted[next].0
    });
    turn.collect()
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Each slot to the target that has the highest score there (rendezvous hashing): a target that goes leaves its slots to the others, and none
/// of theirs moves. The scores follow from the keys alone, so a restart changes nothing. `known`: how many targets there are, with those that
/// take nothing just now. Another number of slots deals everything anew, so it follows from these, and changes seldom.
pub fn hashed<T: Copy, K: Hash + Ord>(known: usize, weighted: &[(T, u16)], key: impl Fn(&T) -> K) -> Vec<T> {
    let score = |slot: usize, target: &T, weight: u16| {
        let one = |part: u16| {
            let mut hash = Fnv::default();
            (key(target), slot as u64, part).hash(&mut hash);
            mixed(hash.finish())
        };
        (0..weight).map(one).max()
    };
    let best = |slot: usize| {
        let best = weighted.iter().max_by_key(|(target, weight)| (score(slot, target, *weight), key(target)));
        best.map(|(target, _)| *target)
    };
    (0..slots(known)).filter_map(best).collect()
}

/// How many slots a hash has for so many targets: a power of two.
fn slots(known: usize) -> usize {
    let mut slots = FEWEST;
    while slots < EACH * known {
        slots *= MORE;
    }
    slots
}

/// FNV's low bits follow its last bytes too closely for a comparison (the finalizer of MurmurHash3).
fn mixed(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}
