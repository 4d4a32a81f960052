//! Who gets what: one row for each address of each workload.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{Binding, BindingName, WhenUnavailable};
use super::facts::{Container, IfIndex};
use super::ground::{Exit, Ground, family};
use super::reason::Reason;
use super::select::Held;
use crate::contract::{CLAIM_FREE, CLAIM_NO_EXIT};

/// A workload as people know it.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Container(Arc<Container>),
    Namespace(String),
    Source(IpNet),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(container) => f.write_str(&container.name),
            Self::Namespace(name) => write!(f, "netns/{name}"),
            Self::Source(net) => write!(f, "{net}"),
        }
    }
}

/// Where an address of a workload enters this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// By a port of a bridge: the port proves who it is.
    Port { port: IfIndex, bridge: IfIndex },
    /// By an interface of its own or of a subnet.
    Routed { interface: IfIndex },
}

impl Entry {
    /// The interface that `prerouting` of the ip families sees.
    pub fn interface(self) -> IfIndex {
        match self {
            Self::Port { bridge, .. } => bridge,
            Self::Routed { interface } => interface,
        }
    }
}

/// What is known of one address of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub subject: Subject,
    /// Docker network.
    pub network: Option<String>,
    /// The container's default route goes by this network.
    pub default_route: bool,
    /// A host address, except for a routed subnet.
    pub address: Option<IpNet>,
    pub entry: Option<Entry>,
    pub binding: Option<Held>,
    /// Bindings that would have had it too.
    pub losers: Vec<BindingName>,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Bound(Exit),
    /// Bound without a usable exit: nothing leaves.
    Dropped(Reason),
    /// Bound without a usable exit: it goes the host's way, as asked.
    FellBack(Reason),
    /// Known, and bound by nobody.
    Free,
    /// No address yet.
    Waiting(Reason),
    /// Not possible for this workload, on this network.
    Refused(Reason),
}

impl State {
    /// What its packets are marked with at the door; `None`: with nothing.
    pub fn claim(&self) -> Option<u32> {
        match self {
            Self::Bound(exit) => Some(exit.mark),
            Self::Dropped(_) => Some(CLAIM_NO_EXIT),
            Self::FellBack(_) | Self::Free => Some(CLAIM_FREE),
            Self::Waiting(_) | Self::Refused(_) => None,
        }
    }

    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Bound(_) | Self::Free => None,
            Self::Dropped(reason) | Self::FellBack(reason) | Self::Waiting(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

/// The exit that a binding gives to an address: the first usable one of its family.
pub fn choose(ground: &Ground, binding: &Binding, address: IpAddr) -> State {
    let without = |reason| match binding.when_unavailable {
        WhenUnavailable::Drop => State::Dropped(reason),
        WhenUnavailable::Fallback => State::FellBack(reason),
    };
    if let Some(error) = binding.errors.first() {
        return without(Reason::Invalid(error.clone()));
    }
    let mut first = None;
    for spec in binding.exits.iter().filter(|e| e.address.is_ipv4() == address.is_ipv4()) {
        match ground.exit(spec) {
            Some(Ok(exit)) => return State::Bound(*exit),
            Some(Err(reason)) => drop(first.get_or_insert_with(|| reason.clone())),
            None => drop(first.get_or_insert(Reason::AddressNotFound { address: spec.address })),
        }
    }
    without(first.unwrap_or(Reason::NoExitInFamily(family(address))))
}

/// What is asked of [`Doors`]: the ports that hold an address (oldest first), and when the engine last spoke of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub ports: Vec<IfIndex>,
    pub told: u64,
}

/// Settles by which port a container's address comes in.
///
/// An address alone proves nothing. When several ports of a bridge hold it, the one that had it keeps it, else it is one that is nobody
/// else's, else the oldest: nobody takes a neighbour's exit by putting its address on an interface. And when the port is gone, a
/// new one with that address may be a successor's: it counts only once the engine has spoken of the container again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    had: HashMap<(IfIndex, IpAddr), (IfIndex, u64)>,
    settled: HashMap<(IfIndex, IpAddr), IfIndex>,
}

