//! One winner for each source that several bindings name.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;

use super::facts::IfIndex;
use super::reason::Reason;
use super::select::precedence;
use super::workload::{Row, State};

/// A source: the link that it enters by, and its addresses.
type Source = (IfIndex, IpNet);

/// Of two rows that claim the same, or two subnets of which one lies in the other, the one whose binding takes precedence stays.
/// (A single address inside a bound subnet is no conflict: it is the more specific.)
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
    for (source, at) in subnets {
        match overlapping(&kept, source) {
            Some(winner) => lose(&mut rows, at, winner),
            None => drop(kept.insert(source, at)),
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

/// A subnet on the same interface that contains this one or lies in it. Those kept never overlap each other, so a neighbour tells.
fn overlapping(kept: &BTreeMap<Source, usize>, (interface, net): Source) -> Option<usize> {
    let before = kept.range(..=(interface, net)).next_back();
    let after = kept.range((interface, net)..).next();
    let near = before.into_iter().chain(after).filter(|((i, _), _)| *i == interface);
    near.filter(|((_, other), _)| other.contains(&net) || net.contains(other)).map(|(_, at)| *at).next()
}
