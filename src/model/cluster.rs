//! What the API server says, as far as this node is concerned: plain data that its source fills in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::{Binding, Selector, Source};
use super::labels::{Demand, Labels, bears};
pub use super::objects::Node;
use super::objects::{ApiBinding, Known, Namespace};
use super::pod::Pod;
use super::pool::{Lender, Pool, holders};
use super::select::PodIndex;
use super::{put, replace};

/// A change of the objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// All objects as of now: what is not in it is gone.
    All(Vec<T>),
    One(T),
    /// By key.
    Gone(String),
}

impl<T> Update<T> {
    /// Applies it to what is known of the kind.
    pub fn apply<V>(self, known: &mut Option<BTreeMap<String, V>>, keyed: impl Fn(T) -> (String, V)) {
        match self {
            Self::All(all) => *known = Some(all.into_iter().map(keyed).collect()),
            Self::One(one) => known.get_or_insert_default().extend([keyed(one)]),
            Self::Gone(key) => drop(known.as_mut().and_then(|known| known.remove(&key))),
        }
    }
}

/// What an object is known by: `namespace/name`, or a name.
pub trait Keyed {
    fn key(&self) -> String;
}

/// What the API server said since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    Bindings(Update<ApiBinding>),
    Pools(Update<Pool>),
    Namespaces(Update<Namespace>),
    /// Pods of this node, by uid.
    Pods(Update<Pod>),
    Node(Node),
    /// Subnets that are inside: pods and nodes of the whole cluster, services, the API server.
    Inside(BTreeSet<IpNet>),
    /// Nobody has said yet what is inside.
    InsideUnsaid,
    /// The agents' own DaemonSet; `None` when there is none.
    DaemonSet(Option<DaemonSet>),
    /// The API server is away, and why; what was known stays.
    Lost(String),
    /// It answers again, on all that it is asked about.
    Found,
    /// What keeps something from being read, and the cure; `None` once it is well again. What was known of it stays.
    Trouble {
        /// A resource (`egresspools.egressd.dev`) or an object.
        about: String,
        /// A sentence that names it.
        problem: Option<String>,
    },
}

/// The agents' own DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSet {
    /// It is being deleted.
    pub deleting: bool,
    /// Its `nodeSelector`: labels of the nodes that it has an agent on.
    pub nodes: Labels,
    /// Its required node affinity: a node meets all demands of one of these, if there are any.
    pub terms: Vec<Vec<Demand>>,
}

impl DaemonSet {
    /// Whether a node is to have an agent.
    pub fn wants(&self, node: &Labels) -> bool {
        let fits = |term: &Vec<Demand>| term.iter().all(|demand| demand.met_by(node));
        !self.deleting && bears(node, &self.nodes) && (self.terms.is_empty() || self.terms.iter().any(fits))
    }
}

impl Keyed for ApiBinding {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Keyed for Pool {
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Keyed for Namespace {
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A pod, and which of all pods it was when it was first seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub pod: Arc<Pod>,
    /// Later pods have greater numbers; a pod keeps its own, whatever is said of it.
    pub place: u64,
}

/// All that the API server said. What has not been listed whole is `None`.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub bindings: Option<Known<ApiBinding>>,
    pub pools: Option<Known<Pool>>,
    pub namespaces: Option<Known<Namespace>>,
    /// By uid.
    pub pods: Option<BTreeMap<String, Seen>>,
    pub node: Node,
    /// With what was configured.
    pub inside: Arc<BTreeSet<IpNet>>,
    /// `None` as long as nobody said whether there is one.
    pub daemonset: Option<Option<DaemonSet>>,
    /// By what they are about.
    pub troubles: BTreeMap<String, String>,
    configured_inside: BTreeSet<IpNet>,
    inside_asked: bool,
    /// Whether bindings may name exits themselves, without a pool.
    raw_exits: bool,
    /// The bindings with what their pools give them.
    granted: PodIndex,
    /// What pools give this node, whoever is bound to it.
    own: Vec<Binding>,
    /// Addresses that pools give to other nodes.
    elsewhere: BTreeSet<IpAddr>,
    stale: bool,
    places: u64,
}

impl Cluster {
    /// Nothing said yet. `raw_exits`: bindings may name exits without a pool. `inside`: subnets that are inside whatever is discovered.
    pub fn new(raw_exits: bool, inside: &[IpNet]) -> Self {
        let configured: BTreeSet<IpNet> = inside.iter().map(IpNet::trunc).collect();
        Self { raw_exits, inside: Arc::new(configured.clone()), configured_inside: configured, ..Self::default() }
    }

