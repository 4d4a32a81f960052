//! Which Events are worth telling: what a binding or a pool came to, once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;

use super::binding::{ACCEPTED, PROGRAMMED, PUBLISHED, RESOLVED};
use super::condition::find;
use super::placed::ASSIGNED;
use super::pool::{AVAILABLE, EXHAUSTED, LENT_OUTSIDE};
use crate::api::pool::EgressPoolStatus;
use crate::api::status::EgressBindingStatus;

/// What was told of an object is not told again for so long, whatever it was between: pods come and go, and each Event is a write.
const REPEAT: SignedDuration = SignedDuration::from_mins(10);
/// As much of a note as the API server takes (1,024 bytes).
const MAX_NOTE: usize = 1000;

/// An Event to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub about: ObjectReference,
    pub content: EventContent,
}

/// Reason of the Events that say what a pool lends.
const ALLOCATED: &str = "AddressesAllocated";
/// Reason of the Events that say what it lends no longer.
const RELEASED: &str = "AddressesReleased";

/// What an Event says of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventContent {
    /// Something is not as it was asked for.
    pub warning: bool,
    /// What was tried, in a word.
    pub action: &'static str,
    pub reason: String,
    pub note: String,
}

impl EventContent {
    fn warning(action: &'static str, reason: &str, note: &str) -> Self {
        Self { warning: true, action, reason: reason.to_owned(), note: cut(note).to_owned() }
    }

    fn normal(action: &'static str, reason: &str, note: &str) -> Self {
        Self { warning: false, ..Self::warning(action, reason, note) }
    }

    fn of(action: &'static str, condition: Option<&Condition>) -> Option<Self> {
        let refused = condition.filter(|condition| condition.status == "False")?;
        Some(Self::warning(action, &refused.reason, &refused.message))
    }
}

/// What the status of a binding is worth. Nothing while it is on its way, and when nobody is selected.
pub(super) fn of_binding(status: &EgressBindingStatus) -> Option<EventContent> {
    let refused = |action, kind| EventContent::of(action, find(&status.conditions, kind));
    let first = refused("Accept", ACCEPTED).or_else(|| refused("Resolve", RESOLVED)).or_else(|| refused("Publish", PUBLISHED));
    first.or_else(|| programmed(status))
}

/// Without counts, so that the next pod is no news.
fn programmed(status: &EgressBindingStatus) -> Option<EventContent> {
    let condition = find(&status.conditions, PROGRAMMED)?;
    match condition.status.as_str() {
        "False" => {
            let note = status.failing_nodes.first().map_or(&condition.message, |node| &node.message);
            Some(EventContent::warning("Program", &condition.reason, note))
        }
        "True" if condition.reason == PROGRAMMED => {
            let note = format!("its workloads leave through {}", status.exits.join(", "));
            Some(EventContent::normal("Program", PROGRAMMED, &note))
        }
        _ => None,
    }
}

/// What the status of a pool is worth. Who is left without is in its condition.
pub(super) fn of_pool(status: &EgressPoolStatus) -> Option<EventContent> {
    let exhausted = find(&status.conditions, AVAILABLE).is_some_and(|c| c.status == "False" && c.reason == EXHAUSTED);
    let content = || {
        EventContent::warning("Allocate", EXHAUSTED, "bindings ask for more addresses than the pool has; add a block, or delete a binding")
    };
    let accepted = find(&status.conditions, ACCEPTED);
    let outside = accepted.filter(|c| c.reason == LENT_OUTSIDE).map(|c| EventContent::warning("Allocate", LENT_OUTSIDE, &c.message));
    let assigned = || EventContent::of("Assign", find(&status.conditions, ASSIGNED));
    EventContent::of("Accept", accepted).or_else(|| exhausted.then(content)).or(outside).or_else(assigned)
}

