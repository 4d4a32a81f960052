//! By which port of a bridge an address comes in.
//!
//! An address alone proves nothing. When several ports hold it, the one that had it keeps it, else it is one that is nobody else's, else the
//! oldest: nobody takes a neighbour's exit by putting its address on an interface. And when the port is gone, a new one with that
//! address may be a successor's: it counts only once the engine has spoken of the container again.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::facts::IfIndex;

/// A bridge, and an address on it.
pub type Key = (IfIndex, IpAddr);

/// A question: who has this address?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub key: Key,
    /// The ports that hold it, oldest first.
    pub ports: Vec<IfIndex>,
    /// When its owner was last spoken of.
    pub told: u64,
    /// Whose it is said to be; any number that tells owners apart.
    pub owner: usize,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Port(IfIndex),
    /// Its port is gone, or is another's.
    Gone,
    /// No port ever had it.
    Never,
}

/// Who had what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    had: BTreeMap<Key, Had>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Had {
    port: IfIndex,
    told: u64,
}

impl Doors {
    /// What the kernel was left with.
    pub fn read_back(&mut self, bridge: IfIndex, address: IpAddr, port: IfIndex) {
        self.had.insert((bridge, address), Had { port, told: 0 });
    }

    /// Answers all questions, which come in the order of their keys, each key once. Who is not asked for is forgotten.
    pub fn settle<'a>(&mut self, wanted: impl Iterator<Item = &'a Wanted> + Clone) -> Vec<Door> {
        let others = Others::new(&self.had, wanted.clone());
        let mut before = self.had.iter().peekable();
        let mut now = Vec::new();
        let mut doors = Vec::new();
        for one in wanted {
            while before.next_if(|(key, _)| **key < one.key).is_some() {}
            let had = before.next_if(|(key, _)| **key == one.key).map(|(_, had)| *had);
            let port = match had {
                Some(Had { port, .. }) if one.ports.contains(&port) => Some(port),
                Some(Had { told, .. }) if one.told <= told => None,
                _ => others.pick(one),
            };
            let keep = port.map(|port| Had { port, told: one.told }).or(had);
            now.extend(keep.map(|had| (one.key, had)));
            doors.push(match (port, keep) {
                (Some(port), _) => Door::Port(port),
                (None, Some(_)) => Door::Gone,
                (None, None) if one.ports.is_empty() => Door::Never,
                (None, None) => Door::Gone,
            });
        }
        self.had = now.into_iter().collect();
        doors
    }
}

/// Which ports are others'; looked up only when an address gets a door.
struct Others<'a, I> {
    had: &'a BTreeMap<Key, Had>,
    wanted: I,
    taken: OnceCell<HashMap<IfIndex, usize>>,
    only: OnceCell<HashMap<IfIndex, usize>>,
}

impl<'a, 'w, I: Iterator<Item = &'w Wanted> + Clone> Others<'a, I> {
    fn new(had: &'a BTreeMap<Key, Had>, wanted: I) -> Self {
        Self { had, wanted, taken: OnceCell::new(), only: OnceCell::new() }
    }

    fn pick(&self, one: &Wanted) -> Option<IfIndex> {
        let other = |owners: &HashMap<IfIndex, usize>, port| owners.get(port).is_some_and(|owner| *owner != one.owner);
        let taken = || self.wanted.clone().filter_map(|w| Some((self.had.get(&w.key)?.port, w.owner))).collect();
        let mut free = one.ports.iter().filter(|port| !other(self.taken.get_or_init(taken), port));
        if one.ports.len() == 1 {
            return free.next().copied();
        }
        let only = || self.wanted.clone().filter(|w| w.ports.len() == 1).map(|w| (w.ports[0], w.owner)).collect();
        let nobodys = free.clone().find(|port| !other(self.only.get_or_init(only), port));
        nobodys.or_else(|| free.next()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: IfIndex = 9;

    fn key() -> (IfIndex, IpAddr) {
        (BRIDGE, IpAddr::from([172, 19, 0, 100]))
    }

    fn settle(doors: &mut Doors, ports: &[IfIndex], told: u64) -> Door {
        let wanted = Wanted { key: key(), ports: ports.to_vec(), told, owner: 1 };
        doors.settle([&wanted].into_iter())[0]
    }

    #[test]
    fn a_neighbour_that_takes_the_address_does_not_get_the_door() {
        let mut doors = Doors::default();
        assert_eq!(settle(&mut doors, &[20], 1), Door::Port(20));
        assert_eq!(settle(&mut doors, &[11, 20], 2), Door::Port(20));
    }

    #[test]
    fn a_successor_with_the_address_waits_until_the_engine_has_spoken() {
        let mut doors = Doors::default();
        assert_eq!(settle(&mut doors, &[20], 1), Door::Port(20));
        assert_eq!(settle(&mut doors, &[30], 1), Door::Gone);
        assert_eq!(settle(&mut doors, &[30], 1), Door::Gone);
        assert_eq!(settle(&mut doors, &[30], 2), Door::Port(30));
    }

    #[test]
    fn a_gone_door_is_told_from_one_that_never_was() {
        let mut doors = Doors::default();
        assert_eq!(settle(&mut doors, &[], 0), Door::Never);
        assert_eq!(settle(&mut doors, &[20], 20), Door::Port(20));
        assert_eq!(settle(&mut doors, &[], 0), Door::Gone);
        assert_eq!(settle(&mut doors, &[21], 21), Door::Port(21));
    }

    #[test]
    fn of_two_claimants_the_one_with_an_address_of_its_own_is_the_intruder() {
        let mut doors = Doors::default();
        let victim = Wanted { key: key(), ports: vec![11, 20], told: 1, owner: 1 };
        let own = Wanted { key: (BRIDGE, IpAddr::from([172, 19, 0, 101])), ports: vec![11], told: 1, owner: 2 };
        assert_eq!(doors.settle([&victim, &own].into_iter()), [Door::Port(20), Door::Port(11)]);
    }

    #[test]
    fn a_neighbour_that_has_the_address_before_its_owner_does_not_get_the_door() {
        let mut doors = Doors::default();
        let own = Wanted { key: (BRIDGE, IpAddr::from([172, 19, 0, 101])), ports: vec![11], told: 1, owner: 2 };
        doors.settle([&own].into_iter());
        let early = Wanted { key: key(), ports: vec![11], told: 2, owner: 1 };
        assert_eq!(doors.settle([&early, &own].into_iter()), [Door::Gone, Door::Port(11)]);
        let whole = Wanted { ports: vec![11, 20], ..early };
        assert_eq!(doors.settle([&whole, &own].into_iter()), [Door::Port(20), Door::Port(11)]);
    }
}