    /// Takes in one change; whether it said anything new. (Whoever writes an object's status has it told of again.)
    pub fn apply(&mut self, change: ClusterChange) -> bool {
        let lends =
            matches!(change, ClusterChange::Bindings(_) | ClusterChange::Pools(_) | ClusterChange::Namespaces(_) | ClusterChange::Node(_));
        let new = match change {
            ClusterChange::Bindings(update) => apply(&mut self.bindings, update),
            ClusterChange::Pools(update) => apply(&mut self.pools, update),
            ClusterChange::Namespaces(update) => apply(&mut self.namespaces, update),
            ClusterChange::Pods(update) => self.apply_pods(update),
            ClusterChange::Node(node) => replace(&mut self.node, node),
            ClusterChange::Inside(inside) => {
                let changed = replace(&mut self.inside, Arc::new(&inside | &self.configured_inside));
                replace(&mut self.inside_asked, true) || changed
            }
            ClusterChange::InsideUnsaid => replace(&mut self.inside_asked, true),
            ClusterChange::DaemonSet(daemonset) => replace(&mut self.daemonset, Some(daemonset)),
            ClusterChange::Lost(_) | ClusterChange::Found => false,
            ClusterChange::Trouble { about, problem: Some(problem) } => put(&mut self.troubles, about, problem),
            ClusterChange::Trouble { about, problem: None } => self.troubles.remove(&about).is_some(),
        };
        self.stale |= lends && new;
        new
    }

    fn apply_pods(&mut self, update: Update<Pod>) -> bool {
        let first = self.pods.is_none();
        let mut pods = self.pods.take().unwrap_or_default();
        let mut see = |pod: Pod, before: &BTreeMap<String, Seen>| {
            self.places += 1;
            // What its kubelet says of a new container it says of the pod as it is now.
            let same = |seen: &&Seen| pod.started.is_none() || pod.started <= seen.pod.started;
            let place = before.get(&pod.uid).filter(same).map_or(self.places, |seen| seen.place);
            (pod.uid.clone(), Seen { pod: Arc::new(pod), place })
        };
        let new = match update {
            Update::All(all) => {
                let now = all.into_iter().map(|pod| see(pod, &pods)).collect();
                replace(&mut pods, now)
            }
            Update::One(pod) => {
                let (uid, seen) = see(pod, &pods);
                put(&mut pods, uid, seen)
            }
            Update::Gone(uid) => pods.remove(&uid).is_some(),
        };
        self.pods = Some(pods);
        new || first
    }

    /// Whether this node is to have no agent any more: the agents' DaemonSet is gone or going, or does not want this node. A fresh agent takes
    /// over what a former one left, but here none follows, so that whoever stops has to clean up. `false` when the DaemonSet is not known.
    pub fn dismissed(&self) -> bool {
        match &self.daemonset {
            None => false,
            Some(None) => true,
            // The node's labels are not known before its object was seen.
            Some(Some(daemonset)) => daemonset.deleting || (!self.node.uid.is_empty() && !daemonset.wants(&self.node.labels)),
        }
    }

    /// Every kind that decides who gets what has been listed whole.
    pub fn whole(&self) -> bool {
        self.bindings.is_some() && self.pools.is_some() && self.namespaces.is_some() && self.pods.is_some() && self.inside_asked
    }

