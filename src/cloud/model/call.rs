//! Calls as data: what is asked of a cloud, why, and what the answer says.

use std::fmt;
use std::net::Ipv4Addr;

use super::facts::{Tags, Target};
use super::report::{Aspect, Problem, Reason};

/// One call that changes something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Writes tags of a network interface or an elastic address.
    Tag {
        id: String,
        tags: Tags,
    },
    /// Takes tags away.
    Untag {
        id: String,
        keys: Vec<String>,
    },
    /// Makes addresses secondary ones of a network interface; never ones that another has.
    Assign {
        nic: String,
        addresses: Vec<Ipv4Addr>,
    },
    Unassign {
        nic: String,
        addresses: Vec<Ipv4Addr>,
    },
    /// Takes a new elastic address, which bears the tags from the beginning.
    Allocate {
        tags: Tags,
    },
    Release {
        id: String,
    },
    /// Lets an elastic address lead to an address of a network interface; never one that leads elsewhere.
    Associate {
        id: String,
        nic: String,
        private: Ipv4Addr,
    },
    Disassociate {
        id: String,
        association: String,
    },
    /// Turns the source/destination check on or off.
    Check {
        nic: String,
        on: bool,
    },
    /// Adds the default route to a table that has none.
    CreateRoute {
        table: String,
        target: Target,
    },
    ReplaceRoute {
        table: String,
        target: Target,
    },
    DeleteRoute {
        table: String,
    },
}

impl Call {
    /// Whether it would do something else when it is carried out twice: then it waits until the cloud is known to show all that was done.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Allocate { .. } => false,
            // Of an elastic address: a second reader could choose another one.
            Self::Tag { tags, .. } => !tags.contains_key(super::tags::PRIVATE),
            _ => true,
        }
    }
}

impl Call {
    /// Whether the address waits for it.
    pub fn is_for(&self, address: Ipv4Addr) -> bool {
        match self {
            Self::Assign { addresses, .. } | Self::Unassign { addresses, .. } => addresses.contains(&address),
            Self::Associate { private, .. } => *private == address,
            Self::Allocate { tags } | Self::Tag { tags, .. } => {
                tags.get(super::tags::PRIVATE).is_none_or(|private| *private == address.to_string())
            }
            _ => true,
        }
    }
}

/// The API's name of the call, and what it is about.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag { id, tags } => {
                let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "CreateTags {id} {}", tags.join(", "))
            }
            Self::Untag { id, keys } => write!(f, "DeleteTags {id} {}", keys.join(", ")),
            Self::Assign { nic, addresses } => write!(f, "AssignPrivateIpAddresses {nic} {}", listed(addresses)),
            Self::Unassign { nic, addresses } => write!(f, "UnassignPrivateIpAddresses {nic} {}", listed(addresses)),
            Self::Allocate { tags } => {
                write!(f, "AllocateAddress for {}", tags.get(super::tags::PRIVATE).map_or("the account", String::as_str))
            }
            Self::Release { id } => write!(f, "ReleaseAddress {id}"),
            Self::Associate { id, nic, private } => write!(f, "AssociateAddress {id} with {private} of {nic}"),
            Self::Disassociate { id, association } => write!(f, "DisassociateAddress {association} of {id}"),
            Self::Check { nic, on } => {
                write!(f, "ModifyNetworkInterfaceAttribute {nic} SourceDestCheck={on}")
            }
            Self::CreateRoute { table, target } => write!(f, "CreateRoute {table} 0.0.0.0/0 to {}", target.id()),
            Self::ReplaceRoute { table, target } => write!(f, "ReplaceRoute {table} 0.0.0.0/0 to {}", target.id()),
            Self::DeleteRoute { table } => write!(f, "DeleteRoute {table} 0.0.0.0/0"),
        }
    }
}

fn listed(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}

/// A call, and why it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub call: Call,
    pub reason: String,
    /// Which of the pool's conditions it is for.
    pub aspect: Aspect,
}

/// What is due, and what is in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub calls: Vec<Planned>,
    pub problems: Vec<Problem>,
}

impl Plan {
    /// Adds a call.
    pub fn call(&mut self, aspect: Aspect, call: Call, reason: impl Into<String>) {
        self.calls.push(Planned { call, reason: reason.into(), aspect });
    }

    /// Adds a problem.
    pub fn problem(&mut self, aspect: Aspect, reason: Reason, address: Option<Ipv4Addr>, message: String) {
        self.problems.push(Problem { aspect, reason, address, message });
    }

    /// Assigns each address by a call of its own: of several the cloud refuses all for one.
    pub fn assign_one_by_one(&mut self) {
        let all = std::mem::take(&mut self.calls);
        for Planned { call, reason, aspect } in all {
            match call {
                Call::Assign { nic, addresses } => {
                    for address in addresses {
                        self.call(aspect, Call::Assign { nic: nic.clone(), addresses: vec![address] }, reason.clone());
                    }
                }
                call => self.call(aspect, call, reason),
            }
        }
    }

    /// Whether limits have to be asked for before these calls are made.
    pub fn needs_limits(&self) -> bool {
        self.calls.iter().any(|planned| matches!(planned.call, Call::Assign { .. } | Call::Allocate { .. }))
    }
}

/// What a call that was carried out says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Allocated { id: String, public: Ipv4Addr },
    Associated { association: String },
}
