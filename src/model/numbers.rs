//! The small numbers that marks carry: one for each NIC, and on it one for each exit.
//!
//! A number stays out of use for as long as a conntrack entry may carry it: given again too early, it would send the packets of
//! an open flow to another NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::IfIndex;
use crate::contract::{EXIT, EXIT_SHIFT, FLAG, NIC, NIC_MAX};

/// The claim of an exit: what the conntrack mark of its flows says.
pub fn mark(nic: u8, exit: u8) -> u32 {
    FLAG | u32::from(nic) | u32::from(exit) << EXIT_SHIFT
}

/// NIC and exit of a mark; `None` when it is not one of ours.
pub fn unmark(mark: u32) -> Option<(u8, u8)> {
    (mark & FLAG != 0).then_some(((mark & NIC) as u8, ((mark & EXIT) >> EXIT_SHIFT) as u8))
}

/// Who has which number. Never shrinks by itself: see [`Numbers::release`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    nics: BTreeMap<IfIndex, u8>,
    exits: BTreeMap<(IfIndex, IpAddr), u8>,
    /// The number given last on each NIC: the next search begins behind it.
    last: BTreeMap<IfIndex, u8>,
}

impl Numbers {
    /// The NIC's number, a new one if it has none. `None` when all 127 are taken.
    pub fn nic(&mut self, nic: IfIndex) -> Option<u8> {
        if let Some(n) = self.nics.get(&nic) {
            return Some(*n);
        }
        let taken: BTreeSet<u8> = self.nics.values().copied().collect();
        let free = (1..=NIC_MAX).find(|n| !taken.contains(n))?;
        self.nics.insert(nic, free);
        Some(free)
    }

    /// The mark of an exit, with a new number if it has none. `None` when the NIC's 255 are taken.
    pub fn exit(&mut self, nic: IfIndex, address: IpAddr) -> Option<u32> {
        let number = self.nic(nic)?;
        if let Some(n) = self.exits.get(&(nic, address)) {
            return Some(mark(number, *n));
        }
        let taken: BTreeSet<u8> = self.on(nic).map(|(_, n)| n).collect();
        let last = self.last.get(&nic).copied().unwrap_or(0);
        let free = (last..u8::MAX).map(|n| n + 1).chain(1..=last).find(|n| !taken.contains(n))?;
        self.exits.insert((nic, address), free);
        self.last.insert(nic, free);
        Some(mark(number, free))
    }

    /// Takes over what the kernel was left with, before anything is given out.
    pub fn read_back(&mut self, nic: IfIndex, address: Option<IpAddr>, of: u32) {
        let Some((n, exit)) = unmark(of) else { return };
        self.nics.insert(nic, n);
        if let Some(address) = address {
            self.exits.insert((nic, address), exit);
            let last = self.last.entry(nic).or_default();
            *last = (*last).max(exit);
        }
    }

    /// The NICs that have a number.
    pub fn nics(&self) -> impl Iterator<Item = (IfIndex, u8)> + '_ {
        self.nics.iter().map(|(nic, n)| (*nic, *n))
    }

    /// Exits that nobody is bound to any more, but that flows may still use.
    pub fn retired<'a>(&'a self, used: &'a BTreeSet<u32>) -> impl Iterator<Item = u32> + 'a {
        self.exits.iter().filter_map(|((nic, _), exit)| Some(mark(*self.nics.get(nic)?, *exit))).filter(|m| !used.contains(m))
    }

    /// Gives up every exit that is neither in `used` nor carried by a flow (`carried`: marks seen in conntrack), and every NIC that
    /// has no exit left and is not in `uplinks`.
    pub fn release(&mut self, used: &BTreeSet<u32>, carried: &BTreeSet<u32>, uplinks: &BTreeSet<IfIndex>) {
        let numbers = self.nics.clone();
        self.exits.retain(|(nic, _), exit| {
            numbers.get(nic).is_some_and(|n| used.contains(&mark(*n, *exit)) || carried.contains(&mark(*n, *exit)))
        });
        let busy: BTreeSet<IfIndex> = self.exits.keys().map(|(nic, _)| *nic).collect();
        let arrived: BTreeSet<u8> = carried.iter().filter_map(|m| unmark(*m)).map(|(n, _)| n).collect();
        self.nics.retain(|nic, n| uplinks.contains(nic) || busy.contains(nic) || arrived.contains(n));
        self.last.retain(|nic, _| self.nics.contains_key(nic));
    }

    fn on(&self, nic: IfIndex) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.exits.iter().filter(move |((n, _), _)| *n == nic).map(|((_, address), exit)| (*address, *exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([172, 31, 0, n])
    }

    #[test]
    fn an_exit_keeps_its_number_for_as_long_as_it_is_known() {
        let mut numbers = Numbers::default();
        let first = numbers.exit(3, address(14));
        numbers.exit(3, address(15));
        assert_eq!(first, Some(mark(1, 1)));
        assert_eq!(numbers.exit(3, address(14)), first);
    }

    #[test]
    fn a_number_is_not_given_again_while_a_flow_carries_it() {
        let mut numbers = Numbers::default();
        let old = numbers.exit(3, address(14)).expect("free");
        let uplinks = BTreeSet::from([3]);
        let carried = BTreeSet::from([old]);
        for n in 1..=254 {
            let mark = numbers.exit(3, address(n)).expect("free");
            numbers.release(&BTreeSet::from([mark]), &carried, &uplinks);
            assert!(mark != old || n == 14, "exit {n} got the number of an open flow");
        }
    }

    #[test]
    fn numbers_run_out_at_255_exits_and_127_nics() {
        let mut numbers = Numbers::default();
        for n in 0..=254 {
            assert!(numbers.exit(3, address(n)).is_some());
        }
        assert_eq!(numbers.exit(3, address(255)), None);
        for nic in 4..130 {
            assert!(numbers.nic(nic).is_some());
        }
        assert_eq!(numbers.nic(130), None);
    }

    #[test]
    fn a_restart_takes_over_the_numbers_of_the_kernel() {
        let mut numbers = Numbers::default();
        numbers.read_back(7, Some(address(14)), mark(5, 9));
        assert_eq!(numbers.exit(7, address(14)), Some(mark(5, 9)));
        assert_eq!(numbers.exit(7, address(15)), Some(mark(5, 10)));
        assert_eq!(numbers.nic(8), Some(1));
    }
}
