//! Which open flows have to end, once the rules are right.
//!
//! A flow keeps the address that it began with, so every change of who leaves by what leaves flows behind. They are told by their original
//! source, and by the address that they were translated to.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;

use super::datapath::traffic::bits;
use super::datapath::{names, spread};
use super::elements::{address_in, number_at, number_in, owners, source_of};
use crate::model::binding::{ExistingFlows, Source, WhenUnavailable};
use crate::model::facts::{Family as IpFamily, IfIndex};
use crate::model::policy::{Standing, is_held_unknown, standing};
use crate::model::resolve::Outcome;
use crate::model::workload::{Row, State};
use crate::nft::{Change, Data, Family, Key, Ruleset, Set};

/// The interface that the ip families see a source come in by, and its addresses.
type Entrance = (IfIndex, IpNet);

/// Flows to end: of one source, with exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub source: IpNet,
    /// Flows that were translated to these exits stay.
    pub keep: Vec<IpAddr>,
    /// Only flows that were translated to this exit.
    pub only: Option<IpAddr>,
    /// But for open connections: what else there is begins anew by itself with its next packet, a call that nobody has answered among it.
    pub keeps_open: bool,
}

impl Cut {
    /// Every flow of a source.
    pub fn all(source: IpNet) -> Self {
        Self { source, keep: Vec::new(), only: None, keeps_open: false }
    }

    /// Whether it ends a flow.
    fn hits(&self, source: IpAddr, open: bool, translated: IpAddr) -> bool {
        self.source.contains(&source)
            && !self.keep.contains(&translated)
            && self.only.is_none_or(|only| only == translated)
            && !(self.keeps_open && open)
    }
}

/// Whether a flow ends; `open`: it is a connection that was answered. When several cuts of one source run together, oldest first, the
/// newest one's `keep` wins: that flow may have started after the older cuts were queued.
pub fn ends(cuts: &[&Cut], source: IpAddr, open: bool, translated: IpAddr) -> bool {
    let kept = cuts.last().is_some_and(|newest| newest.keep.contains(&translated));
    !kept && cuts.iter().any(|cut| cut.hits(source, open, translated))
}

/// The cuts that a batch calls for. `observed` is what it was made against, `desired` what it makes of that; `rows` are those that it may be about.
pub fn cuts<'a>(
    changes: impl Iterator<Item = &'a Change> + Clone,
    (observed, desired): (&Ruleset, &Ruleset),
    outcome: &Outcome,
    rows: &[Row],
) -> Vec<Cut> {
    let (touched, gone) = (touched(changes.clone(), observed, desired), disowned(changes));
    if touched.is_empty() && gone.is_empty() {
        return Vec::new();
    }
    let mut of: HashMap<Entrance, &Row> = HashMap::default();
    // Who comes in by one link less is bound by the others as before.
    let mut of_net: HashMap<IpNet, &Row> = HashMap::default();
    let nets: HashSet<IpNet> = touched.iter().map(|(_, net)| *net).collect();
    for row in rows {
        let (Some(_), Some(net)) = (row.entry, row.address) else { continue };
        if nets.contains(&net) {
            of_net.insert(net, row);
        }
        let entrances = outcome.entrances(row).map(|interface| (interface, net));
        entrances.filter(|entrance| touched.contains(entrance)).for_each(|entrance| {
            of.insert(entrance, row);
        });
    }
    // Whoever owned an address is gone, bound or not: nobody goes on with its flows but by the exit that the address has now.
    let mut exits: HashMap<IpAddr, Vec<IpAddr>> = HashMap::default();
    for row in rows.iter().filter(|_| !gone.is_empty()) {
        if let (State::Bound(_), Some(net), Some(_)) = (&row.state, row.address, row.entry)
            && gone.contains(&net.addr())
        {
            exits.insert(net.addr(), outcome.borne_by(row));
        }
    }
    let former = gone.iter().map(|address| Cut { keep: exits.remove(address).unwrap_or_default(), ..Cut::all(IpNet::from(*address)) });
    let exits = LazyCell::new(|| exits_in(observed));
    let had = |entrance: Entrance| exits_before(observed, entrance, &exits);
    let row = |entrance: &Entrance| of.get(entrance).or_else(|| of_net.get(&entrance.1)).copied();
    former.chain(touched.iter().flat_map(|entrance| cut(*entrance, row(entrance), (observed, desired), outcome, &had))).collect()
}

