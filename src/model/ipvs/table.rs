//! Virtual services and their servers, as the kernel has them or should have them.

use std::collections::BTreeMap;

use super::Thresholds;
use crate::model::ports::Called;
use crate::model::services::Endpoint;

/// All virtual services that are known by protocol, address and port. (Those of firewall marks are never ours.)
pub type Table = BTreeMap<Called, Virtual>;

/// A virtual service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Virtual {
    pub settings: Settings,
    pub servers: BTreeMap<Endpoint, RealServer>,
}

/// How a virtual service shares its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The kernel's name of it.
    pub scheduler: String,
    pub persistence: Option<Persistent>,
    /// Other flags (`IP_VS_SVC_F_*`): of schedulers, or one packet is one connection. None of ours has any.
    pub flags: u32,
}

/// A client comes to the server of its last connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistent {
    pub seconds: u32,
    /// Clients that agree in so many bits are one.
    pub prefix_length: u8,
}

/// A server of a virtual service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealServer {
    pub forwarding: Forwarding,
    /// With 0 it gets no new connection, and goes on with those that it has.
    pub weight: u32,
    pub thresholds: Thresholds,
    /// Connections that it has, those that are ending, too. Nobody wishes for a number.
    pub connections: u32,
}

impl RealServer {
    /// Whether they are set alike, whatever goes on.
    pub fn is_set_as(&self, other: &Self) -> bool {
        Self { connections: 0, ..*self } == Self { connections: 0, ..*other }
    }
}

/// How packets come to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// By NAT (`ipvsadm -m`): the only one that ours have.
    #[default]
    Nat,
    Other,
}
