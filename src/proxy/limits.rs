//! File descriptors: as many as the process may have, and counted, so that a new connection is refused before an old one suffers. In a cluster no
//! namespace has all of them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// For what is not counted: epoll, inotify, manifests, metrics, and pipes of what is just being carried.
const RESERVE: usize = 256;

/// Bytes that a connection's descriptor goes with, with room for buffers: a connection has two.
const MEMORY: u64 = 8 * 1024;

/// Descriptors that may still be opened.
#[derive(Clone)]
pub struct Descriptors(Arc<Mutex<Open>>);

struct Open {
    free: usize,
    /// What namespaces of a cluster have of them.
    of: BTreeMap<String, usize>,
}

/// Some of them, given back when dropped.
pub struct Permit {
    all: Descriptors,
    count: usize,
    tenant: Option<String>,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Process,
    /// The namespace has as many as are left for all others.
    Tenant,
}

impl Descriptors {
    /// Raises the process's limit to the highest that it may have (`RLIMIT_NOFILE`), and counts from there, or from what its memory is enough for
    /// (`memory.max` of its control group).
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| {
            let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
            if raised.is_ok() { hard } else { soft }
        });
        let limit = limit.unwrap_or_else(|error| {
            warn!(%error, "failed to read the limit of file descriptors; assuming 1024");
            1024
        });
        // In a container its own control group is the root that it sees.
        let memory = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
        let limit = memory.map_or(limit, |memory| limit.min(memory / MEMORY));
        Self::new(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE))
    }

    fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Open { free: count, of: BTreeMap::new() })))
    }

    /// So many, if they are there. A `tenant` gets none beyond what is left for all others, so that nobody can take all.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn take(&self, tenant: Option<&str>, count: usize) -> Result<Permit, Full> {
        let mut open = self.lock();
        let left = open.free.checked_sub(count).ok_or(Full::Process)?;
        if let Some(tenant) = tenant {
            let has = open.of.get(tenant).copied().unwrap_or(0) + count;
            if has > left {
                return Err(Full::Tenant);
            }
            open.of.insert(tenant.to_owned(), has);
        }
        open.free = left;
        Ok(Permit { all: self.clone(), count, tenant: tenant.map(str::to_owned) })
    }

    /// How many are left.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.free += self.count;
        if let Some(tenant) = &self.tenant
            && let Some(has) = open.of.get_mut(tenant)
        {
            *has -= self.count;
            if *has == 0 {
                open.of.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let all = Descriptors::new(3);
        let two = all.take(None, 2).expect("there are three");
        assert_eq!(all.take(None, 2).err(), Some(Full::Process));
        let one = all.take(None, 1).expect("one is left");
        drop((two, one));
        assert_eq!(all.free(), 3);
    }

    #[test]
    fn no_tenant_takes_what_is_left_for_all_others() {
        let all = Descriptors::new(100);
        let take = |tenant| all.take(Some(tenant), 2);
        let greedy: Vec<Permit> = std::iter::from_fn(|| take("evil").ok()).collect();
        assert_eq!((greedy.len(), all.free(), take("evil").err()), (25, 50, Some(Full::Tenant)));
        let next: Vec<Permit> = std::iter::from_fn(|| take("shop").ok()).collect();
        assert_eq!((next.len(), all.free()), (12, 26), "the next one has half of the rest");
        drop(greedy);
        assert!(take("shop").is_ok() && take("evil").is_ok());
        drop(next);
        assert_eq!((all.free(), all.lock().of.len()), (100, 0));
    }
}
