//! One kind of object, followed for ever: a whole list, then a watch from where the list ended, and a new list only when the API server has
//! forgotten that place.
//!
//! `kube::runtime::watcher` does the same, but does not tell when a watch that failed goes on again (so that a trouble could be told to be
//! over), nor fall back to a list by itself where none can be streamed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::core::WatchEvent;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::request::within;
use super::store::{Entry, ObjectStore, Said};
use super::trouble::Problem;
use crate::facts::backoff::at_random;

/// How long a watch is asked for, in seconds, as client-go does: this, and up to as much again by chance, so that those that began together do
/// not end together. The API server ends it then, and it goes on where it was.
const WATCH: u32 = 5 * 60;
/// A watch that is silent for so much longer is taken for dead. Bookmarks would come each minute, but not of a kind of which nothing happens:
/// that takes word from etcd, which by its defaults gives it every ten minutes only.
const GRACE: u32 = 10;
/// The same of a watch that had a bookmark: from then on they come each minute, whatever happens (the API server's `nextBookmarkTime`).
const BOOKMARKED: Duration = Duration::from_secs(150);
/// How long the API server may take for the first word of an answer, for each further one of a list that is streamed, and for a whole list.
const ANSWER: Duration = Duration::from_secs(60);
/// A connection that lived this long ended for a reason of its own: the next attempt is made at once.
const SETTLED: Duration = Duration::from_secs(10);
/// Marks the bookmark behind the last object of a list that is streamed as a watch.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// A kind of object: where it is, and how it is read.
pub struct Kind<K, T> {
    pub api: Api<K>,
    /// Field selector; all objects without one.
    pub fields: Option<String>,
    pub read: fn(K) -> Entry<T>,
}

/// What is heard of a kind.
pub enum Heard<T> {
    Said(Said<T>),
    /// What keeps it from being read; `None` when it is read.
    Problem(Option<Problem>),
}

/// Why a session ended, other than by a [`Problem`].
enum End {
    /// The connection was closed, broke, or went silent.
    Over,
    /// The place in the history where we were is forgotten (410).
    TooOld,
    /// This API server cannot stream a list as a watch: it is older than 1.32, or its etcd older than 3.5.
    NotStreamed,
}

struct Follower<K, T> {
    kind: Kind<K, T>,
    store: ObjectStore<T>,
    /// Up to where all is known.
    version: Option<String>,
    /// What is known has to be listed anew.
    forgotten: bool,
    /// The API server did not know the version that the last list was to be no older than: the next one is read from etcd.
    ahead: bool,
    /// Whether the list may be asked for as a watch (WatchList), which costs the API server less.
    streamed: bool,
}

/// Follows a kind until it is dropped.
pub async fn follow<K, T>(kind: Kind<K, T>, mut hear: impl FnMut(Heard<T>))
where
    K: Resource + Clone + DeserializeOwned + Debug,
    T: Clone + PartialEq,
{
    let mut follower = Follower { kind, store: ObjectStore::default(), version: None, forgotten: false, ahead: false, streamed: true };
    // As client-go: 0.8 to 30 s, each time up to twice as long by chance, so that a thousand agents do not come back in one moment.
    let mut backoff = DefaultBackoff::default();
    loop {
        let began = Instant::now();
        let resumed = !follower.lists();
        let at_once = match follower.session(&mut hear).await {
            Ok(End::Over) => false,
            Ok(End::TooOld) => {
                follower.ahead |= follower.lists();
                follower.forgotten = true;
                resumed
            }
            Ok(End::NotStreamed) => {
                follower.streamed = false;
                true
            }
            Err(problem) => {
                // Perhaps of a list that was to be newer than this API server is: it came from another one, or etcd was restored.
                follower.ahead = follower.lists() && follower.version.is_some();
                hear(Heard::Problem(Some(problem)));
                false
            }
        };
        let settled = began.elapsed() >= SETTLED;
        if settled {
            backoff.reset();
        }
        if !at_once && !settled {
            sleep(backoff.next().unwrap_or(SETTLED)).await;
        }
    }
}

impl<K, T> Follower<K, T>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    T: Clone + PartialEq,
{
    /// Whether a whole list is needed.
    fn lists(&self) -> bool {
        self.forgotten || self.version.is_none()
    }

    /// What a list has to be no older than: what is known already, or one API server behind the others would take things back. By itself any
    /// cached one will do. Empty: as new as etcd.
    fn no_older_than(&self) -> &str {
        if self.ahead { "" } else { self.version.as_deref().unwrap_or("0") }
    }

