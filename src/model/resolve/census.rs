//! Who is like whom: what is needed to tell a change that is a few containers' own from one that others depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::super::binding::{Assignment, Spread};
use super::super::facts::{Container, Route};
use super::super::known::Facts;
use super::super::policy::{NO_EXIT, Standing, standing};
use super::super::select::Held;
use super::super::touched::Touched;
use super::super::workload::{Entry, Row, State, Subject};
use super::{Outcome, Resolver};
use crate::fnv::Fnv;

/// More containers than these are not decided one by one.
const MOST: usize = 256;

/// All containers of the engine, by what others of them, and the rest of the host, may depend on.
#[derive(Clone, Debug)]
pub struct Census {
    /// The containers that have an address.
    at: HashMap<IpAddr, Vec<Arc<Container>>>,
    /// How many ask for the same, and how many rows come to the same.
    kinds: HashMap<u64, u32>,
    /// Containers with an address whose port is not known: they may get one whoever changes.
    unsettled: BTreeSet<String>,
    /// Addresses of others than containers: rows', exits' and gateways'.
    apart: HashSet<IpAddr>,
    /// How many rows are containers'; they come first, in the order of their ids.
    pub(super) rows: usize,
}

/// The kinds of some containers, each as often as it is there.
#[derive(Default)]
pub(super) struct Kinds(BTreeMap<u64, u32>);

impl Census {
    /// Counts those who were there when an outcome was made; `touched` is what has changed since.
    pub fn of(facts: &Facts, touched: &Touched, outcome: &Outcome) -> Self {
        let mut census = Self {
            at: HashMap::default(),
            kinds: HashMap::default(),
            unsettled: BTreeSet::new(),
            apart: HashSet::default(),
            rows: outcome.rows.iter().take_while(|row| matches!(row.subject, Subject::Container(_))).count(),
        };
        let resolver = Resolver::new(facts, &outcome.uplinks);
        let (containers, others) = outcome.rows.split_at(census.rows);
        let mut kinds = Kinds::default();
        let stayed = facts.containers().filter(|container| !touched.containers.contains_key(&container.id));
        for container in stayed.chain(touched.containers.values().flatten()) {
            census.enter(container);
            kinds.ask(&resolver, container, &facts.manifests.of(container));
        }
        containers.iter().for_each(|row| kinds.row(row));
        census.kinds = kinds.0.into_iter().collect();
        census.note_unsettled(containers);
        census.apart.extend(others.iter().filter_map(|row| Some(row.address?.addr())));
        census.apart.extend(outcome.uplinks.named());
        census.apart.extend(facts.kernel.routes.iter().flat_map(Route::hops).filter_map(|(gateway, ..)| gateway));
        census
    }

    /// The ids of all that have to be decided together when these have changed, in order: no address of theirs is anybody else's. `None` when
    /// one is, or when they are too many. Takes note of where containers are now.
    pub(super) fn together(&mut self, facts: &Facts, touched: &Touched) -> Option<BTreeSet<String>> {
        let mut addresses: Vec<IpAddr> = touched.addresses.iter().copied().collect();
        let mut ids: BTreeSet<String> = BTreeSet::new();
        for (id, before) in &touched.containers {
            let now = facts.containers.get(id).map(|known| &known.container);
            before.iter().for_each(|container| self.leave(container));
            now.into_iter().for_each(|container| self.enter(container));
            addresses.extend(before.iter().chain(now).flat_map(|container| addresses_of(container)));
            ids.insert(id.clone());
        }
        for id in &self.unsettled {
            if let Some(known) = facts.containers.get(id).filter(|_| ids.insert(id.clone())) {
                addresses.extend(addresses_of(&known.container));
            }
        }
        let mut seen: HashSet<IpAddr> = HashSet::default();
        while let Some(address) = addresses.pop() {
            if !seen.insert(address) {
                continue;
            }
            if self.apart.contains(&address) || ids.len() > MOST {
                return None;
            }
            for container in self.at(address) {
                if ids.insert(container.id.clone()) {
                    addresses.extend(addresses_of(container));
                }
            }
        }
        Some(ids)
    }

