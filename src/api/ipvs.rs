//! What of `spec.inbound` is for IPVS: the engine, its schedulers, persistence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ipvs as model;

/// What brings calls to the workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Engine {
    #[default]
    Nftables,
    Ipvs,
}

/// The kernel's schedulers, as `ipvsadm -s` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Sed,
    Nq,
    Fo,
    Ovf,
    Mh,
    Twos,
}

impl From<Scheduler> for model::Scheduler {
    fn from(scheduler: Scheduler) -> Self {
        match scheduler {
            Scheduler::Rr => Self::Rr,
            Scheduler::Wrr => Self::Wrr,
            Scheduler::Lc => Self::Lc,
            Scheduler::Wlc => Self::Wlc,
            Scheduler::Lblc => Self::Lblc,
            Scheduler::Lblcr => Self::Lblcr,
            Scheduler::Dh => Self::Dh,
            Scheduler::Sh => Self::Sh,
            Scheduler::Sed => Self::Sed,
            Scheduler::Nq => Self::Nq,
            Scheduler::Fo => Self::Fo,
            Scheduler::Ovf => Self::Ovf,
            Scheduler::Mh => Self::Mh,
            Scheduler::Twos => Self::Twos,
        }
    }
}

/// A client gets the server of its last connection.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Seconds that a client is remembered after its last connection began; it is remembered as long as one is open.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub seconds: i32,
    /// Clients whose IPv4 addresses agree in this many bits count as one.
    #[serde(default = "ipv4_prefix_length")]
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix_length: i32,
    /// The same for IPv6 addresses.
    #[serde(default = "ipv6_prefix_length")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix_length: i32,
}

fn ipv4_prefix_length() -> i32 {
    32
}

fn ipv6_prefix_length() -> i32 {
    128
}
