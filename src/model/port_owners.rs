//! Which port of a bridge owns an address.
//!
//! An address alone proves nothing. Its first owner keeps it; of several ports that hold it, one that is known as nobody else's comes first,
//! then the oldest: nobody takes a neighbour's exit by putting its address on an interface. When the port is gone, a new one with that address
//! may be a successor's: it counts only once the engine has spoken of the container again, or where the kernel itself proves the port.

use std::cell::OnceCell;
use std::collections::HashMap as Std;
use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt};

use super::facts::IfIndex;

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
    pub owner: usize,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    port: IfIndex,
    told: u64,
}

impl PortOwners {
    /// What the kernel was left with.
    pub fn read_back(&mut self, bridge: IfIndex, address: IpAddr, port: IfIndex) {
        self.owners.insert((bridge, address), Owner { port, told: 0 });
    }

    /// Answers all requests, which come in the order of their keys, and for one key in the order in which they are believed. An address that
    /// nobody asks for is forgotten.
    pub fn assign(&mut self, requests: &[&Request]) -> Vec<Answer> {
        let others = Others { owners: &self.owners, requests, owned: OnceCell::new(), only: OnceCell::new() };
        let mut owners = HashMap::with_capacity(requests.len());
        let mut answers = Vec::with_capacity(requests.len());
        let mut at = 0;
        while let Some(first) = requests.get(at) {
            let end = at + requests[at..].iter().take_while(|r| r.key == first.key).count();
            let before = self.owners.get(&first.key).copied();
            let (winner, owner) = others.decide(at..end, before);
            for (place, request) in requests.iter().enumerate().take(end).skip(at) {
                answers.push(match owner.filter(|_| winner.is_some()) {
                    Some(owner) if winner == Some(place) || (request.proven && request.ports.contains(&owner.port)) => {
                        Answer::Port(owner.port)
                    }
                    Some(_) => winner.map_or(Answer::Gone, Answer::Taken),
                    None if owner.is_none() && request.ports.is_empty() => Answer::Never,
                    None => Answer::Gone,
                });
            }
            owners.extend(owner.map(|owner| (first.key, owner)));
            at = end;
        }
        self.owners = owners;
        answers
    }
}

/// Which ports are others'; looked up only when an address gets an owner.
struct Others<'a> {
    owners: &'a HashMap<Key, Owner>,
    requests: &'a [&'a Request],
    owned: OnceCell<Std<IfIndex, usize>>,
    only: OnceCell<Std<IfIndex, usize>>,
}

impl Others<'_> {
    /// The request that gets the address, and who owns it from now on: `None` and the former owner while that one is gone and nobody may follow.
    fn decide(&self, group: std::ops::Range<usize>, before: Option<Owner>) -> (Option<usize>, Option<Owner>) {
        let proven = || group.clone().filter(|at| self.requests[*at].proven);
        let engine = group.clone().find(|at| !self.requests[*at].proven);
        let of = |at: usize, port| (Some(at), Some(Owner { port, told: self.requests[at].told }));
        if let Some(Owner { port, .. }) = before {
            let mut living = proven().chain(engine).filter(|at| self.requests[*at].ports.contains(&port));
            if let Some(at) = living.next() {
                return of(at, port);
            }
        }
        let oldest = proven().filter_map(|at| Some((*self.requests[at].ports.first()?, at))).min();
        if let Some((port, at)) = oldest {
            return of(at, port);
        }
        let Some(at) = engine else { return (None, before) };
        let request = self.requests[at];
        if before.is_some_and(|before| request.told <= before.told) {
            return (None, before);
        }
        self.pick(request).map_or((None, before), |port| of(at, port))
    }

    fn pick(&self, request: &Request) -> Option<IfIndex> {
        let other = |owners: &Std<IfIndex, usize>, port| owners.get(port).is_some_and(|owner| *owner != request.owner);
        let owned = || self.requests.iter().filter_map(|r| Some((self.owners.get(&r.key)?.port, r.owner))).collect();
        let mut free = request.ports.iter().filter(|port| !other(self.owned.get_or_init(owned), port));
        if request.ports.len() == 1 {
            return free.next().copied();
        }
        let only = || self.requests.iter().filter(|r| r.ports.len() == 1).map(|r| (r.ports[0], r.owner)).collect();
        let nobodys = free.clone().find(|port| !other(self.only.get_or_init(only), port));
        nobodys.or_else(|| free.next()).copied()
    }
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
