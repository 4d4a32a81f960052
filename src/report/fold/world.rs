//! What the leader knows of the cluster, as its sources report it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use kube::ResourceExt;

use super::sound::sound;
use crate::api::binding::EgressBinding;
use crate::api::node::EgressNodeSpec;
use crate::api::object::{self, Lenient};
use crate::api::pool::EgressPool;
use crate::model::cluster::{Keyed, Update};
use crate::model::field_error::FieldError;
use crate::model::labels::Labels;
use crate::model::objects::{ApiBinding, Known, Namespace};
use crate::model::pool::Pool;

/// Something was said.
#[derive(Clone, Debug)]
pub enum Change {
    Bindings(Update<Arc<Lenient<EgressBinding>>>),
    Pools(Update<Arc<Lenient<EgressPool>>>),
    Namespaces(Update<Namespace>),
    Nodes(Update<Named<ClusterNode>>),
    /// What nodes report, by node.
    Reports(Update<Named<EgressNodeSpec>>),
    /// What is inside, by who says so.
    Inside(InsideSource, Update<Named<BTreeSet<IpNet>>>),
    /// What the agents are told to be inside; `None` when they are told nothing.
    ToldInside(Option<String>),
    /// The record of what pools lend, as it is written: the data of its ConfigMap.
    Recorded(BTreeMap<String, String>),
}

/// What matters of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNode {
    pub labels: Labels,
    /// What of it is inside: its addresses and its pods' subnets.
    pub inside: BTreeSet<IpNet>,
    /// Its kubelet does not say, and nobody says of it, that it is not ready.
    pub ready: bool,
}

/// Who says what is inside, besides the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InsideSource {
    Services,
    ApiServer,
}

/// Something with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T> {
    pub name: String,
    pub value: T,
}

/// A binding, and what it is in the model: or why it is nothing there.
#[derive(Debug)]
pub(super) struct Written {
    pub lenient: Arc<Lenient<EgressBinding>>,
    pub read: Result<ApiBinding, Vec<FieldError>>,
}

impl Written {
    pub fn object(&self) -> &EgressBinding {
        &self.lenient.object
    }
}

/// All of it. A kind that was not listed whole yet is `None`.
#[derive(Debug, Default)]
pub struct World {
    pub(super) bindings: Option<BTreeMap<String, Written>>,
    pub(super) pools: Option<BTreeMap<String, Arc<Lenient<EgressPool>>>>,
    pub(super) lending: Known<Pool>,
    pub(super) namespaces: Option<Known<Namespace>>,
    pub(super) nodes: Option<BTreeMap<String, ClusterNode>>,
    pub(super) reports: Option<BTreeMap<String, EgressNodeSpec>>,
    /// The last reports of nodes that are still there, and whose report was deleted.
    pub(super) deleted: BTreeMap<String, EgressNodeSpec>,
    pub(super) inside: BTreeMap<InsideSource, BTreeMap<String, BTreeSet<IpNet>>>,
    pub(super) told_inside: Option<Option<String>>,
    pub(super) recorded: Option<BTreeMap<String, String>>,
    /// Whether bindings may name exits themselves.
    pub(super) raw_exits: bool,
}

impl World {
    /// Nothing is known yet. `raw_exits`: bindings may name exits themselves.
    pub fn new(raw_exits: bool) -> Self {
        Self { raw_exits, ..Self::default() }
    }

    /// Takes in one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            // A write's answer may come before an older update.
            Change::Bindings(Update::One(new))
                if self.bindings.as_ref().is_some_and(|all| is_older(&new.object, all.get(&key(&new.object)).map(Written::object))) => {}
            Change::Pools(Update::One(new))
                if self
                    .pools
                    .as_ref()
                    .is_some_and(|all| is_older(&new.object, all.get(&new.object.name_any()).map(|pool| &pool.object))) => {}
            Change::Bindings(update) => update.apply(&mut self.bindings, |lenient: Arc<Lenient<EgressBinding>>| {
                (key(&lenient.object), Written { read: object::binding(&lenient), lenient })
            }),
            Change::Pools(update) => {
                // As many as there are may be written in one fold: only what is new is read.
                match &update {
                    Update::All(all) => self.lending = all.iter().map(|pool| lending(pool)).collect(),
                    Update::One(pool) => self.lending.extend([lending(pool)]),
                    Update::Gone(name) => drop(self.lending.remove(name)),
                }
                update.apply(&mut self.pools, |pool: Arc<Lenient<EgressPool>>| (pool.object.name_any(), pool));
            }
            Change::Namespaces(update) => update.apply(&mut self.namespaces, |namespace: Namespace| (namespace.key(), Arc::new(namespace))),
            Change::Reports(update) => self.hear_reports(update),
            Change::Inside(source, update) => {
                let mut known = self.inside.remove(&source);
                update.apply(&mut known, |one: Named<BTreeSet<IpNet>>| (one.name, one.value));
                self.inside.insert(source, known.unwrap_or_default());
            }
            Change::Nodes(update) => {
                update.apply(&mut self.nodes, |one: Named<ClusterNode>| (one.name, one.value));
                self.deleted.retain(|node, _| self.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(node)));
            }
            Change::ToldInside(text) => self.told_inside = Some(text),
            Change::Recorded(data) => self.recorded = Some(data),
        }
    }

    fn hear_reports(&mut self, update: Update<Named<EgressNodeSpec>>) {
        let before = match &update {
            Update::All(_) => self.reports.clone().unwrap_or_default(),
            Update::Gone(node) => {
                self.reports.iter().flatten().filter(|(name, _)| *name == node).map(|(n, r)| (n.clone(), r.clone())).collect()
            }
            Update::One(_) => BTreeMap::new(),
        };
        update.apply(&mut self.reports, |one: Named<EgressNodeSpec>| (one.name, sound(one.value)));
        let reports = self.reports.get_or_insert_default();
        self.deleted.retain(|node, _| !reports.contains_key(node));
        // A report that goes with its node is no loss.
        let nodes = self.nodes.as_ref();
        let lost = before.into_iter().filter(|(node, _)| !reports.contains_key(node) && nodes.is_some_and(|all| all.contains_key(node)));
        self.deleted.extend(lost);
    }
}

fn lending(pool: &Lenient<EgressPool>) -> (String, Arc<Pool>) {
    (pool.object.name_any(), Arc::new(object::pool(pool)))
}

fn key(binding: &EgressBinding) -> String {
    format!("{}/{}", binding.namespace().unwrap_or_default(), binding.name_any())
}

/// Whether an object is an earlier state of the known one.
fn is_older<K: ResourceExt>(new: &K, known: Option<&K>) -> bool {
    let version = |object: &K| object.resource_version().and_then(|version| version.parse::<u64>().ok());
    let Some(known) = known.filter(|known| known.uid() == new.uid()) else { return false };
    matches!((version(new), version(known)), (Some(new), Some(known)) if new < known)
}
