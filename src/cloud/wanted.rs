//! What pools ask for just now, wherever they were read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use egressd::facts::files;
use egressd::model::cloud::CloudPool;
use egressd::model::manifests::Manifests;
use tracing::info;

use crate::keeper::Failures;
use crate::model::release::Kept;
use crate::model::report::PoolReport;

/// Objects whose errors the agent tells.
const OTHERS: [&str; 3] = ["EgressBinding ", "EgressNetwork ", "EgressProxy "];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By what each is called: a pool's name, and in a cluster its node's behind it.
    pub pools: Vec<(String, Arc<CloudPool>)>,
    /// What is wrong, with the pool's name if it has one.
    pub errors: Vec<(Option<String>, String)>,
    /// What the cluster's status says of each, by whoever looked after it before; `None`: of files.
    pub told: Option<BTreeMap<String, PoolReport>>,
}

impl Wanted {
    /// Of the files of a host.
    pub fn of_files(said: Manifests) -> Self {
        let errors = said.errors.into_iter().filter(|error| !OTHERS.iter().any(|kind| error.object.starts_with(kind)));
        let named = |object: &str| object.strip_prefix("EgressPool ").map(str::to_owned);
        Self {
            pools: said.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            errors: errors.map(|error| (named(&error.object), format!("{}: {}", error.object, error.error))).collect(),
            told: None,
        }
    }
}

/// One pool, or one node's part of it, and what is known of it.
pub struct Pool {
    pub pool: Arc<CloudPool>,
    pub failures: Failures,
    pub report: PoolReport,
    pub due: Instant,
    pub over: bool,
}

/// What is looked after, and what is known besides: what the cloud has shown holds until it shows something else.
#[derive(Default)]
pub struct Pools {
    pub known: BTreeMap<String, Pool>,
    /// Of pools that were looked after by the process before, and that cannot be read since.
    pub carried: BTreeMap<String, PoolReport>,
    /// Of pools whose manifests are gone: they may come back while the cloud is away.
    gone: BTreeMap<String, PoolReport>,
}

impl Pools {
    /// `before`: what the process before has told.
    pub fn new(before: BTreeMap<String, PoolReport>) -> Self {
        Self { carried: before, ..Self::default() }
    }

    /// All that is known, by pool.
    pub fn reports(&self) -> BTreeMap<String, PoolReport> {
        let known = self.known.iter().map(|(name, pool)| (name.clone(), pool.report.clone()));
        self.carried.clone().into_iter().chain(known).collect()
    }

    /// What is asked for at the network interface of one of them. As long as it is not known whether another one has the same, it may.
    pub fn kept(&self, name: &str) -> Kept {
        let Some(pool) = self.known.get(name) else { return Kept::default() };
        let nic = &pool.report.network_interface;
        let may_share = |other: &&Pool| [nic, &other.report.network_interface].contains(&&None) || other.report.network_interface == *nic;
        let others = self.known.iter().filter(|(other, _)| *other != name).map(|(_, other)| other).filter(may_share);
        let mut kept = Kept::of(&pool.pool, others.map(|other| &*other.pool));
        kept.pools.extend(self.known.values().map(|known| known.pool.name.clone()));
        kept
    }

    /// Takes what is wanted now, and returns what is wrong. A pool that is wrong now stays as it was, and from one that is gone nothing is taken away.
    pub fn take(&mut self, wanted: Wanted) -> Vec<String> {
        let mut errors = Vec::new();
        let mut wrong = BTreeSet::new();
        // It may be about any pool.
        let nameless = wanted.errors.iter().any(|(pool, _)| pool.is_none());
        for (pool, mut message) in wanted.errors {
            if let Some(pool) = pool {
                if self.known.values().any(|known| known.pool.name == pool) {
                    message += " (its last valid version stays in force)";
                }
                wrong.insert(pool);
            }
            errors.push(message);
        }
        let names: BTreeSet<&str> = wanted.pools.iter().map(|(name, _)| name.as_str()).collect();
        let stays = |name: &str, known: &Pool| names.contains(name) || wrong.contains(&known.pool.name);
        for (name, pool) in self.known.extract_if(.., |name, known| !stays(name, known)) {
            info!(pool = name, "the pool is gone; its resources in the cloud stay until `egressd-cloud release`");
            if wanted.told.is_none() {
                self.gone.insert(name, pool.report);
            }
        }
        let told = wanted.told.unwrap_or_default();
        for (name, pool) in wanted.pools {
            match self.known.get_mut(&name) {
                Some(known) if known.pool == pool => {}
                Some(known) => (known.pool, known.due, known.over) = (pool, Instant::now(), false),
                None => {
                    let before = [self.carried.remove(&name), self.gone.remove(&name), told.get(&name).cloned()];
                    let report = before.into_iter().flatten().next().unwrap_or_default();
                    self.known.insert(name, Pool { pool, failures: Failures::default(), report, due: Instant::now(), over: false });
                }
            }
        }
        let over = self.carried.extract_if(.., |name, _| !nameless && !wrong.contains(name));
        self.gone.extend(over);
        errors
    }
}

