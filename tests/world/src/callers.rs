//! Clients that call all the time, and each of whose calls counts.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::status::until_within;

/// How long the calls that are waited for may take: many times what they take.
const PATIENCE: Duration = Duration::from_secs(30);

/// They call until they are asked what they were answered.
pub struct Callers<T> {
    over: Arc<AtomicBool>,
    each: Vec<(JoinHandle<()>, Answers<T>)>,
}

/// What one of them was answered.
type Answers<T> = Arc<Mutex<Vec<io::Result<T>>>>;

impl<T: Send + 'static> Callers<T> {
    /// So many at once, each of which calls anew as soon as it is answered.
    pub fn start(number: usize, call: impl Fn() -> io::Result<T> + Clone + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (over, call, answers) = (Arc::clone(&over), call.clone(), Answers::default());
            let own = Arc::clone(&answers);
            let caller = thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = call();
                    own.lock().expect("nobody panics with the lock").push(answer);
                }
            });
            (caller, answers)
        };
        Self { each: (0..number).map(caller).collect(), over }
    }

    /// Waits until each of them has had so many more answers: with one, until what was under way has ended.
    pub fn await_each(&self, more: usize) {
        let had = || self.each.iter().map(|(_, answers)| answers.lock().expect("nobody panics with the lock").len()).collect();
        let before: Vec<usize> = had();
        until_within(PATIENCE, Duration::from_millis(5), "all clients are answered", || {
            let now: Vec<usize> = had();
            let all = before.iter().zip(&now).all(|(before, now)| *now >= before + more);
            if all { Ok(()) } else { Err(format!("{more} more than {before:?}: {now:?}")) }
        });
    }

    /// Ends them, and returns what they were answered. Panics when a call was not.
    pub fn end(self) -> Vec<T> {
        self.over.store(true, Ordering::Relaxed);
        let all: Vec<io::Result<T>> = self
            .each
            .into_iter()
            .flat_map(|(caller, answers)| {
                caller.join().expect("it calls to the end");
                std::mem::take(&mut *answers.lock().expect("nobody panics with the lock"))
            })
            .collect();
        let lost: Vec<String> = all.iter().filter_map(|answer| answer.as_ref().err()).map(ToString::to_string).collect();
        assert!(lost.is_empty(), "{} of {} calls are lost: {lost:?}", lost.len(), all.len());
        all.into_iter().flatten().collect()
    }
}