/// The cuts of routed sources that are held from now on, though nobody knows by which interface they come: what they began before goes on by the
/// host's own NIC.
pub fn held(observed: &Ruleset, rows: &[Row]) -> Vec<Cut> {
    let was_held = |net: IpNet| {
        let claimed = set_of(observed, family_of(net), names::CLAIMED).into_iter().flat_map(|set| set.elements.keys());
        let mut nets = claimed.filter_map(|key| entrance(key, 0, net.addr().is_ipv6()));
        nets.any(|(_, claimed)| claimed.contains(&net))
    };
    let rows = rows.iter().filter(|row| is_held_unknown(row));
    let sources = rows.filter_map(|row| Some((row.address?, row.binding.as_ref()?))).filter(|(net, _)| !was_held(*net));
    sources.map(|(net, binding)| Cut { keeps_open: binding.existing_flows == ExistingFlows::Keep, ..Cut::all(net) }).collect()
}

/// The addresses whose owner a batch takes away, or changes. When the tables go as a whole, everybody stays where they are.
fn disowned<'a>(changes: impl Iterator<Item = &'a Change>) -> BTreeSet<IpAddr> {
    let mut gone = BTreeSet::new();
    for change in changes {
        let Change::DeleteElements(Family::Bridge, set, keys) = change else { continue };
        let v6 = names::OWNERS.iter().position(|name| name == set).map(|at| at == 1);
        gone.extend(v6.into_iter().flat_map(|v6| keys.iter().filter_map(move |key| source_of(key, v6))).map(|(_, address)| address));
    }
    gone
}

fn cut(
    entrance: Entrance,
    row: Option<&Row>,
    (observed, desired): (&Ruleset, &Ruleset),
    outcome: &Outcome,
    exits_before: &dyn Fn(Entrance) -> BTreeSet<IpAddr>,
) -> Vec<Cut> {
    let all = Cut::all(entrance.1);
    let was_bound = bound_before(observed, entrance);
    match (row.map(standing), row.and_then(|row| row.binding.as_ref())) {
        // Unbound, and known: what had an exit ends, what had none goes on.
        (Some(Standing::Free), binding) if was_bound => {
            // A connection waits for its exit, which may come back.
            let falls_back = row.is_some_and(|row| matches!(row.state, State::FellBack(_)));
            let keeps_open = falls_back && binding.is_some_and(|binding| binding.existing_flows == ExistingFlows::Keep);
            let exits = exits_before(entrance);
            // What had no exit has no flows, and yet it has to be said that none is left.
            let none = exits.is_empty().then(|| IpFamily::of(entrance.1.addr()).unspecified());
            exits.into_iter().chain(none).map(|exit| Cut { only: Some(exit), keeps_open, ..all.clone() }).collect()
        }
        (Some(Standing::Bound(_)), Some(binding)) => {
            let now = row.and_then(|row| Some((row.entry?.interface(), entrance.1))).unwrap_or(entrance);
            let same = limits(observed, entrance) == limits(desired, now);
            // What the binding was for, and is not any more, has the exit's address all the same.
            let keep = row.filter(|_| same || !was_bound).map(|row| outcome.borne_by(row)).unwrap_or_default();
            // A label is as old as its container: no flow of it can be older, unless it fell back.
            let fell_back = binding.when_unavailable == WhenUnavailable::Fallback;
            let leaked = !was_bound && binding.name.source == Source::Label && !fell_back;
            let keeps_open = binding.existing_flows == ExistingFlows::Keep && !leaked;
            vec![Cut { keep, keeps_open, ..all }]
        }
        _ if was_bound => vec![all],
        _ => Vec::new(),
    }
}

