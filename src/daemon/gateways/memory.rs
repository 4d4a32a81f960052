//! Which gateways have answered, and which of those are dead, for the next start of the daemon: a restart shall not make a dead gateway one
//! that never answered, which is never called dead. It is kept where the daemon's state is, and goes with it at a reboot, as the numbers of
//! NICs do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::net::if_::{Interface, if_nameindex};

use crate::daemon::memo;
use crate::model::facts::IfIndex;
use crate::model::gateways::{Answers, Health};
use crate::model::managed::At;

const FILE: &str = "gateways.json";

/// The file, and what it said of gateways that nobody has asked for yet.
pub(super) struct Memory {
    file: PathBuf,
    remembered: BTreeMap<At, bool>,
}

impl Memory {
    /// Reads what the run before has known of NICs that are still there. A file that cannot be read says nothing.
    pub fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        let kept: Vec<(IfIndex, IpAddr, bool)> = memo::read(&file);
        let nics: BTreeSet<IfIndex> = if_nameindex().iter().flat_map(|all| all.iter().map(Interface::index)).collect();
        let there = kept.into_iter().filter(|(nic, ..)| nics.contains(nic));
        let remembered = there.map(|(nic, gateway, dead)| ((nic, gateway), dead)).collect();
        Self { file, remembered }
    }

    /// Those that answered, and those that were dead.
    pub fn answers(&self) -> Answers {
        let mut answers = Answers::default();
        for (at, is_dead) in &self.remembered {
            answers.note(*at, *is_dead);
        }
        answers
    }

    /// What was known of a gateway that is asked from now on.
    pub fn recall(&mut self, at: At) -> Health {
        self.remembered.remove(&at).map_or_else(Health::default, Health::remembered)
    }

    /// Keeps what is known.
    pub fn keep(&self, gateways: impl Iterator<Item = (At, Health)>) {
        let known = gateways.filter(|(_, health)| health.is_known()).map(|(at, health)| (at, health.is_dead()));
        let all = known.chain(self.remembered.iter().map(|(at, dead)| (*at, *dead)));
        let all: Vec<(IfIndex, IpAddr, bool)> = all.map(|((nic, gateway), dead)| (nic, gateway, dead)).collect();
        memo::write(&self.file, "the gateways' state", &all);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_next_start_knows_who_was_dead_and_who_had_answered() {
        let folder = tempfile::tempdir().unwrap();
        let at = |nic, last| (nic, IpAddr::from([10, 5, 0, last]));
        // The loopback device is there, and another one is gone by then.
        let healths = [(at(1, 1), Health::remembered(true)), (at(1, 2), Health::remembered(false)), (at(1, 3), Health::default())];
        Memory::open(folder.path()).keep(healths.into_iter().chain([(at(u32::MAX, 4), Health::remembered(true))]));
        let mut next = Memory::open(folder.path());
        let mut answers = Answers::default();
        answers.note(at(1, 1), true);
        answers.note(at(1, 2), false);
        assert_eq!(next.answers(), answers);
        for (last, health) in
            [(1, Health::remembered(true)), (2, Health::remembered(false)), (3, Health::default()), (4, Health::default())]
        {
            assert_eq!(next.recall(at(1, last)), health);
        }
        fs::write(folder.path().join(FILE), "[[1, 2").unwrap();
        assert_eq!(Memory::open(folder.path()).answers(), Answers::default());
    }
}