    /// From the connection's begin to its end.
    async fn session(&mut self, hear: &mut impl FnMut(Heard<T>)) -> Result<End, Problem> {
        if self.lists() && !self.streamed {
            self.list(hear).await?;
        }
        // What is listed by the watch itself, until that list ends.
        let mut listing = self.lists().then(BTreeMap::new);
        let seconds = WATCH + at_random(Duration::from_secs(WATCH.into())).as_secs() as u32;
        let mut silence = Duration::from_secs((seconds + GRACE).into());
        let parameters = WatchParams {
            field_selector: self.kind.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: listing.is_some(),
            ..WatchParams::default()
        };
        let version = self.no_older_than().to_owned();
        let mut events = match within(ANSWER, self.kind.api.watch(&parameters, &version)).await {
            Ok(events) => events.boxed(),
            // Servers that never heard of it, or have it turned off.
            Err(kube::Error::Api(status)) if listing.is_some() && matches!(status.code, 400 | 422) => return Ok(End::NotStreamed),
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(End::TooOld),
            Err(error) => return Err(Problem::of("watch", &error)),
        };
        if listing.is_none() {
            hear(Heard::Problem(None));
        }
        loop {
            let event = match timeout(if listing.is_some() { ANSWER } else { silence }, events.next()).await {
                Ok(Some(event)) => event,
                // Nothing is known of the objects yet: that is more than a watch to be gone on with.
                Err(_) if listing.is_some() => return Err(Problem::Away { cause: "it stopped in the middle of a list".to_owned() }),
                Ok(None) | Err(_) => return Ok(End::Over),
            };
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let version = object.resource_version();
                    let entry = (self.kind.read)(object);
                    match &mut listing {
                        Some(listing) => drop(listing.insert(entry.0, entry.1)),
                        None => {
                            self.version = version.or(self.version.take());
                            self.store.one(entry).into_iter().for_each(|said| hear(Heard::Said(said)));
                        }
                    }
                }
                Ok(WatchEvent::Deleted(object)) => {
                    let version = object.resource_version();
                    let (key, _) = (self.kind.read)(object);
                    if let Some(listing) = &mut listing {
                        listing.remove(&key);
                        continue;
                    }
                    self.version = version.or(self.version.take());
                    self.store.gone(&key).into_iter().for_each(|said| hear(Heard::Said(said)));
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    if bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        listing.take().into_iter().for_each(|listing| self.whole(listing.into_iter().collect(), hear));
                    } else if listing.is_none() {
                        silence = silence.min(BOOKMARKED);
                    }
                    if listing.is_none() {
                        self.version = Some(bookmark.metadata.resource_version);
                    }
                }
                Ok(WatchEvent::Error(status)) => return self.ended(&status, listing.is_some()),
                Err(kube::Error::Api(status)) => return self.ended(&status, listing.is_some()),
                Err(error @ kube::Error::SerdeError(_)) => return Err(Problem::of("watch", &error)),
                Err(_) => return Ok(End::Over),
            }
        }
    }

    fn ended(&self, status: &kube::core::Status, listing: bool) -> Result<End, Problem> {
        match status.code {
            410 => Ok(End::TooOld),
            // With an etcd older than 3.5 this is where it turns out: "RequestWatchProgress is disabled" (500).
            400 | 422 | 500 if listing => Ok(End::NotStreamed),
            _ => Err(Problem::of_status("watch", status)),
        }
    }

    async fn list(&mut self, hear: &mut impl FnMut(Heard<T>)) -> Result<(), Problem> {
        // From the API server's cache, as kubelet does: else each agent's list of its pods would be a look at all pods in etcd.
        let parameters = ListParams { field_selector: self.kind.fields.clone(), ..ListParams::default() };
        let parameters = match self.no_older_than() {
            "" => parameters,
            "0" => parameters.match_any(),
            version => parameters.at(version).matching(VersionMatch::NotOlderThan),
        };
        let list = within(ANSWER, self.kind.api.list(&parameters)).await.map_err(|error| Problem::of("list", &error))?;
        self.version = Some(list.metadata.resource_version.unwrap_or_default());
        self.whole(list.items.into_iter().map(self.kind.read).collect(), hear);
        Ok(())
    }

    fn whole(&mut self, entries: Vec<Entry<T>>, hear: &mut impl FnMut(Heard<T>)) {
        (self.forgotten, self.ahead) = (false, false);
        hear(Heard::Problem(None));
        self.store.all(entries).into_iter().for_each(|said| hear(Heard::Said(said)));
    }
}

#[cfg(test)]
mod tests;
