//! What a batch does to a ruleset.

use super::{Base, Data, Family, Key, Rule, Set};

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
