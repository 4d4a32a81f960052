//! Writes that are on their way. One that is slow, or never answered, delays only the next write of the same object.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::error::Error;
use super::pace::Pace;
use crate::report::fold::Change;

/// What a write is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The object with this uid.
    Object(String),
    Inside,
    Record,
    /// Each is another one.
    Event(u64),
}

/// What a write came to: the object as it is now, if it is still there.
pub type WriteResult = Result<Option<Change>, Error>;

/// An object whose next write could have been so long ago has no past.
const CALM: Duration = Duration::from_secs(10);

struct Slot {
    pace: Pace,
    busy: bool,
}

/// A number of writes at a time, and for each object one, with a pause after it.
#[derive(Default)]
pub struct WriteQueue {
    slots: BTreeMap<Key, Slot>,
    waiting: VecDeque<BoxFuture<'static, (Key, WriteResult)>>,
    sent: FuturesUnordered<BoxFuture<'static, (Key, WriteResult)>>,
    at_once: usize,
}

impl WriteQueue {
    /// So many writes are on their way at a time.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, ..Self::default() }
    }

    /// Whether an object may be written now; `Err` with when it may, if that is known.
    pub fn is_free(&self, key: &Key, now: Instant) -> Result<(), Option<Instant>> {
        match self.slots.get(key) {
            Some(slot) if slot.busy => Err(None),
            Some(slot) => slot.pace.next().filter(|next| *next > now).map_or(Ok(()), |next| Err(Some(next))),
            None => Ok(()),
        }
    }

    /// Begins a write, as soon as there is room for it.
    pub fn send(&mut self, key: Key, write: impl Future<Output = WriteResult> + Send + 'static) {
        self.slots.entry(key.clone()).or_insert_with(|| Slot { pace: Pace::default(), busy: true }).busy = true;
        self.waiting.push_back(Box::pin(async move { (key, write.await) }));
        self.fill();
    }

    fn fill(&mut self) {
        while self.sent.len() < self.at_once
            && let Some(write) = self.waiting.pop_front()
        {
            self.sent.push(write);
        }
    }

    /// The next write that is done. Pending while there is none. May be dropped without loss.
    pub async fn done(&mut self) -> (Key, WriteResult) {
        let Some((key, result)) = self.sent.next().await else { return std::future::pending().await };
        self.fill();
        let now = Instant::now();
        if matches!(key, Key::Event(_)) {
            self.slots.remove(&key);
        } else if let Some(slot) = self.slots.get_mut(&key) {
            slot.busy = false;
            // What is refused because something newer is there is decided anew with that.
            if result.is_ok() { slot.pace.wrote(now) } else { slot.pace.failed(now) }
        }
        // An object that was not written for long may be written at once.
        self.slots.retain(|_, slot| slot.busy || slot.pace.next().is_some_and(|next| next + CALM > now));
        (key, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Object(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_holds_up_its_own_object_and_no_other() {
        let mut queue = WriteQueue::new(4);
        queue.send(key("silent"), std::future::pending());
        for name in ["a", "b", "c"] {
            queue.send(key(name), async { Ok(None) });
            assert_eq!(queue.done().await.0, key(name));
        }
        let now = Instant::now();
        assert_eq!(queue.is_free(&key("silent"), now), Err(None));
        assert_eq!(queue.is_free(&key("a"), now), Err(Some(now + Duration::from_secs(1))));
        assert_eq!((queue.is_free(&key("a"), now + Duration::from_secs(1)), queue.is_free(&key("new"), now)), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_later_and_later_whatever_else_is_written() {
        let mut queue = WriteQueue::new(1);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let refused = || Error::of("patch", "egressbindings", kube::Error::TlsRequired);
            queue.send(key("refused"), async move { Err(refused()) });
            assert!(queue.done().await.1.is_err());
            let now = Instant::now();
            let Err(Some(next)) = queue.is_free(&key("refused"), now) else { panic!("it is to be tried later") };
            pauses.push((next - now).as_secs());
            tokio::time::advance(next - now).await;
            queue.send(key("other"), async { Ok(None) });
            assert!(queue.done().await.1.is_ok());
        }
        assert_eq!(pauses, [2, 4, 8, 16]);
    }
}
