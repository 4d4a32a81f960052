//! Addresses that egressd puts on NICs: their links are asked for them before, and told of them after, beside the loop.

mod announce;
mod conflict;
mod contest;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::conflict::Conflicts;
use self::contest::Contests;
pub(crate) use self::probe::Report;
use super::{EventSender, retry};
use crate::facts::backoff::{Backoff, at_random};
use crate::model::facts::{Address, IfIndex, KernelChange, KernelFacts, LinkKind, Mac};
use crate::model::managed::{At, LinkFamily, Probes, Verdict, by_link, link_of};

/// How long after an address was found in use it is asked for again, the first time. Half as much again at random: two hosts that ask for one
/// address at one moment find each other.
const AGAIN: Duration = Duration::from_secs(2);

/// The addresses that egressd puts on NICs: their probes, and when to probe again.
pub(super) struct ManagedAddresses {
    tell: EventSender,
    announcer: mpsc::Sender<At>,
    /// Number of the probe that is under way, by NIC and family: one at a time.
    running: BTreeMap<LinkFamily, u64>,
    started: u64,
    /// Addresses that are asked for again.
    again: BTreeMap<At, (Instant, Backoff)>,
    /// Why addresses could not be asked for, by NIC.
    failed: BTreeMap<LinkFamily, String>,
    contests: Contests,
    conflicts: Conflicts,
}

impl ManagedAddresses {
    pub fn new(tell: EventSender) -> Self {
        let (running, again, failed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (contests, conflicts) = (Contests::default(), Conflicts::start(tell.clone()));
        Self { tell, announcer: announce::start(), running, started: 0, again, failed, contests, conflicts }
    }

    /// When something is asked for again, or is put back after all. Where a probe is under way, its end is waited for.
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.again.iter().filter(|(at, _)| !self.running.contains_key(&link_of(at)));
        waiting.map(|(_, (due, _))| *due).chain(self.contests.due()).min()
    }

    /// Whether a probe is under way, so that an address will be there in a moment.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Takes note of what the kernel tells, before it goes into the facts: a link that is lost, and addresses of ours that are there.
    pub fn note(&mut self, change: &KernelChange, kernel: &KernelFacts, probes: &mut Probes) {
        match change {
            KernelChange::Link(link) if !(link.up && link.carrier) => self.lost(link.index, probes),
            KernelChange::LinkGone(index) => self.lost(*index, probes),
            KernelChange::AddressGone(place, net) if place.nsid.is_none() => {
                let ours = kernel.addresses_at(*place).any(|a| a.net == *net && a.ours);
                let at = (place.index, net.addr());
                if ours && probes.verdict(at) == Some(Verdict::Free) && self.contests.taken(at, Instant::now()) {
                    warn!(address = %at.1, nic = name_of(at.0, kernel), "another program keeps removing the address; egressd waits longer before it adds it again");
                    probes.contest(at, true);
                }
            }
            KernelChange::Address(place, address) if place.nsid.is_none() && address.ours && address.usable => {
                let known = kernel.addresses_at(*place).any(|a| a == address);
                if !known {
                    // Without the thread others find it by asking.
                    let _ = self.announcer.send((place.index, address.net.addr()));
                }
            }
            _ => {}
        }
    }

    fn lost(&mut self, nic: IfIndex, probes: &mut Probes) {
        probes.lost(nic);
        self.contests.retain(|(of, _)| of != nic);
        self.running.retain(|(of, _), _| *of != nic);
        self.again.retain(|(of, _), _| *of != nic);
    }

