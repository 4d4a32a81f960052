//! Servers whose answers are led back through this host by a rule in their network namespaces, where egressd makes and keeps it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ports::Protocol;

/// A port of a server in a network namespace behind a link of this host, and where its answers are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteBack {
    /// The number that the namespace has here.
    pub nsid: i32,
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    /// This host's address beside it.
    pub via: IpAddr,
}

/// What became of each: why there is no rule, if so.
pub type RoutedBack = BTreeMap<RouteBack, Result<(), String>>;
