//! `spec.exits`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::binding;

/// One way out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.address) || has(self.addresses) || has(self.interface)",
        "message": "give an address, for instance address: 172.31.0.14, or an interface whose own address it is"
    },
    {
        "rule": "!has(self.address) || !has(self.addresses)",
        "message": "address is one, addresses is a range or a subnet of them: give one of both"
    },
    {
        "rule": "!has(self.address) || isIP(self.address)",
        "fieldPath": ".address",
        "message": "write the address alone, for instance 172.31.0.14"
    },
    {
        "rule": "!has(self.gateway) || isIP(self.gateway)",
        "fieldPath": ".gateway",
        "message": "write the next hop's address alone, for instance 172.31.0.1"
    },
    {
        "rule": "!has(self.gateway) || !isIP(self.gateway) || !has(self.address) || !isIP(self.address) || ip(self.gateway).family() == ip(self.address).family()",
        "fieldPath": ".gateway",
        "message": "the gateway has to be of the address's family"
    },
    {
        "rule": "!has(self.publicAddress) || isIP(self.publicAddress)",
        "fieldPath": ".publicAddress",
        "message": "write the address alone, for instance 109.25.48.65"
    },
    {
        "rule": "!has(self.publicAddress) || !has(self.addresses)",
        "fieldPath": ".publicAddress",
        "message": "each address has its own: write an exit for each of them"
    }
]))]
pub struct Exit {
    /// Source address that packets leave with; the private side of an elastic IP, for instance `172.31.0.14`. When only the interface is given:
    /// the interface's own address, whatever it is at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address: Option<String>,
    /// Several source addresses: a range, `10.0.1.64-10.0.1.95`, or a subnet, `10.0.1.64/27`. Those that no NIC has are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub addresses: Option<String>,
    /// NIC; the one that has the address when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Next hop; when not given, that of the NIC's default route, else the router of another NIC in the same subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub gateway: Option<String>,
    /// Its share of the new flows if they are spread, each address by itself; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// It takes no new flows; open ones continue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The source ports that its flows leave with, of TCP, UDP and SCTP, for instance `40000-49999`: that many flows at a time can go to one
    /// destination. From 1024 on when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 11))]
    pub source_ports: Option<String>,
    /// Who puts the address where it is. `Existing`: somebody else, it is on a NIC. `Managed`: egressd adds it to its NIC (`interface`, else the one
    /// with its subnet) unless a neighbour has it, keeps it there, and removes it when no binding asks for it any more. `Routed`: it is on no NIC, the
    /// network routes it to this host; it leaves through `interface`, else through the default route. `Managed` and `Routed`
    /// in files only: in a cluster they are a pool's (`assignment` of an EgressPool).
    #[serde(default, skip_serializing_if = "Assignment::is_existing")]
    pub assignment: Assignment,
    /// A destination that the exit has to reach: while it does not answer, the exit takes no new flow. Not for an exit that is `Routed`, on no NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ExitProbe>,
    /// The address that the outside sees, if something beyond the host translates it: an elastic IP. Shown in status, and not used otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub public_address: Option<String>,
}

/// A TCP connection that is opened from the exit again and again, and reset.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitProbe {
    /// Address and port, for instance `198.51.100.10:443`.
    #[schemars(length(min = 1, max = 64))]
    pub tcp: String,
    /// Milliseconds from one probe to the next, up to a tenth more; an answer that takes as long is a failure.
    #[serde(default = "interval")]
    #[schemars(range(min = 100, max = 3_600_000))]
    pub interval_milliseconds: i32,
    /// After this many failures in a row the exit is not used, and after as many successes it is used again. It is used from the start, until then.
    #[serde(default = "failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: i32,
}

fn interval() -> i32 {
    1000
}

fn failures() -> i32 {
    3
}

/// Who puts an exit's address where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Assignment {
    #[default]
    Existing,
    Managed,
    Routed,
}

impl Assignment {
    /// Not said, or said to be as usual.
    pub(super) fn is_existing(&self) -> bool {
        *self == Self::Existing
    }
}

impl From<Assignment> for binding::Assignment {
    fn from(assignment: Assignment) -> Self {
        match assignment {
            Assignment::Existing => Self::Existing,
            Assignment::Managed => Self::Managed,
            Assignment::Routed => Self::Routed,
        }
    }
}
