//! Families and changes in a reader's words, as logs and errors have them.

use std::fmt::{Display, Formatter, Result};

use super::{Change, Family};
use crate::contract::TABLE;

impl Family {
    /// In the order of [`Ord`].
    pub const ALL: [Self; 4] = [Self::Ip, Self::Ip6, Self::Bridge, Self::Inet];

    /// One of the ip families.
    pub fn ip(v6: bool) -> Self {
        if v6 { Self::Ip6 } else { Self::Ip }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        })
    }
}

/// A few words, however many elements there are.
impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::AddTable(family) => write!(f, "add table {family} {TABLE}"),
            Self::DeleteTable(family) => write!(f, "delete table {family} {TABLE}"),
            Self::AddSet(family, name, _) => write!(f, "add set {family} {name}"),
            Self::DeleteSet(family, name) => write!(f, "delete set {family} {name}"),
            Self::AddChain(family, name, _) => write!(f, "add chain {family} {name}"),
            Self::FlushChain(family, name) => write!(f, "flush chain {family} {name}"),
            Self::DeleteChain(family, name) => write!(f, "delete chain {family} {name}"),
            Self::AddRule(family, chain, rule) => {
                write!(f, "add rule {} to chain {family} {chain}", rule.tag)
            }
            Self::AddElements(family, set, elements) => {
                write!(f, "add {} elements to set {family} {set}", elements.len())
            }
            Self::DeleteElements(family, set, keys) => {
                write!(f, "delete {} elements of set {family} {set}", keys.len())
            }
            Self::AddFlowtable(family, name, flowtable) => {
                write!(f, "add flowtable {family} {name} of {} devices", flowtable.devices.len())
            }
        }
    }
}
