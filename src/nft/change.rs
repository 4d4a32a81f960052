//! What a batch does to a ruleset.

use super::{Base, Chain, Data, Elements, Family, Key, Rule, Ruleset, Set};

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
}

impl Ruleset {
    /// Makes the changes of a batch that fits: what it names is there.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let (Change::AddTable(family)
            | Change::DeleteTable(family)
            | Change::AddSet(family, ..)
            | Change::DeleteSet(family, _)
            | Change::AddChain(family, ..)
            | Change::FlushChain(family, _)
            | Change::DeleteChain(family, _)
            | Change::AddRule(family, ..)
            | Change::AddElements(family, ..)
            | Change::DeleteElements(family, ..)) = change;
            if let Change::DeleteTable(_) = change {
                self.tables.remove(family);
                continue;
            }
            let table = self.tables.entry(*family).or_default();
            match change {
                Change::AddTable(_) | Change::DeleteTable(_) => {}
                Change::AddSet(_, name, set) => _ = table.sets.insert(name.clone(), Set { elements: Elements::default(), ..set.clone() }),
                Change::DeleteSet(_, name) => _ = table.sets.remove(name),
                Change::AddChain(_, name, base) => _ = table.chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() }),
                Change::FlushChain(_, name) => table.chains.entry(name.clone()).or_default().rules.clear(),
                Change::DeleteChain(_, name) => _ = table.chains.remove(name),
                Change::AddRule(_, chain, rule) => table.chains.entry(chain.clone()).or_default().rules.push(rule.clone()),
                Change::AddElements(_, set, elements) => {
                    let Some(set) = table.sets.get_mut(set) else { continue };
                    elements.iter().for_each(|(key, data)| _ = set.elements.insert(*key, data.clone()));
                }
                Change::DeleteElements(_, set, keys) => {
                    let Some(set) = table.sets.get_mut(set) else { continue };
                    keys.iter().for_each(|key| _ = set.elements.remove(key));
                }
            }
        }
    }
}