/// Sources whose policy, or the way or exits of it, a batch changes.
fn touched<'a>(changes: impl Iterator<Item = &'a Change>, observed: &Ruleset, desired: &Ruleset) -> BTreeSet<Entrance> {
    let mut touched = BTreeSet::new();
    let mut policies: HashSet<u32> = HashSet::default();
    for change in changes {
        let (family, set, keys): (_, &str, Vec<&Key>) = match change {
            Change::DeleteElements(family, set, keys) => (*family, set, keys.iter().collect()),
            Change::AddElements(family, set, elements) => (*family, set, elements.iter().map(|(key, _)| key).collect()),
            Change::DeleteTable(family) => {
                let singles = set_of(observed, *family, names::POLICIES).into_iter().flat_map(|set| set.elements.keys());
                let nets = set_of(observed, *family, names::POLICIES_NETS).into_iter().flat_map(|set| set.elements.keys());
                touched.extend(singles.chain(nets).filter_map(|key| entrance(key, 0, *family == Family::Ip6)));
                continue;
            }
            _ => continue,
        };
        let v6 = family == Family::Ip6;
        match set {
            names::POLICIES | names::POLICIES_NETS => touched.extend(keys.into_iter().filter_map(|key| entrance(key, 0, v6))),
            names::EXITS | names::EXITS_NETS | names::SPREAD_EXITS | names::SPREAD_EXITS_NETS => {
                touched.extend(keys.into_iter().filter_map(|key| entrance(key, 4, v6)))
            }
            names::POLICY_WAYS => policies.extend(keys.into_iter().filter_map(|key| number_at(key, 0))),
            other => policies.extend(spread::policy_of(other)),
        }
    }
    if !policies.is_empty() {
        for (ruleset, family) in [observed, desired].into_iter().flat_map(|r| [(r, Family::Ip), (r, Family::Ip6)]) {
            for set in [names::POLICIES, names::POLICIES_NETS].into_iter().filter_map(|name| set_of(ruleset, family, name)) {
                let with = set.elements.iter().filter(|(_, data)| number_in(data).is_some_and(|policy| policies.contains(&policy)));
                touched.extend(with.filter_map(|(key, _)| entrance(key, 0, family == Family::Ip6)));
            }
        }
    }
    touched
}

/// Interface and source of those that a batch makes unbound, or that go: nothing of their flows may leave until it has ended.
pub fn departures(observed: &Ruleset, desired: &Ruleset) -> BTreeSet<(IfIndex, IpAddr)> {
    let gone = |name: &'static str| {
        [Family::Ip, Family::Ip6].into_iter().flat_map(move |family| {
            let (before, after) = (set_of(observed, family, name), set_of(desired, family, name));
            // Where the tables go as a whole, those who were known stay where they are.
            let whole = name == names::POLICIES;
            let gone = move |key: &&Key| after.map_or(whole, |after| !after.elements.contains_key(*key));
            let keys = before.into_iter().flat_map(|set| set.elements.keys()).filter(gone);
            keys.filter_map(move |key| source_of(key, family == Family::Ip6))
        })
    };
    let mut departures: BTreeSet<_> = gone(names::POLICIES).collect();
    let mut known = gone(names::KNOWN).peekable();
    // Who is known no more may just as well be on a bridge that needs no guard any more.
    if known.peek().is_some() {
        let (before, after) = (owners(observed), owners(desired));
        let disowned: BTreeSet<IpAddr> = before.difference(&after).map(|(_, address)| *address).collect();
        departures.extend(known.filter(|(_, address)| disowned.contains(address)));
    }
    departures
}

fn bound_before(observed: &Ruleset, of: Entrance) -> bool {
    element(observed, of, [names::POLICIES, names::POLICIES_NETS]).is_some()
}

/// The chain with what a source is bound for; `None`: for everything.
fn limits(ruleset: &Ruleset, of: Entrance) -> Option<&Data> {
    element(ruleset, of, [names::LIMITED, names::LIMITED_NETS])
}

/// What one of two sets has of a source: that of addresses, or that of subnets.
fn element<'a>(ruleset: &'a Ruleset, (interface, net): Entrance, [singles, nets]: [&str; 2]) -> Option<&'a Data> {
    let single = net.prefix_len() == net.max_prefix_len();
    let (name, key) = if single {
        (singles, Key::one(crate::nft::Bytes::default().number(interface).address(net.addr())))
    } else {
        (nets, Key::prefix(interface, net))
    };
    set_of(ruleset, family_of(net), name)?.elements.get(&key)
}

