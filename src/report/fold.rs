//! From all that nodes report to what users see: the status of bindings and pools, who has which address, Events, and what is inside.
//!
//! Only the leader does this. What it decides is in the objects: an allocation is the binding's `status.exits`, so that it
//! survives whoever made it.

mod binding;
pub(super) mod condition;
mod count;
mod events;
mod nodes;
mod placed;
mod pool;
mod published;
mod record;
mod sound;
mod world;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::inside;
use crate::api::node::EgressNodeSpec;
use crate::api::pool::{EgressPool, EgressPoolStatus};
use crate::api::status::EgressBindingStatus;
use crate::model::objects::{ApiBinding, Node};
use crate::model::pool::{Allocation, Holders, Lender, Record, allocate, place};
use crate::model::reason::Reason;
pub use binding::{ACCEPTED, AGENT_SILENT, NO_WORKLOADS, PROGRAMMED, PUBLISHED, RESOLVED};
use binding::{Case, Report};
pub use condition::READY;
use condition::Verdict;
use events::{Announced, Lending};
pub use events::{Event, EventContent};
use nodes::Heard;
pub use placed::{ASSIGNED, NO_NODE};
use pool::Lent;
pub use pool::{AVAILABLE, EXHAUSTED};
pub use record::RECORD;
use world::Written;
pub use world::{Change, ClusterNode, InsideSource, Named, World};

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
    /// The record of what pools lend: the data of its ConfigMap.
    pub record: Option<BTreeMap<String, String>>,
    /// Lines that the record has no room for.
    pub unrecorded: usize,
    /// When to look again though nothing is said.
    pub again: Option<Timestamp>,
}

/// Which state of which object a write is for. The API server refuses it for any other: who decided may be the leader no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    pub uid: String,
    pub version: Option<String>,
}

impl Precondition {
    fn of(object: &impl ResourceExt) -> Self {
        Self { uid: object.uid().unwrap_or_default(), version: object.resource_version() }
    }
}

/// A new status of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingWrite {
    pub namespace: String,
    pub name: String,
    pub of: Precondition,
    pub status: EgressBindingStatus,
}

/// A new status of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolWrite {
    pub name: String,
    pub of: Precondition,
    pub status: EgressPoolStatus,
}

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Never set: differences of it are true.
    pub steady: Timestamp,
    /// What users see.
    pub wall: Timestamp,
}

/// What outlives one fold.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Since when each binding is as it is, by uid: its generation, and when that was first seen.
    seen: BTreeMap<String, (i64, Timestamp)>,
    announced: Announced,
    heard: Heard,
    record: record::Seen,
    /// Addresses in writes that are on their way, by the binding's uid: they are given to nobody else meanwhile.
    on_their_way: BTreeMap<String, Vec<IpAddr>>,
}

