//! Questions of which one at most is on its way for each thing that is asked about, so that no answer is older than the event that asked for it.

use std::collections::HashMap;
use std::hash::Hash;

/// What is being asked about, and whether it has to be asked about once more.
#[derive(Debug)]
pub struct Pending<K>(HashMap<K, bool>);

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Pending<K> {
    /// Whether the question is to be put now. While one is on its way it is put once more after the answer.
    pub fn begin(&mut self, key: &K) -> bool {
        let is_first = !self.again(key);
        if is_first {
            self.0.insert(key.clone(), false);
        }
        is_first
    }

    /// The answer to a question that is on its way will be too old; whether there is one.
    pub fn again(&mut self, key: &K) -> bool {
        self.0.get_mut(key).map(|again| *again = true).is_some()
    }

    /// The answer is there; whether it is too old, and the question is to be put once more.
    pub fn end(&mut self, key: &K) -> bool {
        self.0.remove(key) == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_is_on_its_way_and_one_more_follows_it() {
        let mut pending = Pending::default();
        assert!(!pending.again(&1), "nothing is on its way");
        assert!(pending.begin(&1) && pending.begin(&2));
        assert!(!pending.begin(&1) && !pending.begin(&1));
        assert!(pending.end(&1) && !pending.end(&2));
        assert!(pending.begin(&1) && pending.again(&1));
        assert!(pending.end(&1) && !pending.end(&1));
    }
}
