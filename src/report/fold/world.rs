//! What the holder of the Lease knows of the cluster, as its sources tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use kube::ResourceExt;

use crate::api::binding::EgressBinding;
use crate::api::node::EgressNodeSpec;
use crate::api::object;
use crate::api::pool::EgressPool;
use crate::model::binding::FieldError;
use crate::model::cluster::{ApiBinding, Keyed, Known, Namespace, Word};
use crate::model::pool::Pool;

/// Something was said.
#[derive(Clone, Debug)]
pub enum Change {
    Bindings(Word<EgressBinding>),
    Pools(Word<EgressPool>),
    Namespaces(Word<Namespace>),
    /// What nodes report, by node.
    Reports(Word<Named<EgressNodeSpec>>),
    /// What is inside, by who says so.
    Inside(Teller, Word<Named<BTreeSet<IpNet>>>),
    /// What the agents are told to be inside; `None` when they are told nothing.
    ToldInside(Option<String>),
}

/// Who says what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teller {
    Nodes,
    Services,
    ApiServer,
}

/// Something with a name.
#[derive(Clone, Debug)]
pub struct Named<T> {
    pub name: String,
    pub value: T,
}

/// A binding, and what it is in the model: or why it is nothing there.
#[derive(Debug)]
pub(super) struct Written {
    pub object: EgressBinding,
    pub read: Result<ApiBinding, Vec<FieldError>>,
}

/// All of it. A kind that was not listed whole yet is `None`.
#[derive(Debug, Default)]
pub struct World {
    pub(super) bindings: Option<BTreeMap<String, Written>>,
    pub(super) pools: Option<BTreeMap<String, EgressPool>>,
    pub(super) lending: Known<Pool>,
    pub(super) namespaces: Option<Known<Namespace>>,
    pub(super) reports: Option<BTreeMap<String, EgressNodeSpec>>,
    pub(super) inside: BTreeMap<Teller, BTreeMap<String, BTreeSet<IpNet>>>,
    pub(super) told_inside: Option<Option<String>>,
    /// Whether bindings may name exits themselves.
    pub(super) raw_exits: bool,
}

impl World {
    /// Nothing is known yet. `raw_exits`: bindings may name exits themselves.
    pub fn new(raw_exits: bool) -> Self {
        Self { raw_exits, ..Self::default() }
    }

    /// How many agents report.
    pub fn agents(&self) -> usize {
        self.reports.as_ref().map_or(0, BTreeMap::len)
    }

    /// Takes in one change; whether anything may follow from it.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Bindings(word) => hear(&mut self.bindings, word, |object: EgressBinding| {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                (format!("{namespace}/{name}"), Written { read: object::binding(&object), object })
            }),
            Change::Pools(word) => {
                hear(&mut self.pools, word, |pool: EgressPool| (pool.name_any(), pool));
                let pools = self.pools.iter().flatten();
                self.lending = pools.map(|(name, pool)| (name.clone(), Arc::new(object::pool(pool)))).collect();
            }
            Change::Namespaces(word) => hear(&mut self.namespaces, word, |namespace: Namespace| (namespace.key(), Arc::new(namespace))),
            Change::Reports(word) => return hear_news(&mut self.reports, word),
            Change::Inside(teller, word) => {
                let mut known = self.inside.remove(&teller);
                let news = hear_news(&mut known, word);
                self.inside.insert(teller, known.unwrap_or_default());
                return news;
            }
            Change::ToldInside(text) => self.told_inside = Some(text),
        }
        true
    }
}

fn hear<T, V>(known: &mut Option<BTreeMap<String, V>>, word: Word<T>, keyed: impl Fn(T) -> (String, V)) {
    match word {
        Word::All(all) => *known = Some(all.into_iter().map(keyed).collect()),
        Word::One(one) => known.get_or_insert_default().extend([keyed(one)]),
        Word::Gone(key) => drop(known.as_mut().and_then(|known| known.remove(&key))),
    }
}

/// The same for what is told again and again without being news, as a Node is with each heartbeat.
fn hear_news<T: PartialEq>(known: &mut Option<BTreeMap<String, T>>, word: Word<Named<T>>) -> bool {
    if let (Some(known), Word::One(one)) = (&known, &word)
        && known.get(&one.name) == Some(&one.value)
    {
        return false;
    }
    hear(known, word, |one: Named<T>| (one.name, one.value));
    true
}
