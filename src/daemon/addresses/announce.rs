//! Tells a NIC's link of an address that is there from now on: whoever reached it elsewhere, or not at all, learns of it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::daemon::threads;
use crate::effects::neighbours::Neighbours;
use crate::model::managed::{At, link_of};

/// Times between announcements. RFC 5227 wants two (`ANNOUNCE_NUM`), RFC 4861 three at most.
const AFTER: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start() -> Sender<At> {
    threads::start("announcer", announce)
}

fn announce(addresses: &Receiver<At>) {
    // When each is told of again, and how often it was.
    let mut pending: BTreeMap<At, (Instant, usize)> = BTreeMap::new();
    loop {
        let due = pending.values().map(|(due, _)| *due).min();
        let Ok(given) = threads::all_given(addresses, due.map(|due| due.saturating_duration_since(Instant::now()))) else { return };
        let now = Instant::now();
        pending.extend(given.into_iter().map(|at| (at, (now, 0))));
        let due: Vec<At> = pending.iter().filter(|(_, (due, _))| *due <= now).map(|(at, _)| *at).collect();
        for group in due.chunk_by(|a, b| link_of(a) == link_of(b)) {
            // A link that went down since is told anew once it is up.
            let (nic, family) = link_of(&group[0]);
            let addresses: Vec<_> = group.iter().map(|(_, address)| *address).collect();
            let told = Neighbours::open(nic, family, Some(&BTreeSet::new())).and_then(|neighbours| neighbours.announce(&addresses));
            if let Err(error) = told {
                debug!(%error, nic, "failed to announce addresses");
            }
        }
        for at in due {
            match pending.get_mut(&at) {
                Some((due, told)) if *told < AFTER.len() => {
                    *due = now + AFTER[*told];
                    *told += 1;
                }
                _ => drop(pending.remove(&at)),
            }
        }
    }
}
