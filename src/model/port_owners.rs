//! Which port of a bridge owns an address.
//!
//! An address alone proves nothing. Its first owner keeps it; of several ports that hold it, one that is known as nobody else's comes first,
//! then the oldest: nobody takes a neighbour's exit by putting its address on an interface. When the port is gone, a new one with that address
//! may be a successor's: it counts only once the engine has spoken of the container again, or where the kernel itself proves the port.
//!
//! An engine may tell one address of two containers. While its owner's port is there, the address stays that owner's; of two that nothing tells
//! apart neither has it.

use std::cell::OnceCell;
use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt};

use super::facts::IfIndex;

/// In the place of a bridge, of links that are ports of none: the host routes to each of them.
pub const ROUTED: IfIndex = 0;

/// A bridge, and an address on it.
pub type Key = (IfIndex, IpAddr);

/// A workload asks for the port of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub key: Key,
    /// The ports that hold it, oldest first.
    pub ports: Vec<IfIndex>,
    /// The kernel proves the port, as it leads into the workload's network namespace.
    pub proven: bool,
    /// When its owner was last spoken of.
    pub told: u64,
    /// Whose it is said to be; any number that tells owners apart.
    pub owner: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Port(IfIndex),
    /// Its port is gone, or is another's.
    Gone,
    /// No port ever had it.
    Never,
    /// The request at this place owns the address.
    Taken(usize),
}

/// Who owned what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOwners {
    owners: HashMap<Key, Owner>,
}

/// Who owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    port: IfIndex,
    told: u64,
    /// `None`: an earlier run knew.
    owner: Option<u64>,
}

impl PortOwners {
    /// What the kernel was left with.
    pub fn read_back(&mut self, bridge: IfIndex, address: IpAddr, port: IfIndex) {
        self.owners.insert((bridge, address), Owner { port, told: 0, owner: None });
    }

    /// Who got an address, by which word, and on which bridge.
    pub fn told(&self) -> impl Iterator<Item = ((IpAddr, u64), IfIndex)> {
        self.owners.iter().map(|((bridge, address), owner)| ((*address, owner.told), *bridge))
    }

    /// Answers all requests, which come in the order of their keys, and for one key in the order in which they are believed. An address that
    /// nobody asks for is forgotten.
    pub fn assign(&mut self, requests: &[&Request]) -> Vec<Answer> {
        let all = All { owners: &self.owners, requests, owned: OnceCell::new(), only: OnceCell::new() };
        let Decided { owners, answers } = self.decide(requests, &all);
        self.owners = owners.into_iter().collect();
        answers
    }

    /// The same of some addresses, with all requests for each of them. They are not taken in yet.
    pub fn decide(&self, requests: &[&Request], others: &impl Others) -> Decided {
        let mut decided = Decided { owners: Vec::with_capacity(requests.len()), answers: Vec::with_capacity(requests.len()) };
        let mut at = 0;
        while let Some(first) = requests.get(at) {
            let end = at + requests[at..].iter().take_while(|r| r.key == first.key).count();
            let before = self.owners.get(&first.key).copied();
            let (winner, owner) = decide(&requests[at..end], before, others);
            let winner = winner.map(|winner| at + winner);
            for (place, request) in requests.iter().enumerate().take(end).skip(at) {
                decided.answers.push(match owner.filter(|_| winner.is_some()) {
                    Some(owner) if winner == Some(place) || (request.proven && request.ports.contains(&owner.port)) => {
                        Answer::Port(owner.port)
                    }
                    Some(_) => winner.map_or(Answer::Gone, Answer::Taken),
                    None if owner.is_none() && request.ports.is_empty() => Answer::Never,
                    None => Answer::Gone,
                });
            }
            decided.owners.extend(owner.map(|owner| (first.key, owner)));
            at = end;
        }
        decided
    }

    /// Forgets these addresses, and takes in who owns some of them.
    pub fn replace(&mut self, keys: impl Iterator<Item = Key>, owners: Vec<(Key, Owner)>) {
        keys.for_each(|key| _ = self.owners.remove(&key));
        self.owners.extend(owners);
    }

    /// The addresses that ports own.
    pub fn keys_of(&self, port: IfIndex) -> impl Iterator<Item = Key> {
        self.owners.iter().filter(move |(_, owner)| owner.port == port).map(|(key, _)| *key)
    }
}

/// What some requests come to.
pub struct Decided {
    pub owners: Vec<(Key, Owner)>,
    /// In the order of the requests.
    pub answers: Vec<Answer>,
}

/// Whose ports are.
pub trait Others {
    /// Whether somebody else owns an address at the port.
    fn own(&self, port: IfIndex, owner: u64) -> bool;
    /// Whether somebody else asks for an address that this port alone holds.
    fn have_only(&self, port: IfIndex, owner: u64) -> bool;
}

