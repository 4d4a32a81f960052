//! Ways: a NIC and the gateway of each family. A way has the small number that packet marks carry, a route table and a policy rule.
//!
//! A NIC has a way of its own, by its default route. A gateway that a binding names and that is not the NIC's makes another way, and changes
//! nothing for anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{Family, IfIndex};
use super::source_ports::SourcePorts;
use crate::contract::{FLAG, TABLE_BASE, WAY_MAX};

/// How a NIC reaches the outside in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// `None`: everything is on the link (point to point).
    pub address: Option<IpAddr>,
    pub onlink: bool,
    /// Bytes, where the route says so.
    pub mtu: Option<u32>,
    /// The table that its route was found in, whose other routes by that NIC are mirrored.
    pub table: u32,
}

/// What tells a way from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WayKey {
    pub nic: IfIndex,
    /// `None` is the NIC's own way.
    pub gateway: Option<IpAddr>,
}

impl WayKey {
    /// The NIC's own way.
    pub fn own(nic: IfIndex) -> Self {
        Self { nic, gateway: None }
    }
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub key: WayKey,
    /// 1 to 127, in packet marks and as the offset of its table.
    pub number: u8,
    /// The NIC is up and has a carrier.
    pub up: bool,
    pub gateways: BTreeMap<Family, Gateway>,
}

impl Way {
    /// Number of its route table.
    pub fn table(&self) -> u32 {
        TABLE_BASE + u32::from(self.number)
    }

    /// The mark of packets that go by it.
    pub fn mark(&self) -> u32 {
        mark(self.number)
    }
}

/// The packet mark of a way's number; of 0, no way out.
pub fn mark(number: u8) -> u32 {
    FLAG | u32::from(number)
}

/// The number of the way that a route table is for.
pub fn of_table(table: u32) -> Option<u8> {
    table.checked_sub(TABLE_BASE).and_then(|number| u8::try_from(number).ok()).filter(|number| (1..=WAY_MAX).contains(number))
}

/// What the mark of a program's first packets tells: the way, the exit, and the source ports where they are bounded.
pub type ProgramExit = (WayKey, IpAddr, Option<SourcePorts>);

/// Who has which number, and which exits flows may still bear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    numbers: BTreeMap<WayKey, u8>,
    /// Marks of the host's programs. A mark is all that tells the exit of their first packets.
    programs: BTreeMap<ProgramExit, u8>,
    /// Each exit that somebody is bound to, or was, with its way; `None`: an earlier run gave it one that is not known any more.
    exits: BTreeMap<IpAddr, Option<WayKey>>,
}

impl Numbers {
    /// The way's number, the lowest free one if it has none. `None` when all 127 are taken.
    pub fn number(&mut self, key: WayKey) -> Option<u8> {
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        let free = self.free()?;
        self.numbers.insert(key, free);
        Some(free)
    }

    /// The number in the marks of programs that leave so; one of its own, besides the way's.
    pub fn program(&mut self, exit: ProgramExit) -> Option<u8> {
        if let Some(number) = self.programs.get(&exit) {
            return Some(*number);
        }
        let free = self.free()?;
        self.programs.insert(exit, free);
        Some(free)
    }

    fn free(&self) -> Option<u8> {
        (1..=WAY_MAX).find(|number| self.is_free(*number))
    }

    fn is_free(&self, number: u8) -> bool {
        self.numbers.values().chain(self.programs.values()).all(|taken| *taken != number)
    }

    /// Takes over what the kernel was left with, before any number is given.
    pub fn read_back(&mut self, key: WayKey, number: u8) {
        if (1..=WAY_MAX).contains(&number) && self.is_free(number) {
            self.numbers.entry(key).or_insert(number);
        }
    }

    /// The same of a number that programs' marks have.
    pub fn read_back_program(&mut self, exit: ProgramExit, number: u8) {
        if (1..=WAY_MAX).contains(&number) && self.is_free(number) {
            self.programs.entry(exit).or_insert(number);
        }
    }

    /// The way that has a number.
    pub fn key_of(&self, number: u8) -> Option<WayKey> {
        self.numbers.iter().find(|(_, n)| **n == number).map(|(key, _)| *key)
    }

    /// Gives up the numbers of ways that are not among these. Nothing but packets on their way bears one.
    pub fn keep_only(&mut self, ways: &BTreeSet<WayKey>) {
        self.numbers.retain(|key, _| ways.contains(key));
    }

