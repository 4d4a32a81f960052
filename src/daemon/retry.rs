//! What failed, and when it is tried again: soon at first, then less and less often. Each failure is logged once, and not once a try.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::effects::kernel::Failure;
use crate::facts::backoff::Backoff;

/// Between the first failure and the second try.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// Between two tries, at most.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Steps that fail.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failing: BTreeMap<String, Failing>,
}

#[derive(Debug)]
struct Failing {
    error: String,
    backoff: Backoff,
    /// `None`: the next try is under way.
    due: Option<Instant>,
}

impl Retries {
    /// Takes note of all that failed when everything was tried. What had failed before and is not among it is well again.
    pub fn note(&mut self, failures: Vec<Failure>, now: Instant) {
        let well = |step: &&String| !failures.iter().any(|failure| failure.step == **step);
        for step in self.failing.keys().filter(well).cloned().collect::<Vec<_>>() {
            self.well(&step);
        }
        failures.into_iter().for_each(|failure| self.failed(failure, now));
    }

    /// Takes note of one failure. Tries that come before they are due, because something else changed, put nothing off.
    pub fn failed(&mut self, failure: Failure, now: Instant) {
        let Failure { step, error, .. } = failure;
        let failing = self.failing.entry(step.clone()).or_insert_with(|| Failing {
            error: String::new(),
            backoff: Backoff::new(FIRST, LONGEST),
            due: None,
        });
        if failing.error != error {
            warn!(step, error, "step failed; retrying");
            failing.error = error;
        }
        if failing.due.is_none_or(|due| due <= now) {
            failing.due = Some(now + failing.backoff.wait());
        }
    }

    /// Takes note that a step works, if it failed before.
    pub fn well(&mut self, step: &str) {
        if self.failing.remove(step).is_some() {
            info!(step, "step succeeded after failures");
        }
    }

    /// When the next try is due.
    pub fn due(&self) -> Option<Instant> {
        self.failing.values().filter_map(|failing| failing.due).min()
    }

    /// Everything is tried now: what is due is under way until its end is told.
    pub fn begin(&mut self, now: Instant) {
        for failing in self.failing.values_mut() {
            failing.due.take_if(|due| *due <= now);
        }
    }

    /// Whether a step is due again. It is taken for under way from now on, until its end is told.
    pub fn begin_due(&mut self, step: &str, now: Instant) -> bool {
        self.failing.get_mut(step).is_some_and(|failing| failing.due.take_if(|due| *due <= now).is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.failing.is_empty()
    }

    /// How many steps are being tried again.
    pub fn len(&self) -> usize {
        self.failing.len()
    }

    /// What status should tell.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.failing.iter().map(|(step, failing)| format!("{step}: {}", failing.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: &str, error: &str) -> Failure {
        Failure { step: step.to_owned(), error: error.to_owned(), table: None }
    }

    /// Seconds between tries that are made when they are due.
    fn waits(tries: u32) -> Vec<u64> {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..tries {
            retries.note(vec![failure("ip route replace default", "no such device")], now);
            let due = retries.due().expect("it failed");
            waits.push(due.duration_since(now).as_secs());
            now = due;
        }
        waits
    }

    #[test]
    fn what_fails_for_ever_is_tried_once_a_minute_in_the_end() {
        assert_eq!(waits(9), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn tries_that_other_events_cause_put_nothing_off() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        retries.note(vec![failure("a", "e")], now);
        let due = retries.due();
        for _ in 0..10 {
            retries.note(vec![failure("a", "e")], now);
        }
        assert_eq!(retries.due(), due);
    }

    #[test]
    fn a_try_that_is_under_way_wakes_nobody() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        retries.failed(failure("a", "e"), now);
        assert!(!retries.begin_due("a", now));
        assert!(retries.begin_due("a", now + FIRST) && !retries.begin_due("a", now + FIRST));
        assert!(retries.due().is_none());
        retries.failed(failure("a", "e"), now + FIRST);
        assert_eq!(retries.due(), Some(now + FIRST * 3));
        retries.begin(now + FIRST * 3);
        assert!(retries.due().is_none());
    }

    #[test]
    fn each_step_has_a_pace_of_its_own_and_a_step_that_works_again_is_forgotten() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        for _ in 0..5 {
            retries.note(vec![failure("old", "e")], now);
            now = retries.due().unwrap();
        }
        retries.note(vec![failure("old", "e"), failure("new", "e")], now);
        assert_eq!(retries.due(), Some(now + FIRST), "the new one is tried soon");
        retries.note(vec![failure("old", "f")], now);
        assert_eq!(retries.problems().collect::<Vec<_>>(), ["old: f"]);
        retries.note(Vec::new(), now);
        assert!(retries.is_empty() && retries.due().is_none());
    }
}