/// The request that gets the address, and who owns it from now on: `None` and the former owner while that one is gone and nobody may follow.
fn decide(group: &[&Request], before: Option<Owner>, others: &impl Others) -> (Option<usize>, Option<Owner>) {
    let proven = || (0..group.len()).filter(|at| group[*at].proven);
    let engine = one_of_the_engines(group, before);
    let of = |at: usize, port| (Some(at), Some(Owner { port, told: group[at].told, owner: Some(group[at].owner) }));
    if let Some(Owner { port, .. }) = before {
        let mut living = proven().chain(engine).filter(|at| group[*at].ports.contains(&port));
        if let Some(at) = living.next() {
            return of(at, port);
        }
    }
    let oldest = proven().filter_map(|at| Some((*group[at].ports.first()?, at))).min();
    if let Some((port, at)) = oldest {
        return of(at, port);
    }
    let Some(at) = engine else { return (None, before) };
    let request = group[at];
    if before.is_some_and(|before| request.told <= before.told) {
        return (None, before);
    }
    pick(request, others).map_or((None, before), |port| of(at, port))
}

/// Whose the address is, of those of whom an engine tells it: its owner's while the port is there, else whose it was said to be last.
fn one_of_the_engines(group: &[&Request], before: Option<Owner>) -> Option<usize> {
    let mut all = (0..group.len()).filter(|at| !group[*at].proven);
    let (first, second) = (all.next()?, all.next());
    let Some(second) = second else { return Some(first) };
    let stays = |owner: &Owner| group[first].ports.contains(&owner.port);
    if let Some(Owner { owner, .. }) = before.filter(stays) {
        let at = (0..group.len()).find(|at| !group[*at].proven && Some(group[*at].owner) == owner);
        if at.is_some() || owner.is_none() {
            return at;
        }
    }
    (group[first].told != group[second].told).then_some(first)
}

fn pick(request: &Request, others: &impl Others) -> Option<IfIndex> {
    let mut free = request.ports.iter().copied().filter(|port| !others.own(*port, request.owner));
    if request.ports.len() == 1 {
        return free.next();
    }
    let nobodys = free.clone().find(|port| !others.have_only(*port, request.owner));
    nobodys.or_else(|| free.next())
}

/// Whose ports are, by all that is asked; looked up only when an address gets an owner.
struct All<'a> {
    owners: &'a HashMap<Key, Owner>,
    requests: &'a [&'a Request],
    owned: OnceCell<HashMap<IfIndex, Whose>>,
    only: OnceCell<HashMap<IfIndex, Whose>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    One(u64),
    Several,
}

impl Others for All<'_> {
    fn own(&self, port: IfIndex, owner: u64) -> bool {
        let port_of = |request: &Request| Some(self.owners.get(&request.key)?.port);
        another_s(self.owned.get_or_init(|| whose(self.requests, port_of)), port, owner)
    }

    fn have_only(&self, port: IfIndex, owner: u64) -> bool {
        let only = |request: &Request| if let [only] = request.ports.as_slice() { Some(*only) } else { None };
        another_s(self.only.get_or_init(|| whose(self.requests, only)), port, owner)
    }
}

fn whose(requests: &[&Request], port: impl Fn(&Request) -> Option<IfIndex>) -> HashMap<IfIndex, Whose> {
    let mut all: HashMap<IfIndex, Whose> = HashMap::new();
    for (port, owner) in requests.iter().filter_map(|request| Some((port(request)?, request.owner))) {
        let whose = all.entry(port).or_insert(Whose::One(owner));
        if *whose != Whose::One(owner) {
            *whose = Whose::Several;
        }
    }
    all
}

