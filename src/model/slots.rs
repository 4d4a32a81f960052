//! Slots: the places that a turn, chance or a hash chooses from. Each leads to one of several targets, and a weight is a number of slots.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::fnv::Fnv;

/// Fewest slots of a hash, and most: what it takes to deal them goes with their number and that of the targets.
const FEWEST: usize = 256;
const MOST: usize = 16_384;
/// Slots of a hash for each target, at least, up to [`MOST`]: a lost one's go to many others.
const EACH: usize = 8;
/// How many times as many slots there are where those do not suffice.
const MORE: usize = 4;
/// Most slots of a turn: beyond that weights are told apart less finely.
const LONGEST: u64 = 65_536;

/// One whole turn: each target as often as its weight says. Of any beginning of it each target has its share within one (R. Tijdeman, "The chairman
/// assignment problem", Discrete Mathematics 32, 1980): a place may go to whoever is due, and goes to whom it is latest for.
pub fn turns<T: Copy>(weighted: &[(T, u16)]) -> Vec<T> {
    let weights = reduced(weighted.iter().map(|(_, weight)| u64::from(*weight)).collect());
    let total: u64 = weights.iter().sum();
    // Shares are off by less than one by this part of it.
    let part = (2 * weights.len() as u64).saturating_sub(2).max(1);
    let due = |had: u64, weight: u64| (total * (had * part + 1)).div_ceil(weight * part);
    let latest = |had: u64, weight: u64| total * ((had + 1) * part - 1) / (weight * part) + 1;
    let mut had = vec![0; weights.len()];
    let mut waiting: BTreeSet<(u64, usize)> = weights.iter().enumerate().map(|(at, weight)| (due(0, *weight), at)).collect();
    let mut ready: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut turn = Vec::new();
    for place in 1..=total {
        while let Some((_, at)) = waiting.first().filter(|(due, _)| *due <= place).copied() {
            waiting.pop_first();
            ready.insert((latest(had[at], weights[at]), at));
        }
        let Some((_, at)) = ready.pop_first() else { continue };
        turn.push(weighted[at].0);
        had[at] += 1;
        if had[at] < weights[at] {
            waiting.insert((due(had[at], weights[at]), at));
        }
    }
    turn
}

/// The weights in the smallest numbers, and none that makes a turn too long.
fn reduced(weights: Vec<u64>) -> Vec<u64> {
    let divided = |weights: Vec<u64>| {
        let common = weights.iter().fold(0, |common, weight| greatest_common_divisor(common, *weight)).max(1);
        weights.into_iter().map(|weight| weight / common).collect::<Vec<_>>()
    };
    let weights = divided(weights);
    let coarser = weights.iter().sum::<u64>().div_ceil(LONGEST).max(1);
    divided(weights.into_iter().map(|weight| ((weight + coarser / 2) / coarser).max(1)).collect())
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Each slot to the target that has the highest score there (weighted rendezvous hashing): a target that goes leaves its slots to the others, and
/// none of theirs moves. The scores follow from the keys alone, so a restart changes nothing. `known`: how many targets there are, with those that
/// take nothing just now. Another number of slots deals everything anew, so it follows from these, and changes seldom.
pub fn hashed<T: Copy, K: Hash + Ord>(known: usize, weighted: &[(T, u16)], key: impl Fn(&T) -> K) -> Vec<T> {
    let mut by_weight: BTreeMap<u16, Vec<(u64, K, T)>> = BTreeMap::new();
    for (target, weight) in weighted {
        let mut hash = Fnv::default();
        key(target).hash(&mut hash);
        by_weight.entry(*weight).or_default().push((hash.finish(), key(target), *target));
    }
    let best = |slot: usize| {
        let salt = mixed(slot as u64 + 1);
        // Of one weight the highest hash has the highest score.
        let of_weight = by_weight.iter().filter_map(|(weight, targets)| {
            let scored = targets.iter().map(|(hash, key, target)| (mixed(hash ^ salt), key, target));
            scored.max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))).map(|(hash, key, target)| (score(hash, *weight), key, target))
        });
        of_weight.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1))).map(|(_, _, target)| *target)
    };
    (0..slots(known)).filter_map(best).collect()
}

/// The score of a target with this weight, by a hash that is as good as chance: the highest of so many hashes as its weight says would be as likely.
fn score(hash: u64, weight: u16) -> f64 {
    // From 0 to 1, and neither of them.
    let chance = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    f64::from(weight) / -chance.ln()
}

/// How many slots a hash has for so many targets: a power of two.
fn slots(known: usize) -> usize {
    let mut slots = FEWEST;
    while slots < EACH * known && slots < MOST {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_part_of_a_turn_each_target_has_its_share_within_one() {
        for weights in [vec![4], vec![1_u16; 7], vec![5, 1, 1], vec![1, 2, 5], vec![100, 99, 1], vec![3, 3, 2, 2, 7]] {
            let weighted: Vec<(usize, u16)> = weights.iter().copied().enumerate().collect();
            let turn = turns(&weighted);
            assert!(weighted.iter().all(|(target, _)| turn.contains(target)), "{weights:?}: {turn:?}");
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (target, weight) in &weighted {
                for end in 1..=turn.len() {
                    let has = turn[..end].iter().filter(|one| *one == target).count() as f64;
                    let fair = end as f64 * f64::from(*weight) / total;
                    assert!((has - fair).abs() <= 1.0, "{weights:?}: {target} has {has} of {end}");
                }
            }
        }
    }

    /// By counting, not by a clock: what the largest binding asks for is dealt in so many steps.
    #[test]
    fn the_most_exits_with_the_largest_weights_are_few_slots() {
        let weighted = |weight: fn(u16) -> u16| -> Vec<(u16, u16)> { (0..4096).map(|target| (target, weight(target))).collect() };
        assert_eq!(turns(&weighted(|_| 100)).len(), 4096);
        let turn = turns(&weighted(|target| 1 + target % 100));
        assert!(turn.len() <= LONGEST as usize + 4096 && turn.len() > LONGEST as usize / 2, "{}", turn.len());
        assert_eq!(hashed(4096, &weighted(|target| 1 + target % 100), |target| *target).len(), MOST);
    }
}
