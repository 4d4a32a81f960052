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
}

impl Wanted {
    /// Of the files of a host.
    pub fn of_files(said: Manifests) -> Self {
        let errors = said.errors.into_iter().filter(|error| !OTHERS.iter().any(|kind| error.object.starts_with(kind)));
        let named = |object: &str| object.strip_prefix("EgressPool ").map(str::to_owned);
        Self {
            pools: said.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            errors: errors.map(|error| (named(&error.object), format!("{}: {}", error.object, error.error))).collect(),
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

/// Takes what is wanted now, and returns what is wrong. A pool that is wrong now stays as it was, and from one that is gone nothing is taken away.
pub fn take(wanted: Wanted, pools: &mut BTreeMap<String, Pool>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut wrong = BTreeSet::new();
    for (pool, mut message) in wanted.errors {
        if let Some(pool) = pool.filter(|name| pools.values().any(|known| known.pool.name == *name)) {
            wrong.insert(pool);
            message += " (its last valid version stays in force)";
        }
        errors.push(message);
    }
    let names: BTreeSet<&str> = wanted.pools.iter().map(|(name, _)| name.as_str()).collect();
    pools.retain(|name, known| {
        let stays = names.contains(name.as_str()) || wrong.contains(&known.pool.name);
        if !stays {
            info!(pool = name, "the pool is gone; its resources in the cloud stay until `egressd-cloud release`");
        }
        stays
    });
    for (name, pool) in wanted.pools {
        match pools.get_mut(&name) {
            Some(known) if known.pool == pool => {}
            Some(known) => (known.pool, known.due, known.over) = (pool, Instant::now(), false),
            None => {
                let report = PoolReport::default();
                pools.insert(name, Pool { pool, failures: Failures::default(), report, due: Instant::now(), over: false });
            }
        }
    }
    errors
}

/// The manifests of a folder, as they change.
///
/// # Errors
/// When the folder cannot be watched.
pub fn watch(folder: &Path) -> anyhow::Result<files::Source> {
    files::Source::new(folder, Path::new(""), None).with_context(|| format!("failed to read manifests of {}", folder.display()))
}