/// Decides everything anew. Deterministic in all that is given; nothing while a kind was not listed whole yet.
pub fn fold(world: &World, past: &mut Past, clock: Clock) -> Writes {
    let mut writes = Writes { inside: inside(world), ..Writes::default() };
    let (Some(bindings), Some(pools), Some(namespaces), Some(_), Some(recorded)) =
        (&world.bindings, &world.pools, &world.namespaces, &world.reports, &world.recorded)
    else {
        return writes;
    };
    let nowhere = Node::default();
    let lender = Lender { pools: Some(&world.lending), namespaces: Some(namespaces), node: &nowhere, raw_exits: world.raw_exits };
    let read: BTreeMap<&String, Cow<'_, ApiBinding>> =
        bindings.iter().filter_map(|(key, written)| Some((key, past.with_writes(written.read.as_ref().ok()?)))).collect();
    let unsaid = past.record.look(&record::read(recorded), |key| read.get(&key.to_owned()).map(|api| &**api), clock.steady);
    let allocations = allocate(&lender, read.iter().map(|(key, api)| (*key, &**api)), &unsaid);
    let holders = holders_of(&allocations);
    past.forget_all_but(bindings.values(), pools.values().map(|pool| &pool.object));
    let silent = past.heard.look(world, clock);
    writes.again = silent.next.into_iter().chain(past.record.until(&unsaid)).min();
    let by_binding = by_binding(world, &silent.nodes);
    let (mut lent, mut said): (BTreeMap<&str, Lent<'_>>, _) = (BTreeMap::new(), Record::default());
    for (pool, binding, address) in record::kept(&unsaid) {
        lent.entry(pool).or_default().kept.push((address, binding));
    }
    for (key, written) in bindings {
        let object = written.object();
        let reports = by_binding.get(object.metadata.uid.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice);
        let before = object.status.clone().unwrap_or_default();
        let since = past.since(written, clock.steady);
        let api = read.get(key).map(|api| &**api);
        let case = Case {
            settled: clock.steady.duration_since(since) >= GRACE,
            reports,
            ..case(written, api, &lender, allocations.get(key), &holders)
        };
        if !case.settled {
            let settled = since + GRACE;
            writes.again = Some(writes.again.map_or(settled, |again| again.min(settled)));
        }
        let status = case.status(clock.wall);
        if let Some(api) = api {
            note(&mut lent, world, key, api, allocations.get(key), &status);
        }
        record::enter(&mut said, key, &status);
        if object.status.as_ref() == Some(&status) {
            continue;
        }
        let event = past.announced.tell(object, events::of_binding(&before), events::of_binding(&status), clock.steady);
        writes.events.extend(event);
        if let Some(change) = Lending::of(key, &before, &status) {
            writes.events.extend(past.announced.once(object, change.for_binding(), clock.steady));
            let pool = change.pool().and_then(|name| pools.get(name));
            writes.events.extend(pool.and_then(|pool| past.announced.once(&pool.object, change.for_pool(), clock.steady)));
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        writes.bindings.push(BindingWrite { namespace, name, of: Precondition::of(object), status });
    }
    let nodes = placed::candidates(world, &silent.nodes);
    for (name, lenient) in pools {
        let object = &lenient.object;
        let Some(pool) = world.lending.get(name) else { continue };
        let before = object.status.clone().unwrap_or_default();
        let lent = lent.remove(name.as_str()).unwrap_or_default();
        let outside = lent.outside.iter().map(|(address, _)| *address);
        let places = nodes.as_ref().map_or_else(|| pool.places.clone(), |nodes| place(pool, outside, nodes));
        let assigned = placed::verdict(pool, &places, world, &silent.nodes);
        let status = pool::status(pool, &lent, (&places, assigned), &before.conditions, clock.wall);
        // What the cloud shows is another's to write.
        if object.status.is_some() && (EgressPoolStatus { cloud: None, ..before.clone() }) == status {
            continue;
        }
        writes.events.extend(past.announced.tell(object, events::of_pool(&before), events::of_pool(&status), clock.steady));
        writes.pools.push(PoolWrite { name: name.clone(), of: Precondition::of(object), status });
    }
    let (next, unrecorded) = record::text(&past.record.next(&unsaid, said));
    writes.unrecorded = unrecorded;
    writes.record = Some(next).filter(|next| next != recorded);
    writes
}

impl Past {
    /// A write of a binding's status is on its way.
    pub fn sent(&mut self, write: &BindingWrite) {
        let exits = write.status.exits.iter().filter_map(|exit| exit.parse().ok()).collect();
        self.on_their_way.insert(write.of.uid.clone(), exits);
    }

    /// The write of a binding's status was answered, or came to nothing.
    pub fn answered(&mut self, uid: &str) {
        self.on_their_way.remove(uid);
    }

    /// A binding as it is once what is on its way has arrived.
    fn with_writes<'a>(&self, api: &'a ApiBinding) -> Cow<'a, ApiBinding> {
        match self.on_their_way.get(&api.uid) {
            Some(exits) if api.binding.pool.is_some() => {
                // What it has already may still be refused to others: the write may fail.
                let allocated = exits.iter().chain(api.allocated.iter().filter(|a| !exits.contains(a))).copied().collect();
                Cow::Owned(ApiBinding { allocated, ..api.clone() })
            }
            _ => Cow::Borrowed(api),
        }
    }

    fn forget_all_but<'a>(&mut self, bindings: impl Iterator<Item = &'a Written>, pools: impl Iterator<Item = &'a EgressPool>) {
        let bindings = bindings.filter_map(|written| written.object().metadata.uid.as_deref());
        let uids: BTreeSet<&str> = bindings.chain(pools.filter_map(|pool| pool.metadata.uid.as_deref())).collect();
        self.seen.retain(|uid, _| uids.contains(uid.as_str()));
        self.on_their_way.retain(|uid, _| uids.contains(uid.as_str()));
        self.announced.retain(&uids);
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
fn case<'a>(
    written: &'a Written,
    api: Option<&ApiBinding>,
    lender: &Lender<'_>,
    allocation: Option<&Allocation>,
    holders: &Holders,
) -> Case<'a> {
    let generation = written.object().metadata.generation.unwrap_or_default();
    let before = written.object().status.as_ref().map_or(&[][..], |status| &status.conditions);
    let case = |accepted, exits| Case {
        generation,
        before,
        accepted,
        exits,
        pool: None,
        kept: Vec::new(),
        missing: None,
        inbound: Vec::new(),
        reports: &[],
        settled: false,
    };
    let Some(api) = api else {
        let errors = written.read.as_ref().err().map_or(&[][..], Vec::as_slice);
        return case(Verdict::invalid(errors), Ok(Vec::new()));
    };
    let allocated = allocation.map_or(&api.allocated, |allocation| &allocation.addresses);
    let exits = lender.exits(api, allocated, holders);
    let accepted = match &exits {
        _ if !api.binding.errors.is_empty() => Verdict::invalid(&api.binding.errors),
        Err(Reason::RawExits) => Verdict::because(&Reason::RawExits),
        _ => Verdict::yes(ACCEPTED, "the spec is valid".to_owned()),
    };
    let pool = api.binding.pool.as_ref().map(|request| request.pool.clone());
    let missing = allocation
        .filter(|allocation| allocation.missing > 0)
        .and_then(|allocation| Some(Reason::PoolExhausted { pool: pool.clone()?, missing: allocation.missing }));
    // What is wrong with its pool does not cost it its addresses.
    let kept = if matches!(exits, Err(Reason::PoolInvalid { .. })) { allocated.clone() } else { Vec::new() };
    Case { pool, kept, missing, inbound: lender.inbound(api), ..case(accepted, exits) }
}

