//! What of an engine's answers could not be read or had, by what it is about.

use std::collections::{BTreeMap, HashMap};

use crate::facts::docker::wire::Broken;
use crate::model::facts::EngineChange;

#[derive(Clone, Default)]
pub struct Problems {
    /// The problem of each object.
    all: BTreeMap<String, String>,
    /// The object of an entry that cannot be read, by the entry's id.
    unread: HashMap<String, String>,
}

impl Problems {
    /// How to tell them, when they are others than before.
    pub fn unless(&self, before: &Self) -> Option<EngineChange> {
        (self.all != before.all).then(|| EngineChange::Problems(self.all.clone()))
    }

    /// Entries of a list that cannot be read.
    pub fn note(&mut self, kind: &str, broken: &[Broken]) {
        for Broken { id, name, error } in broken {
            let object = format!("{kind} {name}");
            self.all.insert(object.clone(), format!("failed to read what the engine says of it: {error}"));
            self.unread.insert(id.clone(), object);
        }
    }

    /// An entry can be read again, or is gone.
    pub fn forgive(&mut self, id: &str) {
        if let Some(object) = self.unread.remove(id) {
            self.all.remove(&object);
        }
    }

    /// What came of asking a network for its containers.
    pub fn network(&mut self, name: &str, failure: Option<String>) {
        let object = format!("network {name}");
        match failure {
            Some(failure) => _ = self.all.insert(object, format!("failed to ask for its containers: {failure}")),
            None => _ = self.all.remove(&object),
        }
    }
}
