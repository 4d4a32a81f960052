//! Gateways that answered before, and do not any more.

use std::collections::BTreeSet;

use super::managed::At;

/// The gateways that are dead just now, each on its NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dead(BTreeSet<At>);

impl Dead {
    /// Takes note of whether a gateway is dead; whether that is new.
    pub fn note(&mut self, gateway: At, dead: bool) -> bool {
        if dead { self.0.insert(gateway) } else { self.0.remove(&gateway) }
    }

    /// Forgets those that are not asked any more.
    pub fn retain(&mut self, asked: &BTreeSet<At>) {
        self.0.retain(|gateway| asked.contains(gateway));
    }

    pub fn contains(&self, gateway: At) -> bool {
        self.0.contains(&gateway)
    }
}

/// What is known of one gateway by its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It has answered at least once: one that never did may answer nobody, and is never called dead.
    known: bool,
    dead: bool,
    /// Questions without an answer, or answers of a dead one, in a row.
    row: u8,
}

impl Health {
    /// Questions in a row without an answer until it is dead.
    pub const MISSES: u8 = 3;
    /// Answers in a row until it is back.
    pub const ANSWERS: u8 = 2;

    /// Takes note of what became of a question; whether it is dead, if that has changed or is known for the first time.
    pub fn note(&mut self, answered: bool) -> Option<bool> {
        if answered && !std::mem::replace(&mut self.known, true) {
            return Some(false);
        }
        if answered != self.dead || !self.known {
            self.row = 0;
            return None;
        }
        self.row += 1;
        if self.row < if self.dead { Self::ANSWERS } else { Self::MISSES } {
            return None;
        }
        (self.dead, self.row) = (!self.dead, 0);
        Some(self.dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changed at each of these answers.
    fn changes(answers: &str) -> Vec<(usize, bool)> {
        let mut health = Health::default();
        answers.chars().enumerate().filter_map(|(at, answer)| Some((at, health.note(answer == '+')?))).collect()
    }

    #[test]
    fn three_misses_are_death_and_two_answers_life() {
        assert_eq!(changes("++---++"), [(0, false), (4, true), (6, false)]);
        assert_eq!(changes("+--+--+---"), [(0, false), (9, true)], "misses have to be in a row");
        assert_eq!(changes("+---+-+-++"), [(0, false), (3, true), (9, false)], "and so have answers");
    }

    #[test]
    fn who_never_answered_is_never_dead() {
        assert_eq!(changes("----------"), []);
        assert_eq!(changes("-----+---"), [(5, false), (8, true)]);
    }
}
