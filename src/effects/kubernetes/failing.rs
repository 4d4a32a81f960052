//! Which writes failed when they were last tried: each failure is said once, and counts until its object is written, or needs no write any more.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::write_queue::{Key, WriteResult};
use crate::report::fold::{RECORD, Writes};

#[derive(Debug, Default)]
pub struct Failing {
    objects: BTreeMap<Key, String>,
    /// An Event is not tried again, so it counts for nothing; the last one's failure is not said twice.
    event: Option<String>,
    unrecorded: usize,
}

impl Failing {
    /// Takes note of the result of a write.
    pub fn note(&mut self, key: Key, outcome: &WriteResult) {
        let failure = outcome.as_ref().err().map(ToString::to_string);
        if let Key::Event(_) = key {
            if let Some(error) = failure.filter(|error| self.event.as_ref() != Some(error)) {
                warn!(error, "failed to publish an Event");
                self.event = Some(error);
            }
            return;
        }
        match failure {
            Some(error) => {
                if self.objects.get(&key) != Some(&error) {
                    warn!(object = ?key, error, "failed to write an object; retrying");
                }
                self.objects.insert(key, error);
            }
            None => drop(self.objects.remove(&key)),
        }
    }

    /// Forgets what is not to be written any more. `due`: all that is, as it was just decided.
    pub fn look(&mut self, due: &Writes) {
        if due.unrecorded > self.unrecorded {
            let bindings = due.unrecorded;
            warn!(bindings, "the ConfigMap {RECORD} has no room for all allocations: those of the namespaces with the most are left out");
        }
        self.unrecorded = due.unrecorded;
        let bindings = due.bindings.iter().map(|write| &write.of.uid);
        let uids: BTreeSet<&String> = bindings.chain(due.pools.iter().map(|write| &write.of.uid)).collect();
        self.objects.retain(|key, _| match key {
            Key::Object(uid) => uids.contains(uid),
            Key::Inside => due.inside.is_some(),
            Key::Record => due.record.is_some(),
            Key::Event(_) => false,
        });
    }

    /// How many objects there are that could not be written.
    pub fn count(&self) -> usize {
        self.objects.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Error;
    use super::*;
    use crate::api::pool::EgressPoolStatus;
    use crate::report::fold::{PoolWrite, Precondition};

    fn failed() -> WriteResult {
        Err(Error::of("patch", "egresspools.egressd.dev", kube::Error::TlsRequired))
    }

    #[test]
    fn a_failure_counts_until_its_object_is_written_or_needs_no_write() {
        let mut failing = Failing::default();
        let object = || Key::Object("1".to_owned());
        let of = Precondition { uid: "1".to_owned(), version: None };
        let write = PoolWrite { name: "public".to_owned(), of, status: EgressPoolStatus::default() };
        let due = Writes { pools: vec![write], ..Writes::default() };
        for written in [true, false] {
            for key in [object(), Key::Record, Key::Event(7)] {
                failing.note(key, &failed());
            }
            assert_eq!(failing.count(), 2, "an Event is not tried again");
            failing.look(&due);
            assert_eq!(failing.count(), 1, "the record is as it is to be");
            failing.look(&due);
            if written {
                failing.note(object(), &Ok(None));
            } else {
                failing.look(&Writes::default());
            }
            assert_eq!(failing.count(), 0);
        }
    }
}
