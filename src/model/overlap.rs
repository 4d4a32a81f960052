//! One winner for each source that several bindings name.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;

use super::facts::IfIndex;
use super::reason::Reason;
use super::select::precedence;
use super::workload::{Row, State};

/// A source: the link that it enters by, and its addresses.
type Source = (IfIndex, IpNet);

/// Of two rows that claim the same the one whose binding takes precedence stays. Of two subnets of which one lies in the other, its binding has what
/// both name, and the other one the rest. (A single address inside a bound subnet is no conflict: it is the more specific.)
pub fn without_overlaps(mut rows: Vec<Row>) -> Vec<Row> {
    let mut singles: HashMap<Source, usize> = HashMap::with_capacity(rows.len());
    let mut subnets: Vec<(Source, usize)> = Vec::new();
    for at in 0..rows.len() {
        let (Some(entry), Some(net)) = (rows[at].entry, rows[at].address) else { continue };
        let source = (entry.link(), net);
        if net.prefix_len() < net.max_prefix_len() {
            subnets.push((source, at));
            continue;
        }
        match singles.insert(source, at) {
            Some(before) if rank(&rows[before], &rows[at]).is_le() => {
                singles.insert(source, before);
                lose(&mut rows, at, before);
            }
            Some(before) => lose(&mut rows, before, at),
            None => {}
        }
    }
    subnets.sort_by(|(_, a), (_, b)| rank(&rows[*a], &rows[*b]));
    let mut kept: BTreeMap<Source, usize> = BTreeMap::new();
    for ((link, net), at) in subnets {
        let taken = taken(&kept, (link, net));
        let holes: Vec<IpNet> = taken.iter().map(|(hole, _)| *hole).collect();
        let mut rest = remainder(net, &holes).into_iter();
        let Some(first) = rest.next() else {
            lose(&mut rows, at, taken[0].1);
            continue;
        };
        if let Some(name) = rows[at].binding.as_ref().map(|binding| binding.name.clone()) {
            let winners: BTreeSet<usize> = taken.iter().map(|(_, winner)| *winner).collect();
            winners.into_iter().for_each(|winner| rows[winner].losers.push(name.clone()));
        }
        rows[at].address = Some(first);
        kept.insert((link, first), at);
        for part in rest {
            kept.insert((link, part), rows.len());
            rows.push(Row { address: Some(part), ..rows[at].clone() });
        }
    }
    rows.retain(|row| !(matches!(row.state, State::Refused(Reason::Overlap { .. })) && row.binding.is_none()));
    rows
}

/// The smaller takes precedence; who is bound by nobody comes last.
fn rank(a: &Row, b: &Row) -> Ordering {
    match (&a.binding, &b.binding) {
        (Some(a), Some(b)) => precedence(a).cmp(&precedence(b)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn lose(rows: &mut [Row], loser: usize, winner: usize) {
    let with = rows[winner].binding.as_ref().map_or_else(String::new, |b| b.name.to_string());
    if let Some(name) = rows[loser].binding.as_ref().map(|b| b.name.clone()) {
        rows[winner].losers.push(name);
    }
    rows[loser].entry = None;
    rows[loser].state = State::Refused(Reason::Overlap { with });
}

/// The subnets on the same interface that contain this one or lie in it, with the places of their rows. Those kept never overlap each other.
fn taken(kept: &BTreeMap<Source, usize>, (link, net): Source) -> Vec<(IpNet, usize)> {
    let around = kept.range(..=(link, net)).next_back().filter(|((other, around), _)| *other == link && around.contains(&net));
    let host = |address| (link, IpNet::from(address));
    let within = kept.range((link, net.trunc())..=host(net.broadcast())).filter(|((_, part), _)| net.contains(part) && *part != net);
    around.into_iter().chain(within).map(|((_, taken), at)| (*taken, *at)).collect()
}

/// What is left of a subnet, as few subnets as can be, in order.
fn remainder(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    if holes.iter().any(|hole| hole.contains(&net)) {
        return Vec::new();
    }
    if !holes.iter().any(|hole| net.contains(hole)) {
        return vec![net];
    }
    net.subnets(net.prefix_len() + 1).into_iter().flatten().flat_map(|half| remainder(half, holes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().expect("a subnet")).collect()
    }

    #[test]
    fn what_is_left_of_a_subnet_is_all_of_it_but_the_holes() {
        let rest = |net: &str, holes: &[&str]| remainder(net.parse().unwrap(), &nets(holes));
        assert_eq!(rest("172.28.0.0/24", &["172.28.0.0/25"]), nets(&["172.28.0.128/25"]));
        assert_eq!(rest("172.28.0.0/24", &["172.28.0.64/26"]), nets(&["172.28.0.0/26", "172.28.0.128/25"]));
        assert_eq!(rest("172.28.0.0/24", &["172.28.0.0/26", "172.28.0.128/25"]), nets(&["172.28.0.64/26"]));
        assert_eq!(rest("172.28.0.0/25", &["172.28.0.0/24"]), nets(&[]));
        assert_eq!(rest("172.28.0.0/24", &[]), nets(&["172.28.0.0/24"]));
        assert_eq!(rest("fd00::/64", &["fd00::/127"]).len(), 63);
    }

    #[test]
    fn what_is_taken_of_a_subnet_is_found_around_it_and_in_it_and_on_its_link_alone() {
        let kept: BTreeMap<Source, usize> =
            nets(&["10.0.0.0/26", "10.0.0.128/25", "10.0.4.0/24"]).into_iter().zip(0..).map(|(net, at)| ((7, net), at)).collect();
        let of = |link, net: &str| taken(&kept, (link, net.parse().unwrap())).into_iter().map(|(_, at)| at).collect::<Vec<_>>();
        assert_eq!(of(7, "10.0.0.0/24"), [0, 1]);
        assert_eq!(of(7, "10.0.0.192/28"), [1]);
        assert_eq!(of(7, "10.0.0.0/26"), [0]);
        assert_eq!(of(7, "10.0.0.64/26"), [0; 0]);
        assert_eq!(of(7, "10.0.0.0/16"), [0, 1, 2]);
        assert_eq!(of(8, "10.0.0.0/24"), [0; 0]);
    }
}
