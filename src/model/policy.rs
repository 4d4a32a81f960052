//! Policies: what traffic leaves by which exits. Workloads have policies, and policies have exits, so that a NIC that goes down changes policies
//! and no workload.

use std::hash::{Hash, Hasher};

use super::binding::{Binding, Spread, WhenUnavailable};
use super::facts::Family;
use super::reason::Reason;
use super::workload::{Row, State, Subject};
use crate::fnv::Fnv;

/// Every policy's number has this bit, and no packet mark of a way has it.
const POLICY: u32 = 1 << 31;
/// The policy of who is bound and has nothing to leave by, whatever the NICs do.
pub const NO_EXIT: u32 = POLICY;

/// What the kernel knows a source by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Bound, by the policy with this number.
    Bound(u32),
    /// Known, and bound by nobody.
    Free,
    /// Nothing is said of it.
    Unknown,
}

/// A row's standing. A policy's number follows from what the binding says alone: it is the same after a restart, and in the whole of a node.
pub fn standing(row: &Row) -> Standing {
    match (&row.state, &row.binding, row.address) {
        (State::FellBack(_) | State::Free, ..) => Standing::Free,
        (State::Waiting(_) | State::Refused(_), ..) => Standing::Unknown,
        (State::Dropped(Reason::BeingPlaced), ..) => Standing::Bound(NO_EXIT),
        (State::Bound(_) | State::Dropped(_), Some(binding), Some(net)) if binding.is_accepted() => {
            Standing::Bound(number(binding, Family::of(net.addr())))
        }
        (State::Bound(_) | State::Dropped(_), ..) => Standing::Bound(NO_EXIT),
    }
}

/// The number of a binding's policy in a family.
pub fn number(binding: &Binding, family: Family) -> u32 {
    let mut hash = Fnv::default();
    for exit in binding.exits.iter().filter(|exit| Family::of(exit.address) == family) {
        // Who puts the address there is nothing to its flows.
        (exit.address, &exit.interface, exit.gateway, exit.weight, exit.draining).hash(&mut hash);
        exit.source_ports.iter().for_each(|ports| ports.hash(&mut hash));
        // What one binding's probe says is nothing to another that asks for none.
        exit.probe.iter().for_each(|probe| probe.hash(&mut hash));
    }
    binding.traffic.number().hash(&mut hash);
    // Turns are counted for each binding by itself.
    if binding.spread != Spread::FirstUsable {
        (binding.spread, binding.shared_name()).hash(&mut hash);
    }
    let hash = hash.finish();
    ((hash >> 32) ^ hash) as u32 | POLICY | 1
}

/// Whether a row is a routed source that waits for its interface to be known, and may not leave meanwhile, whatever it comes in by.
pub fn is_held_unknown(row: &Row) -> bool {
    let drops = row.binding.as_ref().is_some_and(|binding| binding.when_unavailable == WhenUnavailable::Drop);
    matches!((&row.subject, &row.state), (Subject::Source(_), State::Waiting(_))) && drops
}
