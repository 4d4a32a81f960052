//! What a batch does to a ruleset.

use super::{Base, Chain, Data, Elements, Family, Key, Rule, Ruleset, Set, Table};

/// One change; a batch of them is applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes the table (with `owner` and `persist` when the kernel has them) or leaves it as it is.
    AddTable(Family),
    DeleteTable(Family),
    /// Makes the set, without its elements: those follow when the chains that they name are there.
    AddSet(Family, String, Set),
    DeleteSet(Family, String),
    AddChain(Family, String, Option<Base>),
    /// Empties a chain of its rules.
    FlushChain(Family, String),
    DeleteChain(Family, String),
    AddRule(Family, String, Rule),
    /// Elements go in before and out after the chains that they name.
    AddElements(Family, String, Vec<(Key, Data)>),
    DeleteElements(Family, String, Vec<Key>),
    /// Makes a flowtable. Only tables have one that are made and deleted as a whole, so no [`Ruleset`] knows of it.
    AddFlowtable(Family, String, Flowtable),
}

/// Where the packets of flows that a rule has added are forwarded as soon as they come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// Among what else looks at frames as a device gets them (`ingress` of the family netdev).
    pub priority: i32,
    /// Names of the devices. One that goes leaves it by itself.
    pub devices: Vec<String>,
}

impl Ruleset {
    /// Makes the changes of a batch that fits: what it names is there.
    pub fn apply(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.make(change));
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::AddTable(family) | Change::AddFlowtable(family, ..) => _ = self.table(*family),
            Change::DeleteTable(family) => _ = self.tables.remove(family),
            Change::AddSet(family, name, set) => {
                self.table(*family).sets.insert(name.clone(), Set { elements: Elements::default(), ..set.clone() });
            }
            Change::DeleteSet(family, name) => _ = self.table(*family).sets.remove(name),
            Change::AddChain(family, name, base) => {
                _ = self.table(*family).chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() })
            }
            Change::FlushChain(family, name) => self.table(*family).chains.entry(name.clone()).or_default().rules.clear(),
            Change::DeleteChain(family, name) => _ = self.table(*family).chains.remove(name),
            Change::AddRule(family, chain, rule) => self.table(*family).chains.entry(chain.clone()).or_default().rules.push(rule.clone()),
            Change::AddElements(family, set, elements) => {
                let set = self.table(*family).sets.get_mut(set).into_iter();
                set.for_each(|set| set.elements.extend(elements.iter().cloned()));
            }
            Change::DeleteElements(family, set, keys) => {
                let set = self.table(*family).sets.get_mut(set).into_iter();
                set.for_each(|set| keys.iter().for_each(|key| _ = set.elements.remove(key)));
            }
        }
    }

    fn table(&mut self, family: Family) -> &mut Table {
        self.tables.entry(family).or_default()
    }
}