/// The exits that a source had: one for each NIC at the most, unless they were spread.
fn exits_before(observed: &Ruleset, of: Entrance, exits: &HashMap<Entrance, Vec<IpAddr>>) -> BTreeSet<IpAddr> {
    let family = family_of(of.1);
    let policy = element(observed, of, [names::POLICIES, names::POLICIES_NETS]).and_then(number_in);
    let table = observed.tables.get(&family);
    let slots = policy.zip(table).into_iter().flat_map(|(policy, table)| spread::slots(table, policy));
    let spread = slots.filter_map(|data| exit_in(data, family == Family::Ip6));
    exits.get(&of).into_iter().flatten().copied().chain(spread).collect()
}

/// The exits of all sources, but for those that were spread.
fn exits_in(observed: &Ruleset) -> HashMap<Entrance, Vec<IpAddr>> {
    let mut exits: HashMap<Entrance, Vec<IpAddr>> = HashMap::default();
    for family in [Family::Ip, Family::Ip6] {
        let v6 = family == Family::Ip6;
        let sets = [names::EXITS, names::EXITS_NETS].into_iter().filter_map(|name| set_of(observed, family, name));
        for (key, data) in sets.flat_map(|set| set.elements.iter()) {
            if let (Some(entrance), Some(exit)) = (entrance(key, 4, v6), exit_in(data, v6)) {
                exits.entry(entrance).or_default().push(exit);
            }
        }
    }
    exits
}

fn exit_in(data: &Data, v6: bool) -> Option<IpAddr> {
    if let Data::Value(value) = data { address_in(value.as_slice(), v6) } else { spread::exit_of(data) }
}

fn set_of<'a>(ruleset: &'a Ruleset, family: Family, name: &str) -> Option<&'a Set> {
    ruleset.tables.get(&family)?.sets.get(name)
}

fn family_of(net: IpNet) -> Family {
    Family::ip(net.addr().is_ipv6())
}

/// Interface and source in a key, from `at` on; those of ranges are in network order.
fn entrance(key: &Key, at: usize, v6: bool) -> Option<Entrance> {
    let address = |bytes: &crate::nft::Bytes| address_in(bytes.as_slice().get(at + 4..)?, v6);
    let first = address(&key.first)?;
    let Some(last) = &key.last else { return Some((number_at(key, at)?, IpNet::from(first))) };
    let host_bits = (bits(first) ^ bits(address(last)?)).count_ones() as u8;
    let prefix = if v6 { 128 - host_bits } else { 32 - host_bits };
    Some((number_at(key, at)?.swap_bytes(), IpNet::new(first, prefix).ok()?))
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "end flows of {}", self.source)?;
        if let Some(only) = self.only {
            write!(f, " that leave as {only}")?;
        }
        let open = self.keeps_open.then(|| "open connections".to_owned());
        let kept: Vec<String> = self.keep.iter().map(|exit| format!("those that leave as {exit}")).collect();
        match open.into_iter().chain(kept).collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            kept => write!(f, ", but for {}", kept.join(" and ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(n: u8) -> IpAddr {
        [172, 31, 0, n].into()
    }

    fn ended(cuts: &[Cut], translated: IpAddr) -> bool {
        ends(&cuts.iter().collect::<Vec<_>>(), [10, 9, 0, 5].into(), false, translated)
    }

    #[test]
    fn when_several_cuts_run_together_the_newest_one_s_keep_wins() {
        let all = Cut::all("10.9.0.5/32".parse().unwrap());
        let keep = |n| Cut { keep: vec![exit(n)], ..all.clone() };
        assert!(ended(&[keep(1)], exit(2)) && !ended(&[keep(1)], exit(1)));
        let moved = [keep(1), keep(2)];
        assert!(ended(&moved, exit(1)) && ended(&moved, exit(3)) && !ended(&moved, exit(2)));
        let gone_and_here_again = [all.clone(), keep(2)];
        assert!(ended(&gone_and_here_again, exit(1)) && !ended(&gone_and_here_again, exit(2)));
        let gone = [keep(1), all];
        assert!(ended(&gone, exit(1)) && ended(&gone, exit(2)));
    }

    #[test]
    fn an_unbound_source_keeps_the_flows_that_had_no_exit() {
        let unbound = Cut { only: Some(exit(1)), ..Cut::all("10.9.0.5/32".parse().unwrap()) };
        let unbound = [unbound];
        assert!(ended(&unbound, exit(1)) && !ended(&unbound, exit(8)));
    }
}
