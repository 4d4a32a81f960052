//! Which binding a container falls to.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use super::binding::{Asked, Binding, BindingName, Selector, Source};
use super::cloud::CloudPool;
use super::facts::Container;
use super::fits::{COMPOSE_PROJECT, fits};
use super::isolated::Isolated;
use super::labels::{LabelSelector, Labels};
use super::manifests::Manifests;
use super::pod::Pod;

/// A binding, shared with the object that it was read from.
#[derive(Clone, Debug)]
pub enum Held {
    Label(Arc<Asked>),
    /// Of the files, or of the API server.
    Listed(Arc<Binding>),
}

impl Held {
    /// The binding of a container's labels, if they ask for one.
    pub fn label(asked: &Arc<Asked>) -> Option<Self> {
        asked.binding.is_some().then(|| Self::Label(Arc::clone(asked)))
    }
}

impl Deref for Held {
    type Target = Binding;

    fn deref(&self) -> &Binding {
        match self {
            Self::Label(asked) => asked.binding.as_ref().expect("made only of labels that ask for a binding"),
            Self::Listed(binding) => binding,
        }
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq::<Binding>(&**self, &**other) || **self == **other
    }
}

/// The order of precedence: higher priority, then source, then older, then name. The smallest wins.
pub fn precedence(binding: &Binding) -> (Reverse<i32>, Source, u64, &BindingName) {
    (Reverse(binding.priority), binding.name.source, binding.created, &binding.name)
}

/// Manifests, and their bindings found by one term that a container must have.
#[derive(Clone, Debug, Default)]
pub struct Index {
    manifests: Manifests,
    by_name: HashMap<String, Vec<usize>>,
    by_label: HashMap<(String, String), Vec<usize>>,
    /// The pool with `cloud` that has an address.
    pools: HashMap<Ipv4Addr, usize>,
    /// Bindings of the manifests; behind them are those of isolated programs.
    own: usize,
}

impl Index {
    pub fn new(manifests: Manifests) -> Self {
        let mut index = Self { own: manifests.bindings.len(), manifests, ..Self::default() };
        for (at, pool) in index.manifests.pools.iter().enumerate() {
            index.pools.extend(pool.addresses.iter().map(|address| (*address, at)));
        }
        for (at, binding) in index.manifests.bindings.iter().enumerate() {
            let Selector::Containers { names, match_labels, compose } = &binding.selector else { continue };
            if !names.is_empty() {
                for name in names {
                    index.by_name.entry(name.clone()).or_default().push(at);
                }
            } else if let Some((key, value)) = match_labels.first_key_value() {
                index.by_label.entry((key.clone(), value.clone())).or_default().push(at);
            } else if let Some(compose) = compose {
                index.by_label.entry((COMPOSE_PROJECT.to_owned(), compose.project.clone())).or_default().push(at);
            }
        }
        index
    }

    /// All bindings that a container falls under, the winner first.
    pub fn of(&self, container: &Container) -> Vec<Held> {
        let mut found: Vec<Held> = container.asked.as_ref().and_then(Held::label).into_iter().collect();
        if !self.by_name.is_empty() || !self.by_label.is_empty() {
            let named = self.by_name.get(&container.name).into_iter().flatten();
            let labels = container.labels.iter().filter(|_| !self.by_label.is_empty());
            let labelled = labels.filter_map(|(k, v)| self.by_label.get(&(k.clone(), v.clone()))).flatten();
            let hits = named.chain(labelled).filter(|at| fits(&self.manifests.bindings[**at].selector, container));
            found.extend(hits.map(|at| self.held(*at)));
        }
        found.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
        found
    }

    /// The pool with `cloud` that has an address.
    pub fn pool_of(&self, address: IpAddr) -> Option<&CloudPool> {
        let IpAddr::V4(address) = address else { return None };
        self.pools.get(&address).map(|at| &*self.manifests.pools[*at])
    }

    /// Takes in the programs that `egressd exec` isolated, each with the link that it is behind. They have bindings of their own.
    pub fn isolate<'a>(&mut self, programs: impl Iterator<Item = (&'a str, &'a Isolated)>) {
        let bindings = &mut self.manifests.bindings;
        bindings.truncate(self.own);
        let own: Vec<_> = programs.map(|(link, program)| Arc::new(program.binding(link, bindings))).collect();
        bindings.extend(own);
    }

    /// The binding at a place among them.
    pub fn held(&self, at: usize) -> Held {
        Held::Listed(Arc::clone(&self.manifests.bindings[at]))
    }
}

impl Deref for Index {
    type Target = Manifests;

    fn deref(&self) -> &Manifests {
        &self.manifests
    }
}

/// The bindings of pods, found by their namespace and one label that a pod must have.
#[derive(Clone, Debug, Default)]
pub struct PodIndex {
    bindings: Vec<Arc<Binding>>,
    by_namespace: HashMap<String, Candidates>,
}

/// The bindings of one namespace.
#[derive(Clone, Debug, Default)]
struct Candidates {
    /// By a label's key, and then its value.
    by_label: HashMap<String, HashMap<String, Vec<usize>>>,
    /// Those that demand no value.
    others: Vec<usize>,
}

impl PodIndex {
    pub fn new(bindings: Vec<Binding>) -> Self {
        let mut by_namespace: HashMap<String, Candidates> = HashMap::new();
        for (at, binding) in bindings.iter().enumerate() {
            if let Selector::Pods { namespace, labels } = &binding.selector {
                by_namespace.entry(namespace.clone()).or_default().add(at, labels);
            }
        }
        Self { bindings: bindings.into_iter().map(Arc::new).collect(), by_namespace }
    }

    /// All of them.
    pub fn bindings(&self) -> &[Arc<Binding>] {
        &self.bindings
    }

    /// No pod of any node is asked for.
    pub fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// All bindings that a pod falls under, the winner first.
    pub fn of(&self, pod: &Pod) -> Vec<Held> {
        let candidates = self.by_namespace.get(&pod.namespace).into_iter().flat_map(|candidates| candidates.of(&pod.labels));
        let hits = candidates.filter(|at| match &self.bindings[*at].selector {
            Selector::Pods { labels, .. } => labels.selects(&pod.labels),
            _ => false,
        });
        let mut found: Vec<Held> = hits.map(|at| Held::Listed(Arc::clone(&self.bindings[at]))).collect();
        found.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
        found
    }
}

impl Candidates {
    fn add(&mut self, at: usize, selector: &LabelSelector) {
        match selector.values() {
            Some((key, values)) => {
                let by_value = self.by_label.entry(key.to_owned()).or_default();
                values.into_iter().for_each(|value| by_value.entry(value.to_owned()).or_default().push(at));
            }
            None => self.others.push(at),
        }
    }

    fn of(&self, labels: &Labels) -> impl Iterator<Item = usize> {
        let labelled = labels.iter().filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        labelled.flatten().chain(&self.others).copied()
    }
}

#[cfg(test)]
mod tests;