impl Doors {
    /// What the kernel was left with.
    pub fn read_back(&mut self, bridge: IfIndex, address: IpAddr, port: IfIndex) {
        self.had.insert((bridge, address), (port, 0));
    }

    /// What the last settlement came to for an address: its port, or `Some(None)` while that is gone. `None`: no port ever had it.
    pub fn of(&self, bridge: IfIndex, address: IpAddr) -> Option<Option<IfIndex>> {
        let key = (bridge, address);
        self.had.contains_key(&key).then(|| self.settled.get(&key).copied())
    }

    /// The port for each wanted (bridge, address).
    pub fn settle(&mut self, wanted: &BTreeMap<(IfIndex, IpAddr), Wanted>) -> &HashMap<(IfIndex, IpAddr), IfIndex> {
        let sure: HashSet<IfIndex> = wanted.values().filter(|w| w.ports.len() == 1).map(|w| w.ports[0]).collect();
        let mut had = HashMap::with_capacity(wanted.len());
        let mut settled = HashMap::with_capacity(wanted.len());
        for (key, Wanted { ports, told }) in wanted {
            let before = self.had.get(key);
            let port = match before {
                Some((port, _)) if ports.contains(port) => Some(*port),
                Some((_, heard)) if told <= heard => None,
                _ => ports.iter().find(|port| ports.len() == 1 || !sure.contains(port)).or(ports.first()).copied(),
            };
            match (port, before) {
                (Some(port), _) => {
                    settled.insert(*key, port);
                    had.insert(*key, (port, *told));
                }
                (None, Some(gone)) => drop(had.insert(*key, *gone)),
                (None, None) => {}
            }
        }
        self.had = had;
        self.settled = settled;
        &self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: IfIndex = 9;

    fn key() -> (IfIndex, IpAddr) {
        (BRIDGE, IpAddr::from([172, 19, 0, 100]))
    }

    fn settle(doors: &mut Doors, ports: &[IfIndex], told: u64) -> Option<IfIndex> {
        let wanted = BTreeMap::from([(key(), Wanted { ports: ports.to_vec(), told })]);
        doors.settle(&wanted).get(&key()).copied()
    }

    #[test]
    fn a_neighbour_that_takes_the_address_does_not_get_the_door() {
        let mut doors = Doors::default();
        assert_eq!(settle(&mut doors, &[20], 1), Some(20));
        assert_eq!(settle(&mut doors, &[11, 20], 2), Some(20));
    }

    #[test]
    fn a_successor_with_the_address_waits_until_the_engine_has_spoken() {
        let mut doors = Doors::default();
        assert_eq!(settle(&mut doors, &[20], 1), Some(20));
        assert_eq!(settle(&mut doors, &[30], 1), None);
        assert_eq!(settle(&mut doors, &[30], 1), None);
        assert_eq!(settle(&mut doors, &[30], 2), Some(30));
    }

    #[test]
    fn a_gone_door_is_told_from_one_that_never_was() {
        let mut doors = Doors::default();
        assert_eq!(doors.of(BRIDGE, key().1), None);
        settle(&mut doors, &[20], 20);
        assert_eq!(doors.of(BRIDGE, key().1), Some(Some(20)));
        settle(&mut doors, &[], 0);
        assert_eq!(doors.of(BRIDGE, key().1), Some(None));
        settle(&mut doors, &[21], 21);
        assert_eq!(doors.of(BRIDGE, key().1), Some(Some(21)));
    }

    #[test]
    fn of_two_claimants_the_one_with_an_address_of_its_own_is_the_intruder() {
        let mut doors = Doors::default();
        let own = (BRIDGE, IpAddr::from([172, 19, 0, 101]));
        let wanted = BTreeMap::from([(key(), Wanted { ports: vec![11, 20], told: 1 }), (own, Wanted { ports: vec![11], told: 1 })]);
        let settled = doors.settle(&wanted);
        assert_eq!((settled[&key()], settled[&own]), (20, 11));
    }
}