/// What nodes report of each binding, by its uid; nodes in the order of their names.
fn by_binding<'a>(world: &'a World, silent: &BTreeSet<String>) -> BTreeMap<&'a str, Vec<Report<'a>>> {
    let mut all: BTreeMap<&str, Vec<Report<'_>>> = BTreeMap::new();
    let mut reports: Vec<(&String, &EgressNodeSpec)> = world.reports.iter().flatten().chain(&world.deleted).collect();
    reports.sort_by_key(|(node, _)| *node);
    for (node, report) in reports {
        for binding in &report.bindings {
            all.entry(&binding.uid).or_default().push(Report { node, binding, silent: silent.contains(node) });
        }
    }
    all
}

/// Who has which address for itself.
fn holders_of(allocations: &BTreeMap<String, Allocation>) -> Holders {
    let one = |(key, allocation): (&String, &Allocation)| allocation.addresses.iter().map(|a| (*a, key.clone())).collect::<Vec<_>>();
    allocations.iter().flat_map(one).collect()
}

/// Takes note of what a binding has of its pool.
fn note<'a>(
    lent: &mut BTreeMap<&'a str, Lent<'a>>,
    world: &'a World,
    key: &'a str,
    api: &ApiBinding,
    allocation: Option<&Allocation>,
    status: &EgressBindingStatus,
) {
    let Some((name, pool)) = api.binding.pool.as_ref().and_then(|request| world.lending.get_key_value(&request.pool)) else { return };
    let lent = lent.entry(name.as_str()).or_default();
    lent.bindings += usize::from(!status.exits.is_empty());
    let exits = status.exits.iter().filter_map(|exit| exit.parse().ok());
    lent.outside.extend(exits.filter(|exit| !pool.contains(*exit)).map(|exit: IpAddr| (exit, key)));
    if let Some(allocation) = allocation {
        lent.addresses += allocation.addresses.len();
        if allocation.missing > 0 {
            lent.owed.push((key, allocation.missing));
        }
    }
}

/// What the agents are to be told to be inside, if it is not what they are told. Nothing before all have spoken who know.
fn inside(world: &World) -> Option<String> {
    let nodes = world.nodes.as_ref()?;
    let all = [InsideSource::Services, InsideSource::ApiServer].iter().all(|source| world.inside.contains_key(source));
    let told = world.told_inside.as_ref().filter(|_| all)?;
    let nodes = nodes.values().map(|node| &node.inside);
    let text = inside::text(nodes.chain(world.inside.values().flat_map(BTreeMap::values)));
    (text != told.as_deref().unwrap_or_default()).then_some(text)
}

#[cfg(test)]
mod tests;
