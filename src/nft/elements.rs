//! What is in a set.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Data, Key};

/// The elements of a set. Cheap to clone: two sets that were one share them until one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Elements(Arc<BTreeMap<Key, Data>>);

impl Elements {
    /// Whether they are known to be the same without being compared.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl Eq for Elements {}

impl Deref for Elements {
    type Target = BTreeMap<Key, Data>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Elements {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl FromIterator<(Key, Data)> for Elements {
    fn from_iter<I: IntoIterator<Item = (Key, Data)>>(elements: I) -> Self {
        Self(Arc::new(elements.into_iter().collect()))
    }
}
