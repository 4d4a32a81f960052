//! From all that nodes report to what users see: the status of bindings and pools, who has which address, Events, and what is inside.
//!
//! Only the agent that holds the Lease does this. What it decides is in the objects: an allocation is the binding's `status.exits`, so that it
//! survives whoever made it.

mod binding;
mod condition;
mod events;
mod pool;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::inside;
use crate::api::node::{EgressNodeSpec, NodeBinding};
use crate::api::pool::{EgressPool, EgressPoolStatus};
use crate::api::status::EgressBindingStatus;
use crate::model::labels::Labels;
use crate::model::pool::{Allocation, Lender, allocate};
use crate::model::reason::Reason;
use binding::Case;
pub use binding::{ACCEPTED, NO_WORKLOADS, PROGRAMMED, RESOLVED};
use condition::Verdict;
use events::Told;
pub use events::{Event, Tale};
use pool::Lent;
pub use pool::{AVAILABLE, EXHAUSTED};
use world::Written;
pub use world::{Change, Named, Teller, World};

/// How long after a binding was written "no node reports on it" means that it selects nobody: twice a node's longest pause between reports.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What is to be written: only what differs from what is there.
#[derive(Debug, Default, PartialEq)]
pub struct Writes {
    pub bindings: Vec<BindingWrite>,
    pub pools: Vec<PoolWrite>,
    pub events: Vec<Event>,
    /// What the agents are to be told to be inside.
    pub inside: Option<String>,
    /// When to look again though nothing is said.
    pub again: Option<Timestamp>,
}

/// A new status of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingWrite {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub status: EgressBindingStatus,
}

/// A new status of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolWrite {
    pub name: String,
    pub uid: String,
    pub status: EgressPoolStatus,
}

/// What outlives one fold.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Since when each binding is as it is, by uid: its generation, and when that was first seen.
    seen: BTreeMap<String, (i64, Timestamp)>,
    told: Told,
}

/// Decides everything anew. Deterministic in all that is given; nothing while a kind was not listed whole yet.
pub fn fold(world: &World, past: &mut Past, now: Timestamp) -> Writes {
    let mut writes = Writes { inside: inside(world), ..Writes::default() };
    let (Some(bindings), Some(pools), Some(namespaces), Some(reports)) = (&world.bindings, &world.pools, &world.namespaces, &world.reports)
    else {
        return writes;
    };
    let nowhere = Labels::new();
    let lender = Lender { pools: Some(&world.lending), namespaces: Some(namespaces), node: &nowhere, raw_exits: world.raw_exits };
    let read = bindings.iter().filter_map(|(key, written)| Some((key, written.read.as_ref().ok()?)));
    let allocations = allocate(&lender, read);
    let by_binding = by_binding(reports);
    past.forget_all_but(bindings.values(), pools.values().map(|pool| &pool.object));
    for (key, written) in bindings {
        let uid = written.object().metadata.uid.as_deref().unwrap_or_default();
        let reports = by_binding.get(uid).map_or(&[][..], Vec::as_slice);
        let before = written.object().status.clone().unwrap_or_default();
        let since = past.since(written, now);
        let case = Case { settled: now.duration_since(since) >= GRACE, reports, ..case(written, &lender, allocations.get(key)) };
        if !case.settled {
            let settled = since + GRACE;
            writes.again = Some(writes.again.map_or(settled, |again| again.min(settled)));
        }
        let status = case.status(now);
        if written.object().status.as_ref() == Some(&status) {
            continue;
        }
        let event = past.told.tell(written.object(), events::of_binding(&before), events::of_binding(&status), now);
        writes.events.extend(event);
        writes.bindings.push(BindingWrite {
            namespace: written.object().namespace().unwrap_or_default(),
            name: written.object().name_any(),
            uid: uid.to_owned(),
            status,
        });
    }
    let lent = lent(world, &allocations);
    for (name, lenient) in pools {
        let object = &lenient.object;
        let Some(pool) = world.lending.get(name) else { continue };
        let before = object.status.clone().unwrap_or_default();
        let status = pool::status(pool, lent.get(name.as_str()).unwrap_or(&Lent::default()), &before.conditions, now);
        if object.status.as_ref() == Some(&status) {
            continue;
        }
        writes.events.extend(past.told.tell(object, events::of_pool(&before), events::of_pool(&status), now));
        writes.pools.push(PoolWrite { name: name.clone(), uid: object.uid().unwrap_or_default(), status });
    }
    writes
}