    /// Lends the pools' addresses anew, if anything that this depends on has changed.
    pub fn grant(&mut self) {
        // A pool that was not listed yet would refuse who has it.
        if !self.whole() || !std::mem::take(&mut self.stale) {
            return;
        }
        let lender =
            Lender { pools: self.pools.as_ref(), namespaces: self.namespaces.as_ref(), node: &self.node, raw_exits: self.raw_exits };
        let bindings = || self.bindings.iter().flatten().map(|(key, binding)| (key, &**binding));
        let holders = holders(&lender, bindings());
        self.granted = PodIndex::new(bindings().map(|(_, binding)| lender.grant(binding, &holders)).collect());
        let placed = || self.pools.iter().flatten().map(|(_, pool)| &**pool).filter(|pool| pool.is_placed());
        self.own = placed().map(|pool| exits_of(pool, &self.node.name)).filter(|own| !own.exits.is_empty()).collect();
        let others = placed().flat_map(|pool| &pool.places).filter(|(_, node)| **node != self.node.name);
        self.elsewhere = others.map(|(address, _)| *address).collect();
        self.own.iter().flat_map(|own| &own.exits).for_each(|own| _ = self.elsewhere.remove(&own.address));
    }

    /// For each pool what it gives this node, as a binding that binds nobody: its addresses are put where they belong before anybody leaves by them.
    pub fn own_exits(&self) -> impl Iterator<Item = &Binding> {
        self.own.iter()
    }

    /// The pool with `cloud` that has an address.
    pub fn cloud_pool(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().flatten().map(|(_, pool)| &**pool).find(|pool| pool.aws.is_some() && pool.contains(address))
    }

    /// Whether a pool gives the address to another node.
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.elsewhere.contains(&address)
    }

    /// The bindings with what their pools give them, as of the last [`Cluster::grant`].
    pub fn granted(&self) -> &PodIndex {
        &self.granted
    }
}

/// What a pool gives a node. Whoever names one of the addresses takes precedence.
fn exits_of(pool: &Pool, node: &str) -> Binding {
    let nobody = Selector::Addresses(Vec::new());
    let exits = pool.exits_of(node).collect();
    Binding { exits, priority: i32::MIN, created: u64::MAX, ..Binding::plain(Source::Api, &pool.name, nobody) }
}

fn apply<T: Keyed + Eq>(known: &mut Option<Known<T>>, update: Update<T>) -> bool {
    match update {
        Update::All(all) => replace(known, Some(all.into_iter().map(|one| (one.key(), Arc::new(one))).collect())),
        Update::One(one) => put(known.get_or_insert_default(), one.key(), Arc::new(one)),
        Update::Gone(key) => known.as_mut().and_then(|known| known.remove(&key)).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_not_new_and_nothing_is_lent_anew() {
        let pod = |address: &str| Pod { uid: "p".to_owned(), addresses: vec![address.parse().unwrap()], ..Pod::default() };
        let namespace = |name: &str| Namespace { name: name.to_owned(), ..Namespace::default() };
        let mut cluster = Cluster::new(false, &[]);
        let changes = [
            ClusterChange::Bindings(Update::All(Vec::new())),
            ClusterChange::Pools(Update::All(Vec::new())),
            ClusterChange::Namespaces(Update::All(Vec::new())),
            ClusterChange::Pods(Update::All(Vec::new())),
            ClusterChange::InsideUnsaid,
            ClusterChange::Namespaces(Update::One(namespace("shop"))),
            ClusterChange::Pods(Update::One(pod("10.9.0.5"))),
            ClusterChange::Pods(Update::One(pod("10.9.0.6"))),
            ClusterChange::Pods(Update::All(vec![pod("10.9.0.7")])),
            ClusterChange::Inside(["10.9.0.0/16".parse().unwrap()].into()),
            ClusterChange::DaemonSet(None),
            ClusterChange::Trouble { about: "pods".to_owned(), problem: Some("no verb list".to_owned()) },
            ClusterChange::Trouble { about: "pods".to_owned(), problem: None },
            ClusterChange::Pods(Update::Gone("p".to_owned())),
            ClusterChange::Namespaces(Update::Gone("shop".to_owned())),
        ];
        for change in changes {
            assert!(cluster.apply(change.clone()), "{change:?}");
            cluster.grant();
            assert!(!cluster.apply(change.clone()), "{change:?}");
            assert!(!cluster.whole() || !cluster.stale, "{change:?}");
        }
    }
}
