//! Other machines that say they have an address which egressd has put on a NIC: somebody gave it to them afterwards (RFC 5227, section 2.4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::daemon::{Event, EventSender, threads};
use crate::effects::neighbours::Neighbours;
use crate::model::facts::Mac;
use crate::model::managed::{At, LinkFamily, by_link};

/// Between two looks at what was heard.
const EVERY: Duration = Duration::from_secs(1);
/// When a NIC that could not be listened on is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// An address is announced again after a conflict, and not more often than that (`DEFEND_INTERVAL`).
const DEFEND: Duration = Duration::from_secs(10);
/// How long after it was heard last a conflict is told.
const TOLD: Duration = Duration::from_secs(60);

/// What was heard of the addresses that are listened for.
pub(super) struct Conflicts {
    listened: BTreeSet<At>,
    thread: Sender<BTreeSet<At>>,
    heard: BTreeMap<At, Conflict>,
}

struct Conflict {
    by: Mac,
    nic: String,
    last: Instant,
    defended: Instant,
}

impl Conflicts {
    /// Starts the thread that listens; it ends with this.
    pub fn start(tell: EventSender) -> Self {
        let thread = threads::start("conflicts", move |wanted| listen(wanted, &tell));
        Self { listened: BTreeSet::new(), thread, heard: BTreeMap::new() }
    }

    /// From now on these are listened for, and no others.
    pub fn listen_for(&mut self, addresses: BTreeSet<At>) {
        if self.listened != addresses {
            self.heard.retain(|at, _| addresses.contains(at));
            let _ = self.thread.send(addresses.clone());
            self.listened = addresses;
        }
    }

    /// Takes note of a conflict; whether the address is to be announced again.
    pub fn note(&mut self, at: At, by: Mac, nic: &str) -> bool {
        let now = Instant::now();
        let known = self.heard.get(&at).filter(|known| known.by == by && known.last + TOLD > now);
        if known.is_none() {
            warn!(address = %at.1, nic, %by, "another machine claims the address as well");
        }
        let defended = self.heard.get(&at).map(|known| known.defended).filter(|defended| *defended + DEFEND > now);
        let conflict = Conflict { by, nic: nic.to_owned(), last: now, defended: defended.unwrap_or(now) };
        self.heard.insert(at, conflict);
        defended.is_none()
    }

    /// What status should tell.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let now = Instant::now();
        let recent = self.heard.iter().filter(move |(_, conflict)| conflict.last + TOLD > now);
        recent.map(|((_, address), Conflict { by, nic, .. })| {
            format!(
                "{address} is on {nic}, but {by} claims it as well, so replies reach either machine; remove it from that machine, or use another address"
            )
        })
    }
}

/// The thread; it ends when the sender is dropped.
fn listen(wanted: &Receiver<BTreeSet<At>>, tell: &EventSender) {
    let mut links: BTreeMap<LinkFamily, (BTreeSet<IpAddr>, Neighbours)> = BTreeMap::new();
    let mut of = BTreeMap::new();
    let mut again = Instant::now();
    loop {
        let Ok(mut given) = threads::all_given(wanted, (!of.is_empty()).then_some(EVERY)) else { return };
        if let Some(newest) = given.pop() {
            of = by_link(&newest);
            links.retain(|link, (addresses, _)| of.get(link) == Some(addresses));
            again = Instant::now();
        }
        if again <= Instant::now() {
            again = Instant::now() + AGAIN;
            let missing = of.iter().filter(|(link, _)| !links.contains_key(link));
            // A NIC that is gone or no Ethernet has nobody to listen to, and why a packet socket is refused is told by who probes.
            let opened: Vec<_> = missing
                .filter_map(|((nic, family), addresses)| {
                    let neighbours = Neighbours::open(*nic, *family, Some(addresses)).ok()?;
                    Some(((*nic, *family), (addresses.clone(), neighbours)))
                })
                .collect();
            links.extend(opened);
        }
        for ((nic, _), (addresses, neighbours)) in &links {
            let claims = neighbours.claims(Instant::now()).filter(|claim| !claim.is_probe && addresses.contains(&claim.address));
            let by: BTreeMap<IpAddr, Mac> = claims.map(|claim| (claim.address, Mac(claim.mac))).collect();
            for (address, mac) in by {
                if tell.send(Event::Conflict((*nic, address), mac)).is_err() {
                    return;
                }
            }
        }
    }
}
