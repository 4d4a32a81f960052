//! What became of workloads since the round before, one line of the log for each.

use std::hash::BuildHasher;

use foldhash::HashMap;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use tracing::{debug, info};

use crate::model::binding::BindingName;
use crate::model::resolve::Outcome;
use crate::model::workload::{Row, State, Subject};
use crate::report::status::word;

/// Lines of one round, at most: on a large node all workloads may change at once.
const LINES: usize = 100;

/// The bound workloads of the round before, by what tells their addresses apart.
#[derive(Default)]
pub(super) struct Transitions {
    seen: HashMap<u64, Seen>,
    round: u64,
}

struct Seen {
    subject: Subject,
    address: Option<IpNet>,
    binding: BindingName,
    state: State,
    round: u64,
}

impl Transitions {
    /// Logs what differs from the round before, and returns how much that is.
    pub fn log(&mut self, outcome: &Outcome) -> usize {
        self.round += 1;
        let mut changed = 0;
        for (row, binding) in outcome.all_rows().filter_map(|row| Some((row, &row.binding.as_ref()?.name))) {
            let now = Seen {
                subject: row.subject.clone(),
                address: row.address,
                binding: binding.clone(),
                state: row.state.clone(),
                round: self.round,
            };
            let before = self.seen.insert(key(row), now);
            if before.is_none_or(|before| before.binding != *binding || before.state != row.state) {
                changed += 1;
                if changed <= LINES {
                    tell(row, binding, outcome);
                }
            }
        }
        let round = self.round;
        self.seen.retain(|_, seen| {
            let gone = seen.round != round;
            if gone {
                changed += 1;
                if changed <= LINES {
                    info!(workload = %seen.subject, address = seen.address.map(bare), binding = %seen.binding, "freed");
                }
            }
            !gone
        });
        if changed > LINES {
            info!(more = changed - LINES, "and other workloads; see `egressd status`");
        }
        changed
    }
}

/// A workload has one row for each address, and one without while it waits for it.
fn key(row: &Row) -> u64 {
    let subject = match &row.subject {
        Subject::Container(container) => container.id.as_str(),
        Subject::Pod(pod) => pod.uid.as_str(),
        Subject::Bare(name) => name,
        Subject::Namespace(name) | Subject::Programs(name) => name,
        Subject::Source(_) => "",
    };
    FixedState::default().hash_one((subject, row.network.as_deref(), row.address))
}

fn tell(row: &Row, binding: &BindingName, outcome: &Outcome) {
    let (workload, address) = (&row.subject, row.address.map(bare));
    match &row.state {
        State::Bound(exit) => {
            let nic = outcome.uplinks.nics.get(&exit.interface).map(|uplink| uplink.name.as_str());
            info!(%workload, address, exit = %exit.address, nic, %binding, "bound");
        }
        State::Waiting(reason) => debug!(%workload, address, %binding, reason = reason.word(), "waiting"),
        State::Dropped(reason) | State::FellBack(reason) | State::Refused(reason) => {
            info!(%workload, address, %binding, reason = reason.word(), why = %reason, "{}", word(row).to_lowercase());
        }
        State::Free => {}
    }
}

/// A host's address without its length.
fn bare(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}
