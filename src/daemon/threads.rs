//! Threads beside the loop, for what takes long or comes again and again.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts a thread.
///
/// # Panics
/// When none can be had: better to say so than to go on without what it is for.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.to_owned()).spawn(work).expect("a thread can be started")
}

/// Starts a thread that works on what it is given, until the sender is dropped.
///
/// # Panics
/// As [`spawn`] does.
pub(super) fn start<T: Send + 'static>(name: &str, work: impl FnOnce(&Receiver<T>) + Send + 'static) -> Sender<T> {
    let (give, given) = channel();
    spawn(name, move || work(&given));
    give
}

/// Waits for what a thread is given, so long at most; all of it, the newest last, or nothing when the time is over.
///
/// # Errors
/// When the sender was dropped.
pub(super) fn all_given<T>(given: &Receiver<T>, most: Option<Duration>) -> Result<Vec<T>, RecvError> {
    let first = match most {
        Some(most) => given.recv_timeout(most),
        None => given.recv().map_err(|RecvError| RecvTimeoutError::Disconnected),
    };
    match first {
        Ok(first) => Ok(std::iter::once(first).chain(given.try_iter()).collect()),
        Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => Err(RecvError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_all_there_is_and_ends_with_its_sender() {
        let (give, given) = channel();
        assert_eq!(all_given(&given, Some(Duration::ZERO)), Ok(Vec::new()));
        (1..=3).for_each(|number| give.send(number).unwrap());
        assert_eq!(all_given(&given, None), Ok(vec![1, 2, 3]));
        give.send(4).unwrap();
        drop(give);
        assert_eq!(all_given(&given, None), Ok(vec![4]), "what was given is not lost");
        assert_eq!(all_given(&given, None), Err(RecvError));
    }
}
