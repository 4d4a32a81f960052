//! Who gets which addresses of a pool, for the whole cluster at once.
//!
//! The order of claims: what a binding names and has already; what a binding has by number already; then new claims, the oldest binding first.
//! So nobody loses an address to a binding that came later, or was edited later, whatever that one names. A binding without a status has what
//! the record says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Lender, Pool, Reason, Record};
use crate::model::binding::Wanted;
use crate::model::objects::ApiBinding;

/// What a binding gets of a pool by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    pub addresses: Vec<IpAddr>,
    /// How many are missing.
    pub missing: usize,
}

/// Which binding has an address for itself, by key (`namespace/name`).
pub type Holders = BTreeMap<IpAddr, String>;

/// A binding that asks a pool for a number of addresses.
struct Asking<'a> {
    key: &'a str,
    api: &'a ApiBinding,
    /// `None` while the pool is there and has an error: what the binding has is kept for it, and nothing is added.
    pool: Option<&'a Pool>,
    count: usize,
}

/// A binding that names addresses of a pool.
struct Naming<'a> {
    api: &'a ApiBinding,
    /// As with those who ask by number.
    pool: Option<&'a Pool>,
    named: &'a [IpAddr],
}

impl Naming<'_> {
    /// Addresses that it has already.
    fn standing(&self) -> impl Iterator<Item = IpAddr> {
        self.named.iter().copied().filter(|a| self.api.allocated.contains(a) && self.pool.is_none_or(|pool| pool.still_lends(*a)))
    }

    /// Addresses that it may have, and has not yet.
    fn not_had_yet(&self) -> impl Iterator<Item = IpAddr> {
        let may = |a: &IpAddr| !self.api.allocated.contains(a) && self.pool.is_some_and(|pool| pool.contains(*a));
        self.named.iter().copied().filter(may)
    }
}

impl Asking<'_> {
    fn order(&self) -> (u64, &str) {
        (self.api.binding.created, self.key)
    }

    /// Addresses that it has already, as many as it still asks for.
    fn standing(&self) -> impl Iterator<Item = IpAddr> {
        let lent = self.api.allocated.iter().copied().filter(|a| self.pool.is_none_or(|pool| pool.still_lends(*a)));
        lent.take(self.count)
    }

    /// Addresses of its pool that it had, as the record says.
    fn recorded(&self, record: &Record) -> impl Iterator<Item = IpAddr> {
        let had = self.pool.map_or(&[][..], |pool| record.of(&pool.name, self.key));
        had.iter().copied().filter(|address| self.pool.is_some_and(|pool| pool.contains(*address)))
    }
}

/// All claims on pools, those by number with the oldest binding first.
fn claims<'a>(lender: &'a Lender<'_>, bindings: impl Iterator<Item = (&'a String, &'a ApiBinding)>) -> (Vec<Asking<'a>>, Vec<Naming<'a>>) {
    let (mut asking, mut naming) = (Vec::new(), Vec::new());
    for (key, api) in bindings {
        // Also one that has errors: an invalid edit does not cost a binding its addresses.
        let Some(request) = &api.binding.pool else { continue };
        let pool = match lender.usable(&api.namespace, &request.pool) {
            Ok(pool) => Some(pool),
            Err(Reason::PoolInvalid { .. }) => None,
            Err(_) => continue,
        };
        match &request.wanted {
            Wanted::These(named) => naming.push(Naming { api, pool, named }),
            Wanted::Any(count) => asking.push(Asking { key, api, pool, count: *count }),
        }
    }
    asking.sort_by(|a, b| a.order().cmp(&b.order()));
    (asking, naming)
}

/// Who has which address for itself, as the bindings' statuses say.
pub fn holders<'a>(lender: &'a Lender<'_>, bindings: impl Iterator<Item = (&'a String, &'a ApiBinding)>) -> Holders {
    let (asking, naming) = claims(lender, bindings);
    keep(&asking, &naming).into_iter().flat_map(|(key, kept)| kept.into_iter().map(move |a| (a, key.to_owned()))).collect()
}

/// What each of those who ask by number keeps.
fn keep<'a>(asking: &[Asking<'a>], naming: &[Naming<'_>]) -> Vec<(&'a str, Vec<IpAddr>)> {
    // A binding that named an address and now asks by number does not take it from others who name it.
    let mut taken: BTreeSet<IpAddr> = naming.iter().flat_map(Naming::standing).collect();
    asking.iter().map(|one| (one.key, one.standing().filter(|address| taken.insert(*address)).collect())).collect()
}

/// Who gets which addresses, of all bindings that ask a pool for a number of them, by the bindings' keys. `record`: what was lent to bindings whose
/// status does not say so.
pub fn allocate<'a>(
    lender: &'a Lender<'_>,
    bindings: impl Iterator<Item = (&'a String, &'a ApiBinding)>,
    record: &Record,
) -> BTreeMap<String, Allocation> {
    let (asking, naming) = claims(lender, bindings);
    let mut kept = keep(&asking, &naming);
    let mut taken: BTreeSet<IpAddr> = kept.iter().flat_map(|(_, kept)| kept).copied().collect();
    taken.extend(naming.iter().flat_map(Naming::standing));
    for (one, (_, addresses)) in asking.iter().zip(&mut kept) {
        let more = one.count.saturating_sub(addresses.len());
        addresses.extend(one.recorded(record).filter(|address| taken.insert(*address)).take(more));
    }
    taken.extend(record.addresses(false));
    let released = record.addresses(true);
    // Since when each address is named by somebody who has it not yet.
    let mut named: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for one in &naming {
        for address in one.not_had_yet() {
            let since = named.entry(address).or_insert(u64::MAX);
            *since = one.api.binding.created.min(*since);
        }
    }
    let mut all = BTreeMap::new();
    for (one, (_, mut addresses)) in asking.iter().zip(kept) {
        let pool = || one.pool.iter().flat_map(|pool| &pool.blocks).flat_map(|block| block.addresses());
        // Rather one that nobody names, and of these one that nobody may come back for. Without such a one, whoever is older gets it.
        let unnamed = pool().filter(|a| !named.contains_key(a) && !released.contains(a));
        let again = released.iter().copied().filter(|a| !named.contains_key(a) && one.pool.is_some_and(|pool| pool.contains(*a)));
        let younger = pool().filter(|a| named.get(a).is_some_and(|since| one.api.binding.created < *since));
        let more = one.count.saturating_sub(addresses.len());
        addresses.extend(unnamed.chain(again).chain(younger).filter(|a| taken.insert(*a)).take(more));
        let missing = one.count.saturating_sub(addresses.len());
        all.insert(one.key.to_owned(), Allocation { addresses, missing });
    }
    all
}
