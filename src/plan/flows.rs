//! Which open flows have to end, once the rules are right.
//!
//! A flow keeps the address that it began with, so every change of who has an address leaves flows behind. They are told by their
//! original source; what they carry in the conntrack mark says whether they are ours.

use std::fmt;
use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::IpNet;

use crate::contract::{CLAIM_FREE, CLAIM_NO_EXIT, EXIT, FLAG, FLOW_MASK};
use crate::model::binding::{ExistingFlows, Source};
use crate::model::facts::IfIndex;
use crate::model::workload::Row;

/// IANA protocol number of TCP.
const TCP: u8 = 6;
/// IANA protocol number of SCTP.
const SCTP: u8 = 132;

/// Where a source enters: interface (a bridge's port, or an interface of its own) and addresses.
pub type Door = (IfIndex, IpNet);

/// A change of the claim of one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimChange {
    pub door: Door,
    pub before: Option<u32>,
    pub after: Option<u32>,
}

/// Flows to end: of one source, with exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub source: IpNet,
    /// Flows with this conntrack mark (of ours) stay.
    pub keep: Option<u32>,
    /// Only flows that have an exit.
    pub only_bound: bool,
    /// Only protocols without a connection: their next packet begins anew by itself.
    pub only_datagrams: bool,
}

impl Cut {
    /// Whether it ends a flow.
    fn hits(&self, source: IpAddr, protocol: u8, mark: u32) -> bool {
        self.source.contains(&source)
            && self.keep != Some(mark & FLOW_MASK)
            && (is_bound(mark) || !self.only_bound)
            && !(self.only_datagrams && matches!(protocol, TCP | SCTP))
    }
}

/// Whether a flow is to end by cuts of its source, oldest first, that are carried out together: what the newest keeps may have begun after the
/// others were called for.
pub fn ends(cuts: &[&Cut], source: IpAddr, protocol: u8, mark: u32) -> bool {
    let kept = cuts.last().is_some_and(|newest| newest.keep == Some(mark & FLOW_MASK));
    !kept && cuts.iter().any(|cut| cut.hits(source, protocol, mark))
}

/// The flow went out by an exit.
pub fn is_bound(mark: u32) -> bool {
    mark & FLAG != 0 && mark & EXIT != 0
}

/// The cuts that changes of claims call for.
pub fn cuts(changes: &[ClaimChange], rows: &[Row]) -> Vec<Cut> {
    if changes.is_empty() {
        return Vec::new();
    }
    let wanted: HashMap<Door, Option<&Row>> = changes.iter().map(|c| (c.door, None)).collect();
    let mut of = wanted;
    for row in rows {
        if let (Some(entry), Some(net)) = (row.entry, row.address)
            && let Some(slot) = of.get_mut(&(entry.link(), net))
        {
            *slot = Some(row);
        }
    }
    changes.iter().filter_map(|change| cut(change, of.get(&change.door).copied().flatten())).collect()
}

fn cut(change: &ClaimChange, row: Option<&Row>) -> Option<Cut> {
    let all = Cut { source: change.door.1, keep: None, only_bound: false, only_datagrams: false };
    let binding = row.and_then(|r| r.binding.as_ref());
    let Some(after) = change.after else { return Some(all) };
    let keep = is_exit(after).then_some(after);
    let Some(binding) = binding else {
        // Unbound, and known: what was bound ends, what was not goes on.
        return change.before.map(|_| Cut { only_bound: true, ..all });
    };
    // A label is as old as its container: no flow of it can be older.
    let leaked = change.before.is_none() && binding.name.source == Source::Label;
    let datagrams = binding.existing_flows == ExistingFlows::Keep && !leaked;
    Some(Cut { keep, only_datagrams: datagrams, ..all })
}

fn is_exit(claim: u32) -> bool {
    is_bound(claim) && claim != CLAIM_FREE && claim != CLAIM_NO_EXIT
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "end {}flows of {}", if self.only_datagrams { "datagram " } else { "" }, self.source)?;
        if self.only_bound {
            write!(f, " that have an exit")?;
        }
        self.keep.map_or(Ok(()), |mark| write!(f, ", but for those marked {mark:#010x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: u8 = 17;
    const FIRST: u32 = FLAG | 1 | 1 << 24;
    const SECOND: u32 = FLAG | 2 | 1 << 24;

    fn ended(cuts: &[Cut], mark: u32) -> bool {
        ends(&cuts.iter().collect::<Vec<_>>(), [10, 9, 0, 5].into(), UDP, mark)
    }

    #[test]
    fn of_cuts_that_come_together_the_newest_says_what_stays() {
        let all = Cut { source: "10.9.0.5/32".parse().unwrap(), keep: None, only_bound: false, only_datagrams: false };
        let keep = |mark| Cut { keep: Some(mark), ..all };
        assert!(ended(&[keep(FIRST)], SECOND) && !ended(&[keep(FIRST)], FIRST));
        let moved = [keep(FIRST), keep(SECOND)];
        assert!(ended(&moved, FIRST) && ended(&moved, 0) && !ended(&moved, SECOND));
        let gone_and_here_again = [all, keep(SECOND)];
        assert!(ended(&gone_and_here_again, FIRST) && !ended(&gone_and_here_again, SECOND));
        let gone = [keep(FIRST), all];
        assert!(ended(&gone, FIRST) && ended(&gone, SECOND));
    }
}
