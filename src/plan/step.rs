//! Steps that change the kernel, as plain data.

use std::fmt;

use crate::model::facts::{IfIndex, Route, RouteKind, Rule};

/// A change of routes, policy rules or links. Each says how things shall be: doing it twice is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteStep {
    /// Takes the place of the route with the same table, destination and metric, if there is one, in one go; so no
    /// [`RouteStep::DeleteRoute`] for that one may follow (IPv6 would delete the new one: it tells routes apart by
    /// gateway, interface and metric only).
    AddRoute(Route),
    DeleteRoute(Route),
    AddRule(Rule),
    DeleteRule(Rule),
    /// Puts a link into a group (`suppress_ifgroup` of policy rules looks at it).
    SetGroup {
        index: IfIndex,
        group: u32,
    },
}

/// In `ip`'s words.
impl fmt::Display for RouteStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRoute(route) => write!(f, "ip route replace {}", Words(route)),
            Self::DeleteRoute(route) => write!(f, "ip route delete {}", Words(route)),
            Self::AddRule(rule) => write!(f, "ip rule add {}", Words(rule)),
            Self::DeleteRule(rule) => write!(f, "ip rule delete {}", Words(rule)),
            Self::SetGroup { index, group } => write!(f, "ip link set (interface {index}) group {group}"),
        }
    }
}

/// A route or rule as an argument to `ip`.
struct Words<'a, T>(&'a T);

impl fmt::Display for Words<'_, Route> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.0;
        if route.kind == RouteKind::Unreachable {
            write!(f, "unreachable ")?;
        }
        write!(f, "{}", route.destination)?;
        if let Some(gateway) = route.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(interface) = route.interface {
            write!(f, " dev (interface {interface})")?;
        }
        if route.onlink {
            write!(f, " onlink")?;
        }
        write!(f, " table {} metric {}", route.table, route.metric)
    }
}

impl fmt::Display for Words<'_, Rule> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "preference {}", rule.preference)?;
        if let Some(from) = rule.from {
            write!(f, " from {from}")?;
        }
        if let (Some(mark), Some(mask)) = (rule.mark, rule.mask) {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", rule.table)?;
        if let Some(length) = rule.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        rule.suppress_group.map_or(Ok(()), |group| write!(f, " suppress_ifgroup {group}"))
    }
}
