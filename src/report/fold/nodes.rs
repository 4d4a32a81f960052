//! Which nodes' reports still count. An agent writes its report anew every two minutes; of a node whose report has not changed for longer, or
//! was deleted, nobody knows what its pods do.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Clock;
use super::world::World;

/// A node whose report has not changed for so long is silent: two renewals came to nothing.
pub(super) const SILENCE: SignedDuration = SignedDuration::from_mins(5);

/// When each node's report changed last, by the leader's own clock: those of other nodes are not trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(BTreeMap<String, (Time, Timestamp)>);

/// The nodes that are silent now, and when the next one will be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Silent {
    pub nodes: BTreeSet<String>,
    pub next: Option<Timestamp>,
}

impl Heard {
    pub fn look(&mut self, world: &World, clock: Clock) -> Silent {
        let mut silent = Silent { nodes: world.deleted.keys().cloned().collect(), next: None };
        let reports = world.reports.iter().flatten();
        self.0.retain(|node, _| world.reports.as_ref().is_some_and(|reports| reports.contains_key(node)));
        for (node, report) in reports {
            // An agent of an earlier version does not say when.
            let Some(stamp) = &report.reported_at else { continue };
            // Of a report that is seen for the first time its own time tells how old it may be, so that a new leader need not wait.
            let old = clock.wall.duration_since(stamp.0).clamp(SignedDuration::ZERO, SILENCE);
            let heard = self.0.entry(node.clone()).or_insert_with(|| (stamp.clone(), clock.steady - old));
            if heard.0 != *stamp {
                *heard = (stamp.clone(), clock.steady);
            }
            let until = heard.1 + SILENCE;
            if clock.steady >= until {
                silent.nodes.insert(node.clone());
            } else {
                silent.next = Some(silent.next.map_or(until, |next| next.min(until)));
            }
        }
        silent
    }
}