/// Addresses that a pool lends to a binding, or does so no longer.
#[derive(Debug)]
pub(super) struct Lending<'a> {
    binding: &'a str,
    /// The pool before, and now.
    pools: [Option<&'a str>; 2],
    got: Vec<&'a str>,
    lost: Vec<&'a str>,
    has: &'a [String],
}

impl<'a> Lending<'a> {
    /// What changed, if anything did.
    pub fn of(binding: &'a str, before: &'a EgressBindingStatus, after: &'a EgressBindingStatus) -> Option<Self> {
        let not_in = |some: &'a [String], others: &[String]| some.iter().filter(|a| !others.contains(a)).map(String::as_str).collect();
        let got: Vec<&str> = not_in(&after.exits, &before.exits);
        let lost: Vec<&str> = not_in(&before.exits, &after.exits);
        let pools = [before.pool.as_deref(), after.pool.as_deref()];
        let lends = pools.iter().any(Option::is_some) && (!got.is_empty() || !lost.is_empty());
        lends.then_some(Self { binding, pools, got, lost, has: &after.exits })
    }

    /// The pool that the change is of.
    pub fn pool(&self) -> Option<&'a str> {
        let [before, after] = self.pools;
        after.or(before)
    }

    pub fn for_binding(&self) -> EventContent {
        let pool = self.pool().unwrap_or_default();
        if self.lost.is_empty() {
            return EventContent::normal("Allocate", ALLOCATED, &format!("EgressPool {pool} lends it {}", self.got.join(", ")));
        }
        let has = if self.has.is_empty() { "nothing".to_owned() } else { self.has.join(", ") };
        EventContent::warning(
            "Release",
            RELEASED,
            &format!("EgressPool {pool} no longer lends it {}; it has {has} now", self.lost.join(", ")),
        )
    }

    pub fn for_pool(&self) -> EventContent {
        if self.lost.is_empty() {
            return EventContent::normal("Allocate", ALLOCATED, &format!("lent {} to EgressBinding {}", self.got.join(", "), self.binding));
        }
        EventContent::normal("Release", RELEASED, &format!("released {} from EgressBinding {}", self.lost.join(", "), self.binding))
    }
}

/// The Events that objects have had already, by uid.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced(BTreeMap<String, ObjectEvents>);

#[derive(Clone, Debug, Default)]
struct ObjectEvents {
    /// `None`: not known yet.
    last: Option<Option<EventContent>>,
    when: BTreeMap<EventContent, Timestamp>,
}

impl Announced {
    /// The Event for an object's new status, if it is news. `before` is what its status is now worth, and stands for what an earlier
    /// holder of the Lease has told.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &mut self,
        object: &K,
        before: Option<EventContent>,
        after: Option<EventContent>,
        now: Timestamp,
    ) -> Option<Event> {
        let uid = object.meta().uid.clone().unwrap_or_default();
        let past = self.0.entry(uid).or_default();
        let last = past.last.get_or_insert(before);
        let content = after?;
        if last.as_ref() == Some(&content) {
            return None;
        }
        *last = Some(content.clone());
        past.repeat(object, content, now)
    }

    /// The Event for something that happened to an object, unless it was told a while ago.
    pub fn once<K: Resource<DynamicType = ()>>(&mut self, object: &K, content: EventContent, now: Timestamp) -> Option<Event> {
        let uid = object.meta().uid.clone().unwrap_or_default();
        self.0.entry(uid).or_default().repeat(object, content, now)
    }

    /// Forgets all but these objects.
    pub fn retain(&mut self, uids: &BTreeSet<&str>) {
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

impl ObjectEvents {
    fn repeat<K: Resource<DynamicType = ()>>(&mut self, object: &K, content: EventContent, now: Timestamp) -> Option<Event> {
        self.when.retain(|_, told| now.duration_since(*told) < REPEAT);
        if self.when.contains_key(&content) {
            return None;
        }
        self.when.insert(content.clone(), now);
        Some(Event { about: object.object_ref(&()), content })
    }
}

fn cut(note: &str) -> &str {
    &note[..note.floor_char_boundary(MAX_NOTE)]
}
