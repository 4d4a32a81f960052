//! What the loop wants to know of published ports: who listens there already, and whether servers answer; and until when servers drain.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use foldhash::HashMap;
use tokio::sync::watch;
use tracing::{error, info};

use super::cutter::Job;
use super::drains::Drains;
use super::{Event, EventSender, full};
use crate::facts::{health, listeners};
use crate::model::health::{Check, Verdict};
use crate::model::ports::Called;
use crate::model::replace;
use crate::model::services::Services;
use crate::plan::inbound::ServerCut;

/// Tells the sources what is asked for, and keeps the deadlines.
pub(super) struct Inbound {
    ports: watch::Sender<Arc<BTreeSet<Called>>>,
    checks: watch::Sender<health::Checks>,
    drains: Drains,
    full: full::FullServers,
}

impl Inbound {
    /// Starts the sources, which tell nothing as long as nothing is asked.
    pub fn start(tell: &EventSender) -> Self {
        let (ports, asked) = watch::channel(Arc::default());
        listen(listeners::Source::new(asked), tell.clone());
        let (checks, wanted) = watch::channel(health::Checks::default());
        let full = full::FullServers::new(tell.clone());
        let tell = tell.clone();
        let told = move |check, verdict| drop(tell.send(Event::Health(check, verdict)));
        if let Err(error) = health::start(wanted, told) {
            error!(%error, "failed to start the health-check thread; servers with a health check count as unhealthy");
        }
        Self { ports, checks, drains: Drains::default(), full }
    }

    /// Asks who listens on the ports of these services.
    pub fn ask_ports(&self, services: &Services) {
        self.ports.send_if_modified(|asked| replace(asked, Arc::clone(&services.asked)));
    }

    /// Asks for what these services and exits depend on, and notes who drains. What was told of servers that nobody asks any more is forgotten.
    pub fn note(&mut self, services: &Services, exits: &BTreeSet<Check>, verdicts: &mut HashMap<Check, Verdict>) {
        self.drains.note(services, Instant::now());
        self.full.want(services);
        self.ask_ports(services);
        let checks =
            if exits.is_empty() { Arc::clone(&services.checks) } else { Arc::new(services.checks.union(exits).cloned().collect()) };
        if self.checks.send_if_modified(|wanted| replace(wanted, Arc::clone(&checks))) {
            verdicts.retain(|check, _| checks.contains(check));
        }
    }

    /// When the next server has to be done with draining.
    pub fn due(&self) -> Option<Instant> {
        self.drains.due()
    }

    /// Ends what is open of servers that should be done, and says whose that is.
    pub fn end_drains(&mut self, cutter: &mpsc::Sender<Job>) -> Vec<ServerCut> {
        let cuts = self.drains.take_due(Instant::now());
        if !cuts.is_empty() {
            cuts.iter()
                .for_each(|cut| info!(server = %cut.server, called = %cut.called, "drain time is over; closing the server's connections"));
            let _ = cutter.send(Job::Cut(Vec::new(), cuts.clone()));
        }
        cuts
    }

    /// Whether a verdict is of a server that is still asked.
    pub fn hears_of(&self, check: &Check) -> bool {
        self.checks.borrow().contains(check)
    }
}

fn listen(mut source: listeners::Source, tell: EventSender) {
    tokio::spawn(async move {
        while let Some(listeners) = source.next().await {
            if tell.send(Event::Listeners(listeners)).is_err() {
                return;
            }
        }
    });
}