    /// Asks for what is wanted and not known, or to be asked for again; whether anything is known without.
    pub fn look(&mut self, managed: &BTreeMap<At, Option<Verdict>>, kernel: &KernelFacts, probes: &mut Probes) -> bool {
        probes.retain(|at| managed.contains_key(&at));
        self.again.retain(|at, _| managed.contains_key(at));
        self.failed.retain(|of, _| managed.keys().any(|at| link_of(at) == *of));
        self.contests.retain(|at| managed.contains_key(&at));
        let (now, mut known) = (Instant::now(), false);
        let there = |(nic, a): (IfIndex, &Address)| Some((nic, a.net.addr())).filter(|at| a.ours && managed.contains_key(at));
        let asked_for = kernel.own_addresses().take_while(|_| !managed.is_empty());
        self.conflicts.listen_for(asked_for.filter_map(there).collect());
        for at in self.contests.over(now) {
            known |= probes.contest(at, false);
        }
        let mut asked: BTreeSet<At> = BTreeSet::new();
        for at in managed.keys().filter(|at| !self.running.contains_key(&link_of(at))) {
            let due = match (self.again.get(at), probes.verdict(*at)) {
                (Some((due, _)), _) => *due <= now,
                (None, verdict) => verdict.is_none(),
            };
            let Some(link) = kernel.links.get(&at.0).filter(|link| due && link.up && link.carrier) else { continue };
            // There are no neighbours, or none that are asked for addresses.
            if link.no_arp || link.point_to_point || link.kind == LinkKind::Wireguard {
                known |= probes.note(*at, Verdict::Free);
            } else {
                asked.insert(*at);
            }
        }
        for ((nic, family), addresses) in by_link(&asked) {
            self.started += 1;
            self.running.insert((nic, family), self.started);
            probe::start(nic, family, self.started, addresses, self.tell.clone());
        }
        known
    }

    /// Takes note of a probe's end; whether it told anything new.
    pub fn probed(&mut self, report: Report, kernel: &KernelFacts, probes: &mut Probes) -> bool {
        let Report { nic, family, number, addresses, found } = report;
        // Its link was lost meanwhile.
        if self.running.get(&(nic, family)) != Some(&number) {
            return false;
        }
        self.running.remove(&(nic, family));
        let name = name_of(nic, kernel);
        let holders = match found {
            Ok(holders) => holders,
            Err(error) => {
                let cure = match error.kind() {
                    io::ErrorKind::PermissionDenied => "give egressd CAP_NET_RAW, and the address family AF_PACKET",
                    _ => "egressd tries again",
                };
                let problem = format!("{name}: cannot probe neighbours for managed addresses, so none is added ({error}); {cure}");
                if self.failed.insert((nic, family), problem.clone()).as_ref() != Some(&problem) {
                    warn!("{problem}");
                }
                addresses.iter().for_each(|address| self.ask_again((nic, *address)));
                return false;
            }
        };
        self.failed.remove(&(nic, family));
        let mut new = false;
        for address in addresses {
            let at = (nic, address);
            let verdict = holders.get(&address).map_or(Verdict::Free, |mac| Verdict::Taken(*mac));
            let changed = probes.note(at, verdict);
            match verdict {
                Verdict::Free => drop(self.again.remove(&at)),
                Verdict::Taken(by) => {
                    if changed {
                        warn!(%address, nic = name, %by, "another machine uses the address; not adding it");
                    }
                    self.ask_again(at);
                }
            }
            if changed && verdict == Verdict::Free {
                info!(%address, nic = name, "no neighbour uses the address");
            }
            new |= changed;
        }
        new
    }

    fn ask_again(&mut self, at: At) {
        let (due, backoff) = self.again.entry(at).or_insert_with(|| (Instant::now(), Backoff::new(AGAIN, retry::LONGEST)));
        let wait = backoff.wait();
        *due = Instant::now() + wait + at_random(wait / 2);
    }

    /// Takes note that another machine says that it has an address, too: ours was there first, and is announced again.
    pub fn conflict(&mut self, at: At, by: Mac, kernel: &KernelFacts) {
        if self.conflicts.note(at, by, name_of(at.0, kernel)) {
            let _ = self.announcer.send(at);
        }
    }

    /// What status should tell.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.failed.values().cloned().chain(self.conflicts.problems())
    }
}

fn name_of(nic: IfIndex, kernel: &KernelFacts) -> &str {
    kernel.links.get(&nic).map_or("?", |link| link.name.as_str())
}
