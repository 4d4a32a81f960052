//! Addresses that another program takes away as often as they are put back. Each is put back at once, but only so often: else two programs would
//! do nothing but undo each other's work.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::managed::At;

/// So often an address is put back at once...
const MOST: usize = 10;
/// ... within this time: whoever takes it away twice a second finds it there each time.
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Contests {
    /// When each was taken away, the last times.
    taken: BTreeMap<At, VecDeque<Instant>>,
    /// Those that are let be, until then.
    held: BTreeMap<At, Instant>,
}

impl Contests {
    /// Takes note that an address was taken away; whether it is let be from now on.
    pub fn taken(&mut self, at: At, now: Instant) -> bool {
        let times = self.taken.entry(at).or_default();
        times.push_back(now);
        if times.len() > MOST {
            times.pop_front();
        }
        let until = times[0] + WITHIN;
        if times.len() < MOST || until <= now {
            return false;
        }
        self.held.insert(at, until).is_none()
    }

    /// When the next is put back after all.
    pub fn due(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Those that are put back now.
    pub fn over(&mut self, now: Instant) -> Vec<At> {
        let over: Vec<At> = self.held.iter().filter(|(_, until)| **until <= now).map(|(at, _)| *at).collect();
        self.held.retain(|_, until| *until > now);
        over
    }

    /// Forgets those that are not asked for any more.
    pub fn retain(&mut self, wanted: impl Fn(At) -> bool) {
        self.taken.retain(|at, _| wanted(*at));
        self.held.retain(|at, _| wanted(*at));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const AT: At = (4, std::net::IpAddr::V4(Ipv4Addr::new(10, 5, 0, 98)));

    /// How many of these removals, so far apart, it is let be after.
    fn held(removals: u32, apart: Duration) -> usize {
        let (mut contests, start) = (Contests::default(), Instant::now());
        (0..removals).filter(|number| contests.taken(AT, start + apart * *number)).count()
    }

    #[test]
    fn who_takes_it_away_each_second_never_wins_and_who_does_it_all_the_time_does() {
        assert_eq!(held(1000, Duration::from_secs(1)), 0);
        assert_eq!(held(9, Duration::ZERO), 0, "a network manager that starts anew flushes some times");
        assert_eq!(held(10, Duration::from_millis(10)), 1);
    }

    #[test]
    fn it_is_put_back_after_a_moment_and_forgotten_when_nobody_asks_for_it() {
        let (mut contests, start) = (Contests::default(), Instant::now());
        for _ in 0..10 {
            contests.taken(AT, start);
        }
        assert_eq!(contests.due(), Some(start + WITHIN));
        assert_eq!(contests.over(start), []);
        assert_eq!(contests.over(start + WITHIN), [AT]);
        assert_eq!(contests.due(), None);
        assert!(contests.taken(AT, start + Duration::from_millis(1)), "it goes on");
        contests.retain(|_| false);
        assert_eq!(contests.due(), None);
    }
}