    /// The same of programs' ways and exits.
    pub fn keep_only_programs(&mut self, used: &BTreeSet<ProgramExit>) {
        self.programs.retain(|key, _| used.contains(key));
    }

    /// From now on flows may bear this exit.
    pub fn uses(&mut self, exit: IpAddr, way: WayKey) {
        self.exits.insert(exit, Some(way));
    }

    /// Flows of an earlier run may bear this exit. It has gone meanwhile, or its NIC has: they have no way out until somebody is bound to it.
    pub fn may_be_borne(&mut self, exit: IpAddr) {
        self.exits.entry(exit).or_insert(None);
    }

    /// The way of flows that bear an exit, as far as it is known.
    pub fn way_of(&self, exit: IpAddr) -> Option<WayKey> {
        self.exits.get(&exit).copied().flatten()
    }

    /// Exits that somebody is bound to, or was, with their ways, as far as these are known.
    pub fn exits(&self) -> impl Iterator<Item = (IpAddr, Option<WayKey>)> + '_ {
        self.exits.iter().map(|(exit, way)| (*exit, *way))
    }

    /// Forgets the exits that nobody is bound to (`used`) and that no flow bears (`borne`).
    pub fn release(&mut self, used: &BTreeSet<IpAddr>, borne: &BTreeSet<IpAddr>) {
        self.exits.retain(|exit, _| used.contains(exit) || borne.contains(exit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_keeps_its_number_and_a_number_is_free_once_its_way_is_gone() {
        let mut numbers = Numbers::default();
        let explicit = WayKey { nic: 3, gateway: Some([172, 31, 0, 2].into()) };
        assert_eq!(numbers.number(WayKey::own(3)), Some(1));
        assert_eq!(numbers.number(explicit), Some(2));
        assert_eq!(numbers.number(WayKey::own(3)), Some(1));
        numbers.keep_only(&[explicit].into());
        assert_eq!(numbers.number(WayKey::own(9)), Some(1));
    }

    #[test]
    fn an_interface_that_comes_anew_each_day_takes_no_number_along() {
        let mut numbers = Numbers::default();
        for nic in 1..=300 {
            assert_eq!(numbers.number(WayKey::own(nic)), Some(1), "interface {nic}");
            numbers.keep_only(&BTreeSet::new());
        }
    }

    #[test]
    fn there_are_127_numbers() {
        let mut numbers = Numbers::default();
        let given: Vec<Option<u8>> = (1..=128).map(|nic| numbers.number(WayKey::own(nic))).collect();
        assert_eq!((given[0], given[126], given[127]), (Some(1), Some(127), None));
    }

    #[test]
    fn programs_have_a_number_for_each_way_and_exit_and_none_that_a_way_has() {
        let mut numbers = Numbers::default();
        let exit = |n| (WayKey::own(3), IpAddr::from([172, 31, 0, n]), None);
        numbers.read_back_program(exit(14), 2);
        assert_eq!((numbers.number(WayKey::own(3)), numbers.number(WayKey::own(4))), (Some(1), Some(3)));
        assert_eq!((numbers.program(exit(14)), numbers.program(exit(15))), (Some(2), Some(4)));
        numbers.keep_only_programs(&[exit(15)].into());
        assert_eq!((numbers.program(exit(15)), numbers.number(WayKey::own(5))), (Some(4), Some(2)));
        let bounded = (WayKey::own(3), exit(15).1, Some(SourcePorts::ALL));
        assert_eq!(numbers.program(bounded), Some(5), "another range of source ports is told by another mark");
    }

    #[test]
    fn a_restart_takes_over_the_numbers_of_the_kernel() {
        let mut numbers = Numbers::default();
        numbers.read_back(WayKey::own(7), 5);
        numbers.read_back(WayKey::own(8), 5);
        assert_eq!((numbers.number(WayKey::own(7)), numbers.number(WayKey::own(8))), (Some(5), Some(1)));
    }

    #[test]
    fn an_exit_is_remembered_while_a_flow_bears_it() {
        let exit = |n| IpAddr::from([172, 31, 0, n]);
        let mut numbers = Numbers::default();
        (1..=3).for_each(|n| numbers.uses(exit(n), WayKey::own(1)));
        numbers.release(&[exit(1)].into(), &[exit(2)].into());
        assert_eq!(numbers.exits().map(|(exit, _)| exit).collect::<Vec<_>>(), [exit(1), exit(2)]);
    }
}
