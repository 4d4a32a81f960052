//! Whether exits that share flows run out of source ports to a destination: conntrack's table is counted beside the loop, once a second, while
//! it is so large that one of them may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::{Event, EventSender, tally, threads};
use crate::model::port_use::{Full, Source, may_be_full};
use crate::model::resolve::Outcome;
use crate::model::spread::Shares;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// At least so many times as long as a look took nothing is read: a table of a million entries takes a processor a second.
const REST: u32 = 10;
/// How many flows conntrack has, below the root of the settings.
const COUNT: &str = "net/netfilter/nf_conntrack_count";

/// The exits whose source ports are counted.
pub(super) struct PortSpill {
    wanted: Option<BTreeSet<Source>>,
    thread: mpsc::Sender<BTreeSet<Source>>,
    /// The first look has been told of.
    pub told: bool,
}

impl PortSpill {
    pub fn new(settings: &Path, tell: EventSender) -> Self {
        let count = settings.join(COUNT);
        Self { wanted: None, thread: threads::start("spill", move |wanted| watch(wanted, &count, &tell)), told: false }
    }

    /// From now on the exits are watched that share flows in this outcome.
    pub fn want(&mut self, outcome: &Outcome) {
        let spreads = outcome.spreads.values().chain(outcome.programs.spreads.values());
        let several = spreads.filter(|shares| shares.shares.len() > 1);
        let wanted: BTreeSet<Source> = several.flat_map(Shares::sources).collect();
        if self.wanted.as_ref() != Some(&wanted) {
            self.wanted = Some(wanted.clone());
            let _ = self.thread.send(wanted);
        }
    }
}

/// The thread; it ends when the sender is dropped. The first look is told of, whatever it shows.
fn watch(wanted: &mpsc::Receiver<BTreeSet<Source>>, count: &Path, tell: &EventSender) {
    let (mut exits, mut last, mut rest): (BTreeSet<Source>, Option<Full>, Duration) = (BTreeSet::new(), None, EVERY);
    loop {
        let Ok(mut given) = threads::all_given(wanted, (!exits.is_empty()).then_some(rest)) else { return };
        exits = given.pop().unwrap_or(exits);
        let began = Instant::now();
        let full = look(&exits, last.as_ref().unwrap_or(&BTreeMap::new()), count);
        rest = EVERY.max(began.elapsed() * REST);
        if last.as_ref() != Some(&full) {
            log(last.as_ref(), &full);
            last = Some(full.clone());
            if tell.send(Event::PortsFull(full)).is_err() {
                return;
            }
        }
    }
}

/// Which exits are full now; as before, where that cannot be read.
fn look(exits: &BTreeSet<Source>, before: &Full, count: &Path) -> Full {
    let flows = std::fs::read_to_string(count).ok().and_then(|text| text.trim().parse().ok());
    if !may_be_full(exits, flows.unwrap_or(u64::MAX)) {
        return Full::new();
    }
    match tally::port_use() {
        Ok(ports) => ports.full(exits, before),
        Err(error) => {
            debug!(%error, "failed to count the source ports of exits");
            before.clone()
        }
    }
}

fn log(before: Option<&Full>, full: &Full) {
    for ((exit, ports), destinations) in full.iter().filter(|(source, _)| before.is_none_or(|before| !before.contains_key(source))) {
        info!(%exit, %ports, destinations = destinations.len(), "an exit is running out of source ports; its new flows use other exits");
    }
}