fn another_s(all: &HashMap<IfIndex, Whose>, port: IfIndex, owner: u64) -> bool {
    all.get(&port).is_some_and(|whose| *whose != Whose::One(owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: IfIndex = 9;

    fn key() -> Key {
        (BRIDGE, IpAddr::from([172, 19, 0, 100]))
    }

    fn request(ports: &[IfIndex], told: u64) -> Request {
        Request { key: key(), ports: ports.to_vec(), proven: false, told, owner: 1 }
    }

    fn assign(owners: &mut PortOwners, ports: &[IfIndex], told: u64) -> Answer {
        owners.assign(&[&request(ports, told)])[0]
    }

    #[test]
    fn a_neighbour_that_takes_the_address_does_not_own_it() {
        let mut owners = PortOwners::default();
        assert_eq!(assign(&mut owners, &[20], 1), Answer::Port(20));
        assert_eq!(assign(&mut owners, &[11, 20], 2), Answer::Port(20));
    }

    #[test]
    fn a_successor_with_the_address_waits_until_the_engine_has_spoken() {
        let mut owners = PortOwners::default();
        assert_eq!(assign(&mut owners, &[20], 1), Answer::Port(20));
        assert_eq!(assign(&mut owners, &[30], 1), Answer::Gone);
        assert_eq!(assign(&mut owners, &[30], 1), Answer::Gone);
        assert_eq!(assign(&mut owners, &[30], 2), Answer::Port(30));
    }

    #[test]
    fn an_engine_that_tells_an_owners_address_of_another_takes_it_from_nobody() {
        let mut owners = PortOwners::default();
        let (victim, ghost) = (request(&[20], 1), Request { owner: 2, ..request(&[20], 5) });
        assert_eq!(owners.assign(&[&victim]), [Answer::Port(20)]);
        assert_eq!(owners.assign(&[&ghost, &victim]), [Answer::Taken(1), Answer::Port(20)]);
        // Nothing tells them apart after a restart.
        let mut after = PortOwners::default();
        after.read_back(BRIDGE, key().1, 20);
        let (ghost, victim) = (Request { told: 1, ..ghost }, victim);
        assert_eq!(after.assign(&[&ghost, &victim]), [Answer::Gone, Answer::Gone]);
        assert_eq!(after.assign(&[&victim]), [Answer::Port(20)], "the other one is gone");
        assert_eq!(PortOwners::default().assign(&[&ghost, &victim]), [Answer::Gone, Answer::Gone]);
    }

    #[test]
    fn who_gets_an_address_from_one_that_is_gone_is_not_kept_waiting_by_the_engines_late_word() {
        let mut owners = PortOwners::default();
        let (before, next) = (request(&[20], 1), Request { owner: 2, ..request(&[30], 2) });
        assert_eq!(owners.assign(&[&before]), [Answer::Port(20)]);
        let before = Request { ports: vec![30], ..before };
        assert_eq!(owners.assign(&[&next, &before]), [Answer::Port(30), Answer::Taken(0)]);
    }

    #[test]
    fn a_port_that_is_gone_is_told_from_one_that_never_was() {
        let mut owners = PortOwners::default();
        assert_eq!(assign(&mut owners, &[], 0), Answer::Never);
        assert_eq!(assign(&mut owners, &[20], 20), Answer::Port(20));
        assert_eq!(assign(&mut owners, &[], 0), Answer::Gone);
        assert_eq!(assign(&mut owners, &[21], 21), Answer::Port(21));
    }

    #[test]
    fn of_two_claimants_the_one_with_an_address_of_its_own_is_the_intruder() {
        let mut owners = PortOwners::default();
        let victim = request(&[11, 20], 1);
        let own = Request { key: (BRIDGE, IpAddr::from([172, 19, 0, 101])), owner: 2, ..request(&[11], 1) };
        assert_eq!(owners.assign(&[&victim, &own]), [Answer::Port(20), Answer::Port(11)]);
    }

    #[test]
    fn a_neighbour_that_has_the_address_before_its_owner_does_not_own_it() {
        let mut owners = PortOwners::default();
        let own = Request { key: (BRIDGE, IpAddr::from([172, 19, 0, 101])), owner: 2, ..request(&[11], 1) };
        owners.assign(&[&own]);
        let early = request(&[11], 2);
        assert_eq!(owners.assign(&[&early, &own]), [Answer::Gone, Answer::Port(11)]);
        let whole = Request { ports: vec![11, 20], ..early };
        assert_eq!(owners.assign(&[&whole, &own]), [Answer::Port(20), Answer::Port(11)]);
    }

    #[test]
    fn of_two_namespaces_with_one_address_the_first_keeps_it_whatever_the_ports_numbers() {
        let mut owners = PortOwners::default();
        let proven = |port, owner| Request { proven: true, owner, ..request(&[port], 0) };
        let (victim, thief) = (proven(20, 1), proven(11, 2));
        assert_eq!(owners.assign(&[&victim]), [Answer::Port(20)]);
        assert_eq!(owners.assign(&[&thief, &victim]), [Answer::Taken(1), Answer::Port(20)]);
        assert_eq!(owners.assign(&[&thief]), [Answer::Port(11)], "the victim is gone, and nobody else asks for its address");
    }

    #[test]
    fn two_bindings_that_name_one_namespace_have_its_port_both() {
        let proven = |owner| Request { proven: true, owner, ..request(&[20], 0) };
        assert_eq!(PortOwners::default().assign(&[&proven(1), &proven(2)]), [Answer::Port(20), Answer::Port(20)]);
    }
}
