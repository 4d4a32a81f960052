//! The record of what pools lend, which stands beside the bindings: their status is lost where they come back from a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Which binding (`namespace/name`) has, or had, which addresses of which pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<(String, String), Entry>);

/// What a binding has, or had, of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub addresses: Vec<IpAddr>,
    /// It has let go of them: it gets them back rather than others, and others get them when there is nothing else.
    pub released: bool,
}

impl Record {
    /// Enters what a binding has of a pool, in place of what stands there.
    pub fn enter(&mut self, pool: &str, binding: &str, entry: Entry) {
        self.0.insert((pool.to_owned(), binding.to_owned()), entry);
    }

    /// What a binding had of a pool.
    pub fn of(&self, pool: &str, binding: &str) -> &[IpAddr] {
        self.0.get(&(pool.to_owned(), binding.to_owned())).map_or(&[], |entry| &entry.addresses)
    }

    /// Pool, binding, and what it has of it: in the order of names.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.0.iter().map(|((pool, binding), entry)| (pool.as_str(), binding.as_str(), entry))
    }

    /// Addresses of bindings that have let go of them, or that have not.
    pub(super) fn addresses(&self, released: bool) -> BTreeSet<IpAddr> {
        self.0.values().filter(|entry| entry.released == released).flat_map(|entry| &entry.addresses).copied().collect()
    }
}
