//! Steps that change the kernel, as plain data.

use crate::model::facts::{IfIndex, Route, Rule};

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
