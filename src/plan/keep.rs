//! What stays as long as not every source has spoken.

use std::collections::BTreeSet;

use super::datapath::names;
use super::elements::number_at;
use super::tables::look_up;
use crate::nft::{Data, Datatype, Elements, Key, Ruleset, Set, Table};

/// Ranges are compared with one another up to so many pairs. Of more, those that are there stay as they are until all have spoken.
const MOST: usize = 4_000_000;

/// Puts into `desired` what `observed` has beyond it. Of two ranges that overlap, which the kernel would not take side by side, one stays: in a set
/// the one that has the other, else the desired one, and in a map always that: its value is today's.
pub fn keep(desired: &mut Ruleset, observed: &Ruleset) {
    for (family, there) in &observed.tables {
        let Some(table) = desired.tables.get_mut(family) else {
            desired.tables.insert(*family, there.clone());
            continue;
        };
        for (name, chain) in &there.chains {
            table.chains.entry(name.clone()).or_insert_with(|| chain.clone());
        }
        for (name, set) in &there.sets {
            let wanted = table.sets.entry(name.clone()).or_insert_with(|| set.clone());
            if !wanted.elements.is_shared_with(&set.elements) {
                keep_elements(wanted, &set.elements);
            }
        }
        keep_uplinks(table);
        // What is kept is looked up, too.
        look_up(*family, table);
    }
}

/// An uplink is not inside, whoever makes it one: a binding that is new, or one of a source that is silent.
fn keep_uplinks(table: &mut Table) {
    let own = table.sets.get(names::OWN).into_iter().flat_map(|set| set.elements.keys());
    let uplinks: BTreeSet<u32> = own.filter_map(|key| number_at(key, 0)).collect();
    for name in [names::INSIDE_LINKS, names::INSIDE_HOSTS, names::INSIDE_ROUTES] {
        let Some(set) = table.sets.get_mut(name) else { continue };
        // Those of ranges are in network order.
        let interface = |key: &Key| number_at(key, 0).map(|number| if set.interval { number.swap_bytes() } else { number });
        let of_uplinks: Vec<Key> =
            set.elements.keys().filter(|key| interface(key).is_some_and(|link| uplinks.contains(&link))).copied().collect();
        of_uplinks.iter().for_each(|key| _ = set.elements.remove(key));
    }
}

fn keep_elements(wanted: &mut Set, observed: &Elements) {
    let beyond: Vec<(Key, Data)> =
        observed.iter().filter(|(key, _)| !wanted.elements.contains_key(key)).map(|(key, data)| (*key, data.clone())).collect();
    if beyond.is_empty() {
        return;
    }
    if !wanted.interval {
        return wanted.elements.extend(beyond);
    }
    if wanted.elements.len() * beyond.len() > MOST {
        wanted.elements = observed.clone();
        return;
    }
    for (key, data) in beyond {
        let beside = |other: &&Key| overlap(&wanted.key, other, &key);
        let overlapping: Vec<Key> = wanted.elements.keys().filter(beside).copied().collect();
        if wanted.data.is_none() && overlapping.iter().all(|other| within(&wanted.key, other, &key)) {
            overlapping.iter().for_each(|other| _ = wanted.elements.remove(other));
        } else if !overlapping.is_empty() {
            continue;
        }
        wanted.elements.insert(key, data);
    }
}

/// Whether some value is in both.
fn overlap(fields: &[Datatype], a: &Key, b: &Key) -> bool {
    each(fields, a, b).all(|([a_first, a_last], [b_first, b_last])| a_first <= b_last && b_first <= a_last)
}

/// Whether `wide` has every value of `narrow`.
fn within(fields: &[Datatype], narrow: &Key, wide: &Key) -> bool {
    each(fields, narrow, wide).all(|([first, last], [from, to])| from <= first && last <= to)
}