    /// The containers that have an address.
    pub(super) fn at(&self, address: IpAddr) -> &[Arc<Container>] {
        self.at.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Whether an address is one of others than containers.
    pub(super) fn is_apart(&self, address: IpAddr) -> bool {
        self.apart.contains(&address)
    }

    /// Whether nobody but they can tell that some were `before`, and are `after` now: of each kind there is somebody as there was.
    pub(super) fn is_alike(&self, before: &Kinds, after: &Kinds) -> bool {
        before.0.keys().chain(after.0.keys()).all(|kind| {
            let of = |kinds: &Kinds| kinds.0.get(kind).copied().unwrap_or(0);
            let all = self.kinds.get(kind).copied().unwrap_or(0);
            (all > 0) == (all - of(before) + of(after) > 0)
        })
    }

    /// Takes in what some came to.
    pub(super) fn settle(&mut self, ids: &BTreeSet<String>, (before, after): (&Kinds, &Kinds), rows: &[Row], removed: usize) {
        for (kind, count) in &after.0 {
            *self.kinds.entry(*kind).or_default() += count;
        }
        for (kind, count) in &before.0 {
            if let Some(all) = self.kinds.get_mut(kind) {
                *all -= count;
                if *all == 0 {
                    self.kinds.remove(kind);
                }
            }
        }
        ids.iter().for_each(|id| _ = self.unsettled.remove(id));
        self.note_unsettled(rows);
        self.rows = self.rows + rows.len() - removed;
    }

    fn note_unsettled(&mut self, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.address.is_some() && row.entry.is_none()) {
            if let Subject::Container(container) = &row.subject {
                self.unsettled.insert(container.id.clone());
            }
        }
    }

    fn enter(&mut self, container: &Arc<Container>) {
        for address in addresses_of(container) {
            self.at.entry(address).or_default().push(Arc::clone(container));
        }
    }

    fn leave(&mut self, container: &Arc<Container>) {
        for address in addresses_of(container) {
            if let Some(all) = self.at.get_mut(&address) {
                all.retain(|one| one.id != container.id);
                if all.is_empty() {
                    self.at.remove(&address);
                }
            }
        }
    }
}

impl Kinds {
    /// A container that asks for an exit guards its networks, and its exits are looked for.
    pub(super) fn ask(&mut self, resolver: &Resolver<'_>, container: &Container, held: &[Held]) {
        if held.is_empty() {
            return;
        }
        let networks: BTreeSet<&str> = resolver.networks_of(container).map(|network| network.id.as_str()).collect();
        let mut hash = Fnv::default();
        networks.hash(&mut hash);
        for binding in held.iter().filter(|held| matches!(held, Held::Label(_))) {
            (&binding.exits, binding.is_accepted(), binding.stands()).hash(&mut hash);
        }
        self.note(hash);
    }

    /// A source that is bound has a policy, which leads somewhere, and comes in by its bridge; and a binding for some traffic has chains.
    pub(super) fn row(&mut self, row: &Row) {
        let (is_there, v6) = (row.entry.is_some(), row.address.map(|net| net.addr().is_ipv6()));
        let exit = if let State::Bound(exit) = &row.state { Some(exit) } else { None };
        if exit.is_some() {
            let mut hash = Fnv::default();
            (exit, v6).hash(&mut hash);
            self.note(hash);
        }
        if let Standing::Bound(policy) = standing(row) {
            for bridge in row.entries().map(Entry::interface) {
                let mut hash = Fnv::default();
                (policy, exit, bridge, v6).hash(&mut hash);
                self.note(hash);
            }
        }
        if let Some(traffic) = row.binding.as_ref().map(|binding| &binding.traffic).filter(|traffic| !traffic.is_everything()) {
            let mut hash = Fnv::default();
            (traffic.number(), is_there, v6, matches!(standing(row), Standing::Bound(NO_EXIT))).hash(&mut hash);
            self.note(hash);
        }
    }

    fn note(&mut self, hash: Fnv) {
        *self.0.entry(hash.finish()).or_default() += 1;
    }
}

/// What follows from it follows for its container alone, as far as it is like others.
pub(super) fn is_plain(held: &Held) -> bool {
    let plain = held.exits.iter().all(|exit| exit.gateway.is_none() && exit.assignment != Assignment::Managed && exit.probe.is_none());
    plain && held.rate.is_none() && held.inbound.is_empty() && held.spread == Spread::FirstUsable
}

fn addresses_of(container: &Container) -> impl Iterator<Item = IpAddr> {
    container.attachments.iter().flat_map(|attachment| attachment.addresses.iter().copied())
}
