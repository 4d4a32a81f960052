//! Which Events are worth telling: what a binding or a pool came to, once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;

use super::binding::{ACCEPTED, PROGRAMMED, RESOLVED};
use super::condition::find;
use super::pool::{AVAILABLE, EXHAUSTED};
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
    pub tale: Tale,
}

/// What is told of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tale {
    /// Something is not as it was asked for.
    pub warning: bool,
    /// What was tried, in a word.
    pub action: &'static str,
    pub reason: String,
    pub note: String,
}

impl Tale {
    fn warning(action: &'static str, reason: &str, note: &str) -> Self {
        Self { warning: true, action, reason: reason.to_owned(), note: cut(note).to_owned() }
    }

    fn of(action: &'static str, condition: Option<&Condition>) -> Option<Self> {
        let refused = condition.filter(|condition| condition.status == "False")?;
        Some(Self::warning(action, &refused.reason, &refused.message))
    }
}

/// What the status of a binding is worth. Nothing while it is on its way, and when nobody is selected.
pub(super) fn of_binding(status: &EgressBindingStatus) -> Option<Tale> {
    let refused = |action, kind| Tale::of(action, find(&status.conditions, kind));
    refused("Accept", ACCEPTED).or_else(|| refused("Resolve", RESOLVED)).or_else(|| programmed(status))
}

/// Without counts, so that the next pod is no news.
fn programmed(status: &EgressBindingStatus) -> Option<Tale> {
    let condition = find(&status.conditions, PROGRAMMED)?;
    match condition.status.as_str() {
        "False" => {
            let note = status.failing_nodes.first().map_or(&condition.message, |node| &node.message);
            Some(Tale::warning("Program", &condition.reason, note))
        }
        "True" if condition.reason == PROGRAMMED => {
            let note = format!("its workloads leave by {}", status.exits.join(", "));
            Some(Tale { warning: false, action: "Program", reason: PROGRAMMED.to_owned(), note: cut(&note).to_owned() })
        }
        _ => None,
    }
}

/// What the status of a pool is worth. Who is left without is in its condition.
pub(super) fn of_pool(status: &EgressPoolStatus) -> Option<Tale> {
    let exhausted = find(&status.conditions, AVAILABLE).is_some_and(|c| c.status == "False" && c.reason == EXHAUSTED);
    let tale = || Tale::warning("Allocate", EXHAUSTED, "bindings ask for more addresses than it has; add a block, or let a binding go");
    Tale::of("Accept", find(&status.conditions, ACCEPTED)).or_else(|| exhausted.then(tale))
}

/// What was told already, by the object's uid.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(BTreeMap<String, Tales>);

#[derive(Clone, Debug, Default)]
struct Tales {
    last: Option<Tale>,
    when: BTreeMap<Tale, Timestamp>,
}

impl Told {
    /// The Event for an object's new status, if it is news. `before` is what its status is now worth, and stands for what an earlier
    /// holder of the Lease has told.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &mut self,
        object: &K,
        before: Option<Tale>,
        after: Option<Tale>,
        now: Timestamp,
    ) -> Option<Event> {
        let uid = object.meta().uid.clone().unwrap_or_default();
        let tales = self.0.entry(uid).or_insert_with(|| Tales { last: before, when: BTreeMap::new() });
        let tale = after?;
        if tales.last.as_ref() == Some(&tale) {
            return None;
        }
        tales.last = Some(tale.clone());
        tales.when.retain(|_, told| now.duration_since(*told) < REPEAT);
        if tales.when.contains_key(&tale) {
            return None;
        }
        tales.when.insert(tale.clone(), now);
        Some(Event { about: object.object_ref(&()), tale })
    }

    /// Forgets all but these objects.
    pub fn retain(&mut self, uids: &BTreeSet<&str>) {
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

fn cut(note: &str) -> &str {
    &note[..note.floor_char_boundary(MAX_NOTE)]
}