/// The first and the last value of each field, of two keys.
fn each<'a>(fields: &'a [Datatype], a: &'a Key, b: &'a Key) -> impl Iterator<Item = ([&'a [u8]; 2], [&'a [u8]; 2])> {
    let ends = |key: &'a Key| [key.first.as_slice(), key.last.as_ref().unwrap_or(&key.first).as_slice()];
    let (a, b) = (ends(a), ends(b));
    let places = fields.iter().scan(0, |at, field| {
        let from = *at;
        *at += field.width().next_multiple_of(4) as usize;
        Some(from..from + field.width() as usize)
    });
    let cut = |values: [&'a [u8]; 2], place: std::ops::Range<usize>| values.map(|value| value.get(place.clone()).unwrap_or_default());
    places.map(move |place| (cut(a, place.clone()), cut(b, place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Bytes, Family};

    fn inside(nets: &[&str]) -> Set {
        let mut set = Set::of([Datatype::IfIndex, Datatype::Ipv4]).with_ranges();
        set.elements.extend(nets.iter().map(|net| (Key::any_interface(net.parse().expect("a subnet")), Data::None)));
        set
    }

    fn kept(mut desired: Set, observed: Set) -> Set {
        let of = |set: Set| {
            let table = Table { sets: [("set".to_owned(), set)].into(), ..Table::default() };
            Ruleset { tables: [(Family::Ip, table)].into() }
        };
        let mut tables = of(desired);
        keep(&mut tables, &of(observed));
        desired = tables.tables.remove(&Family::Ip).expect("the table").sets.remove("set").expect("the set");
        desired
    }

    #[test]
    fn of_subnets_that_lie_in_each_other_the_wider_one_stays() {
        for (desired, observed, both) in [
            (&["10.0.0.0/8"][..], &["10.1.0.0/16", "10.2.0.0/16"][..], &["10.0.0.0/8"][..]),
            (&["10.1.0.0/16", "10.2.0.0/16"], &["10.0.0.0/8"], &["10.0.0.0/8"]),
            (&["10.1.0.0/16"], &["10.2.0.0/16"], &["10.1.0.0/16", "10.2.0.0/16"]),
            (&["10.1.0.0/16"], &["10.1.0.0/16", "192.168.0.0/24"], &["10.1.0.0/16", "192.168.0.0/24"]),
        ] {
            assert_eq!(kept(inside(desired), inside(observed)), inside(both), "{desired:?} and {observed:?}");
        }
    }

    #[test]
    fn an_uplink_of_either_is_not_inside() {
        let links = |all: &[u32]| all.iter().map(|link| (Key::one(Bytes::of_number(*link)), Data::None)).collect::<Elements>();
        let own = |link: u32| (Key::one(Bytes::default().number(link).address([10, 0, 0, link as u8].into())), Data::None);
        let tables = |inside: &[u32], uplink: u32, route: u32| {
            let mut routes = Set::of([Datatype::IfIndex, Datatype::Ipv4]).with_ranges();
            routes.elements.insert(Key::prefix(route, "10.9.0.0/24".parse().expect("a subnet")), Data::None);
            let sets = [
                (names::INSIDE_LINKS, Set { elements: links(inside), ..Set::of([Datatype::IfIndex]) }),
                (names::OWN, Set { elements: [own(uplink)].into_iter().collect(), ..Set::of([Datatype::IfIndex, Datatype::Ipv4]) }),
                (names::INSIDE_ROUTES, routes),
            ];
            let table = Table { sets: sets.map(|(name, set)| (name.to_owned(), set)).into(), ..Table::default() };
            Ruleset { tables: [(Family::Ip, table)].into() }
        };
        let mut desired = tables(&[1, 3], 2, 3);
        keep(&mut desired, &tables(&[1, 2, 4], 3, 2));
        let sets = &desired.tables[&Family::Ip].sets;
        assert_eq!(sets[names::INSIDE_LINKS].elements, links(&[1, 4]));
        assert!(sets[names::INSIDE_ROUTES].elements.is_empty());
    }

    #[test]
    fn of_two_ranges_of_one_interface_the_desired_one_has_today_s_value() {
        let policies = |interface: u32, net: &str, policy: u32| {
            let mut set = Set { data: Some(Datatype::Mark), ..Set::of([Datatype::IfIndex, Datatype::Ipv4]).with_ranges() };
            set.elements.insert(Key::prefix(interface, net.parse().expect("a subnet")), Data::Value(Bytes::of_number(policy)));
            set
        };
        assert_eq!(kept(policies(2, "10.1.0.0/16", 1), policies(2, "10.0.0.0/8", 2)), policies(2, "10.1.0.0/16", 1));
        assert_eq!(kept(policies(2, "10.0.0.0/8", 1), policies(2, "10.1.0.0/16", 2)), policies(2, "10.0.0.0/8", 1));
        assert_eq!(kept(policies(2, "10.0.0.0/8", 1), policies(3, "10.0.0.0/8", 2)).elements.len(), 2, "by another interface");
    }
}
