//! The objects of one kind as they were last reported, so that only changes are: most updates are somebody's status, or who wrote which field.

use std::collections::BTreeMap;

use crate::model::cluster::Update;

/// An object by its key: what was read of it, or why it cannot be read.
pub type Entry<T> = (String, Result<T, String>);

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<T> {
    Update(Update<T>),
    /// The object with this key cannot be read; `None` once it can, or is gone.
    Trouble {
        key: String,
        problem: Option<String>,
    },
}

/// Each object as it was last reported.
#[derive(Debug)]
pub struct ObjectStore<T> {
    told: BTreeMap<String, Remembered<T>>,
    listed: bool,
}

/// An object that turned unreadable keeps the value that it had: what it bound does not become somebody's masquerade.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered<T> {
    value: Option<T>,
    problem: Option<String>,
}

impl<T> Default for ObjectStore<T> {
    fn default() -> Self {
        Self { told: BTreeMap::new(), listed: false }
    }
}

impl<T: Clone + PartialEq> ObjectStore<T> {
    /// All objects that there are. Nothing is said when that is known, but for the first time.
    pub fn all(&mut self, entries: Vec<Entry<T>>) -> Vec<Said<T>> {
        let mut before = std::mem::take(&mut self.told);
        let mut said = Vec::new();
        let mut news = !std::mem::replace(&mut self.listed, true);
        for (key, read) in entries {
            let old = before.remove(&key);
            let new = Remembered::new(old.as_ref(), read);
            news |= old.as_ref().and_then(|old| old.value.as_ref()) != new.value.as_ref();
            trouble(&mut said, &key, old.as_ref(), Some(&new));
            self.told.insert(key, new);
        }
        for (key, old) in &before {
            news |= old.value.is_some();
            trouble(&mut said, key, Some(old), None);
        }
        if news {
            said.push(Said::Update(Update::All(self.told.values().filter_map(|told| told.value.clone()).collect())));
        }
        said
    }

    /// An object that is new or was written to.
    pub fn one(&mut self, (key, read): Entry<T>) -> Vec<Said<T>> {
        let old = self.told.get(&key);
        let new = Remembered::new(old, read);
        let mut said = Vec::new();
        trouble(&mut said, &key, old, Some(&new));
        if let Some(value) = &new.value
            && old.and_then(|old| old.value.as_ref()) != Some(value)
        {
            said.push(Said::Update(Update::One(value.clone())));
        }
        self.told.insert(key, new);
        said
    }

    /// An object that is no more.
    pub fn gone(&mut self, key: &str) -> Vec<Said<T>> {
        let Some(old) = self.told.remove(key) else { return Vec::new() };
        let mut said = Vec::new();
        trouble(&mut said, key, Some(&old), None);
        if old.value.is_some() {
            said.push(Said::Update(Update::Gone(key.to_owned())));
        }
        said
    }
}

impl<T: Clone> Remembered<T> {
    fn new(old: Option<&Self>, read: Result<T, String>) -> Self {
        match read {
            Ok(value) => Self { value: Some(value), problem: None },
            Err(problem) => Self { value: old.and_then(|old| old.value.clone()), problem: Some(problem) },
        }
    }
}

fn trouble<T>(said: &mut Vec<Said<T>>, key: &str, old: Option<&Remembered<T>>, new: Option<&Remembered<T>>) {
    let problem = |told: Option<&Remembered<T>>| told.and_then(|told| told.problem.clone());
    if problem(old) != problem(new) {
        said.push(Said::Trouble { key: key.to_owned(), problem: problem(new) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(key: &str, value: u8) -> Entry<u8> {
        (key.to_owned(), Ok(value))
    }

    fn bad(key: &str) -> Entry<u8> {
        (key.to_owned(), Err("is odd".to_owned()))
    }

    fn trouble(key: &str, problem: Option<&str>) -> Said<u8> {
        Said::Trouble { key: key.to_owned(), problem: problem.map(str::to_owned) }
    }

    fn all(values: &[u8]) -> Said<u8> {
        Said::Update(Update::All(values.to_vec()))
    }

    #[test]
    fn the_first_list_is_told_even_when_it_is_empty_and_the_same_again_is_not() {
        let mut store = ObjectStore::default();
        assert_eq!(store.all(vec![]), [all(&[])]);
        assert_eq!(store.all(vec![]), []);
        assert_eq!(store.all(vec![good("a", 1)]), [all(&[1])]);
        assert_eq!(store.all(vec![good("a", 1)]), []);
        assert_eq!(store.all(vec![good("a", 2)]), [all(&[2])]);
        assert_eq!(store.all(vec![]), [all(&[])]);
    }

    #[test]
    fn an_update_that_changes_nothing_that_is_read_is_not_told() {
        let mut store = ObjectStore::default();
        store.all(vec![good("a", 1)]);
        assert_eq!(store.one(good("a", 1)), []);
        assert_eq!(store.one(good("a", 2)), [Said::Update(Update::One(2))]);
        assert_eq!(store.gone("a"), [Said::Update(Update::Gone("a".to_owned()))]);
        assert_eq!(store.gone("a"), []);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_a_trouble_of_its_own_and_the_others_are_told() {
        let mut store = ObjectStore::default();
        assert_eq!(store.all(vec![good("a", 1), bad("b")]), [trouble("b", Some("is odd")), all(&[1])]);
        assert_eq!(store.one(bad("b")), []);
        assert_eq!(store.one(good("b", 2)), [trouble("b", None), Said::Update(Update::One(2))]);
        assert_eq!(store.one(bad("c")), [trouble("c", Some("is odd"))]);
        assert_eq!(store.gone("c"), [trouble("c", None)]);
        store.one(bad("d"));
        assert_eq!(store.all(vec![good("a", 1), good("b", 2)]), [trouble("d", None)]);
    }

    #[test]
    fn an_object_that_turns_unreadable_stays_as_it_was_until_it_is_gone() {
        let mut store = ObjectStore::default();
        store.all(vec![good("a", 1)]);
        assert_eq!(store.one(bad("a")), [trouble("a", Some("is odd"))]);
        assert_eq!(store.all(vec![bad("a"), good("b", 2)]), [all(&[1, 2])]);
        assert_eq!(store.gone("a"), [trouble("a", None), Said::Update(Update::Gone("a".to_owned()))]);
    }
}