/// The manifests of a folder, as they change.
///
/// # Errors
/// When the folder cannot be watched.
pub fn watch(folder: &Path) -> anyhow::Result<files::Source> {
    files::Source::new(folder, Path::new(""), None).with_context(|| format!("failed to read manifests of {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use egressd::model::cloud::{Aws, Interface};

    use super::*;
    use crate::model::report::AddressReport;

    const EXIT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 94);

    fn ready() -> PoolReport {
        let address = AddressReport { ready: true, ..AddressReport::default() };
        PoolReport { addresses: BTreeMap::from([(EXIT, address)]), ..PoolReport::default() }
    }

    fn asked(pools: &[&str]) -> Wanted {
        let aws = Aws { region: None, interface: Interface::InSubnet, elastic: None, forwards: false, route_tables: Vec::new() };
        let pool = |name: &&str| {
            let pool = CloudPool { name: (*name).to_owned(), addresses: vec![EXIT], aws: aws.clone(), host: None };
            ((*name).to_owned(), Arc::new(pool))
        };
        Wanted { pools: pools.iter().map(pool).collect(), ..Wanted::default() }
    }

    fn wrong(pool: Option<&str>) -> Wanted {
        Wanted { errors: vec![(pool.map(str::to_owned), "it is wrong".to_owned())], ..Wanted::default() }
    }

    #[test]
    fn what_the_process_before_has_told_holds_until_the_cloud_is_read() {
        let mut pools = Pools::new(BTreeMap::from([("web".to_owned(), ready())]));
        pools.take(asked(&["web", "other"]));
        assert_eq!(pools.reports(), BTreeMap::from([("web".to_owned(), ready()), ("other".to_owned(), PoolReport::default())]));
        pools.take(asked(&["other"]));
        assert!(!pools.reports().contains_key("web"), "it is not asked for");
        pools.take(asked(&["web"]));
        assert_eq!(pools.reports(), BTreeMap::from([("web".to_owned(), ready())]), "it is back");
    }

    #[test]
    fn of_a_pool_that_cannot_be_read_at_the_start_holds_what_was_known() {
        for (name, holds) in [(Some("web"), true), (None, true), (Some("other"), false)] {
            let mut pools = Pools::new(BTreeMap::from([("web".to_owned(), ready())]));
            assert_eq!(pools.take(wrong(name)), ["it is wrong"]);
            assert_eq!(pools.reports().contains_key("web"), holds, "{name:?}");
            pools.take(asked(&["web"]));
            assert_eq!(pools.reports()["web"], ready(), "it is corrected");
        }
    }

    #[test]
    fn in_a_cluster_it_is_the_status_that_says_what_was_known() {
        let mut pools = Pools::default();
        let told = |report| Some(BTreeMap::from([("web".to_owned(), report)]));
        pools.take(Wanted { told: told(ready()), ..asked(&["web"]) });
        assert_eq!(pools.reports()["web"], ready());
        pools.take(Wanted { told: told(PoolReport::default()), ..asked(&[]) });
        pools.take(Wanted { told: told(PoolReport::default()), ..asked(&["web"]) });
        assert_eq!(pools.reports()["web"], PoolReport::default(), "another leader has looked meanwhile");
    }
}