impl Past {
    fn forget_all_but<'a>(&mut self, bindings: impl Iterator<Item = &'a Written>, pools: impl Iterator<Item = &'a EgressPool>) {
        let bindings = bindings.filter_map(|written| written.object().metadata.uid.as_deref());
        let uids: BTreeSet<&str> = bindings.chain(pools.filter_map(|pool| pool.metadata.uid.as_deref())).collect();
        self.seen.retain(|uid, _| uids.contains(uid.as_str()));
        self.told.retain(&uids);
    }

    /// Since when a binding is as it is.
    fn since(&mut self, written: &Written, now: Timestamp) -> Timestamp {
        let generation = written.object().metadata.generation.unwrap_or_default();
        let seen = self.seen.entry(written.object().uid().unwrap_or_default()).or_insert((generation, now));
        if seen.0 != generation {
            *seen = (generation, now);
        }
        seen.1
    }
}

/// What is known of a binding, without what nodes report.
fn case<'a>(written: &'a Written, lender: &Lender<'_>, allocation: Option<&Allocation>) -> Case<'a> {
    let generation = written.object().metadata.generation.unwrap_or_default();
    let before = written.object().status.as_ref().map_or(&[][..], |status| &status.conditions);
    let case = |accepted, exits, missing| Case { generation, before, accepted, exits, missing, reports: &[], settled: false };
    let api = match &written.read {
        Ok(api) => api,
        Err(errors) => return case(Verdict::invalid(errors), Ok(Vec::new()), None),
    };
    let exits = lender.exits(api, allocation.map_or(&[], |allocation| &allocation.addresses));
    let accepted = match &exits {
        _ if !api.binding.errors.is_empty() => Verdict::invalid(&api.binding.errors),
        Err(Reason::RawExits) => Verdict::because(&Reason::RawExits),
        _ => Verdict::yes(ACCEPTED, "it is well written".to_owned()),
    };
    let missing = allocation
        .filter(|allocation| allocation.missing > 0)
        .and_then(|allocation| Some(Reason::PoolExhausted { pool: api.binding.pool.as_ref()?.pool.clone(), missing: allocation.missing }));
    case(accepted, exits, missing)
}

/// What nodes report of each binding, by its uid; nodes in the order of their names.
fn by_binding(reports: &BTreeMap<String, EgressNodeSpec>) -> BTreeMap<&str, Vec<(&str, &NodeBinding)>> {
    let mut all: BTreeMap<&str, Vec<(&str, &NodeBinding)>> = BTreeMap::new();
    for (node, report) in reports {
        for binding in &report.bindings {
            all.entry(&binding.uid).or_default().push((node, binding));
        }
    }
    all
}

/// What each pool lends by number.
fn lent<'a>(world: &'a World, allocations: &'a BTreeMap<String, Allocation>) -> BTreeMap<&'a str, Lent<'a>> {
    let mut all: BTreeMap<&str, Lent<'_>> = BTreeMap::new();
    for (key, allocation) in allocations {
        let api = world.bindings.as_ref().and_then(|bindings| bindings.get(key)?.read.as_ref().ok());
        let Some(request) = api.and_then(|api| api.binding.pool.as_ref()) else { continue };
        let lent = all.entry(&request.pool).or_default();
        lent.addresses += allocation.addresses.len();
        if allocation.missing > 0 {
            lent.owed.push((key, allocation.missing));
        }
    }
    all
}

/// What the agents are to be told to be inside, if it is not what they are told. Nothing before all have spoken who know.
fn inside(world: &World) -> Option<String> {
    let all = [Teller::Nodes, Teller::Services, Teller::ApiServer].iter().all(|teller| world.inside.contains_key(teller));
    let told = world.told_inside.as_ref().filter(|_| all)?;
    let text = inside::text(world.inside.values().flat_map(BTreeMap::values));
    (text != told.as_deref().unwrap_or_default()).then_some(text)
}

#[cfg(test)]
mod tests;
