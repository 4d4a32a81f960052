//! How often something may be written that changes without end: soon at first, seldom while the changes go on, later and later on failure.

use std::time::Duration;

use tokio::time::Instant;

/// After a write, the next one is at least that much later.
const SOON: Duration = Duration::from_secs(1);
/// The same, while changes go on.
const SELDOM: Duration = Duration::from_secs(5);
/// So many writes may come soon after each other.
const BURST: u32 = 5;
/// How long after the last of several failures it is tried again.
const LATEST: Duration = Duration::from_secs(60);

/// When the next write may be.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    streak: u32,
    failures: u32,
}

impl Pace {
    /// The earliest time for the next write.
    pub fn next(&self) -> Option<Instant> {
        let pause = match self.failures {
            0 if self.streak < BURST => SOON,
            0 => SELDOM,
            failures => (SOON * 2_u32.saturating_pow(failures)).min(LATEST),
        };
        self.last.map(|last| last + pause)
    }

    /// Takes note of a write.
    pub fn wrote(&mut self, now: Instant) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) > 2 * SELDOM);
        self.streak = if calm { 1 } else { self.streak.saturating_add(1) };
        (self.last, self.failures) = (Some(now), 0);
    }

    /// Takes note of a write that came to nothing.
    pub fn failed(&mut self, now: Instant) {
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between the writes of something that changes all the time.
    fn pauses(pace: &mut Pace, mut now: Instant, count: usize, write: impl Fn(&mut Pace, Instant)) -> Vec<u64> {
        let mut pauses = Vec::new();
        for _ in 0..count {
            write(pace, now);
            let next = pace.next().expect("something was written");
            pauses.push(next.duration_since(now).as_secs());
            now = next;
        }
        pauses
    }

    #[test]
    fn what_changes_without_end_is_written_every_second_at_first_and_every_five_then() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.next(), None, "the first may be written at once");
        assert_eq!(pauses(&mut pace, start, 8, Pace::wrote), [1, 1, 1, 1, 5, 5, 5, 5]);
        pace.wrote(start + Duration::from_secs(100));
        assert_eq!(pace.next(), Some(start + Duration::from_secs(101)), "after a calm it is soon again");
    }

    #[test]
    fn what_fails_is_tried_later_and_later() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pauses(&mut pace, start, 7, Pace::failed), [2, 4, 8, 16, 32, 60, 60]);
        pace.wrote(start + Duration::from_secs(1000));
        assert_eq!(pace.next(), Some(start + Duration::from_secs(1001)));
    }
}
