//! One probe of a NIC's link for some addresses, in a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::daemon::{Event, EventSender, threads};
use crate::effects::neighbours::Neighbours;
use crate::facts::backoff::at_random;
use crate::model::facts::{Family, IfIndex, Mac};
use crate::wire::neighbour::Claim;

/// RFC 5227 asks three times (`PROBE_NUM`), a second or two apart, and waits two seconds more: for hosts whose switch may not forward yet. This link
/// has been in use, or the answer is asked for again once it was lost; a neighbour answers within a millisecond, so that a fifth of it is enough.
const PROBES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_millis(300);
/// Hosts that start at one moment do not ask at one moment (`PROBE_WAIT`).
const JITTER: Duration = Duration::from_millis(100);

/// What a probe came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub nic: IfIndex,
    pub family: Family,
    /// Which probe it was.
    pub number: u64,
    pub addresses: BTreeSet<IpAddr>,
    /// Who has which of them.
    pub found: io::Result<BTreeMap<IpAddr, Mac>>,
}

/// Asks, and tells the loop.
pub(super) fn start(nic: IfIndex, family: Family, number: u64, addresses: BTreeSet<IpAddr>, tell: EventSender) {
    threads::spawn("probe", move || {
        std::thread::sleep(at_random(JITTER));
        let found = probe(nic, family, &addresses);
        // The loop may have ended.
        let _ = tell.send(Event::Probed(Report { nic, family, number, addresses, found }));
    });
}

fn probe(nic: IfIndex, family: Family, addresses: &BTreeSet<IpAddr>) -> io::Result<BTreeMap<IpAddr, Mac>> {
    let neighbours = match Neighbours::open(nic, family, None) {
        // There is nobody to ask.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(BTreeMap::new()),
        other => other?,
    };
    let mut found = BTreeMap::new();
    for round in 1..=PROBES {
        let open: Vec<IpAddr> = addresses.iter().copied().filter(|address| !found.contains_key(address)).collect();
        let mut note = |claim: Claim| {
            if addresses.contains(&claim.address) {
                found.insert(claim.address, Mac(claim.mac));
            }
        };
        neighbours.probe(&open, &mut note)?;
        let until = Instant::now() + if round == PROBES { LAST } else { BETWEEN };
        neighbours.claims(until).for_each(&mut note);
        if found.len() == addresses.len() {
            break;
        }
    }
    Ok(found)
}
