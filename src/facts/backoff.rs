//! How long to wait between tries.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Any time up to this: those that begin together do not go on together.
pub fn at_random(most: Duration) -> Duration {
    // Its keys are random, and that is all that is wanted of it.
    most.mul_f64(RandomState::new().hash_one(()) as f64 / u64::MAX as f64)
}

/// Time between tries: doubled with each, up to the longest.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// The first wait, and the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// How long to wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait
    }
}
