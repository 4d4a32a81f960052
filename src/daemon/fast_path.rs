//! The fast path: opened once nothing changes any more, and closed by whatever changes anything (`effects::kernel`).

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::cutter::Job;
use crate::effects::fast_path::{pin, pins};
use crate::effects::kernel::Kernel;
use crate::model::facts::{IfIndex, KernelFacts, Mac};
use crate::model::resolve::Outcome;
use crate::plan::fast_path::wanted;

/// How long nothing has to change before it is opened, and how long what was pinned has to be in force: each much longer than a packet is in
/// the kernel's hands.
const REST: Duration = Duration::from_millis(200);
/// How soon to ask again whether flows have ended.
const TICK: Duration = Duration::from_millis(50);
/// The same after something failed.
const LATER: Duration = Duration::from_secs(1);

/// How far it is.
#[derive(Debug)]
enum Stage {
    Rest,
    /// What the cutter was told to end is to have ended.
    Cutting(mpsc::Receiver<()>),
    /// These hardware addresses are pinned.
    Pinned(BTreeMap<IfIndex, Mac>),
}

/// Opens and closes the fast path, if it is asked for.
pub(super) struct FastPathKeeper {
    on: bool,
    stage: Stage,
    due: Option<Instant>,
    /// Why the kernel has none, once that was tried.
    refused: Option<Option<String>>,
    /// Ports whose flows are in it.
    ports: usize,
}

impl FastPathKeeper {
    pub fn new(on: bool) -> Self {
        Self { on, stage: Stage::Rest, due: Some(Instant::now()), refused: None, ports: 0 }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// There was a round, which may have changed who is to be in it.
    pub fn note(&mut self) {
        if self.on {
            self.due.get_or_insert_with(|| Instant::now() + REST);
        }
    }

    /// Something was changed, or is to end.
    pub fn disturbed(&mut self) {
        if self.on {
            self.begin_again(REST);
        }
    }

    /// What status tells; nothing where it is not asked for.
    pub fn status(&self, kernel: &Kernel) -> Option<String> {
        self.on.then(|| match &self.refused {
            Some(Some(why)) => format!("off: {why}"),
            _ if kernel.is_fast_path_open() => format!("open for {} ports", self.ports),
            _ => "closed".to_owned(),
        })
    }

    /// Goes a step, if it is time to. `calm`: what there is to do has been done.
    pub fn look(&mut self, calm: bool, outcome: &Outcome, facts: &KernelFacts, kernel: &mut Kernel, cutter: &mpsc::Sender<Job>) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if !calm {
            return self.begin_again(LATER);
        }
        self.due = None;
        let went = if self.on {
            self.step(outcome, facts, kernel, cutter)
        } else {
            kernel.remove_fast_path(facts).map_err(|failure| failure.to_string())
        };
        if let Err(error) = went {
            debug!(error, "the fast path waits");
            self.begin_again(LATER);
        }
    }

    fn step(&mut self, outcome: &Outcome, facts: &KernelFacts, kernel: &mut Kernel, cutter: &mpsc::Sender<Job>) -> Result<(), String> {
        let wanted = wanted(outcome, facts);
        if wanted.is_empty() || self.is_refused(kernel) {
            self.stage = Stage::Rest;
            return kernel.close_fast_path().map_err(|failure| failure.to_string());
        }
        match std::mem::replace(&mut self.stage, Stage::Rest) {
            Stage::Rest => {
                let (done, told) = mpsc::channel();
                let _ = cutter.send(Job::Tell(done));
                self.proceed(Stage::Cutting(told), TICK);
            }
            Stage::Cutting(told) if told.try_recv() == Err(mpsc::TryRecvError::Empty) => self.proceed(Stage::Cutting(told), TICK),
            Stage::Cutting(_) => {
                let (pins, pinned) = pins(&wanted, facts).map_err(|error| error.to_string())?;
                if pinned && kernel.is_fast_path(&wanted.table(&pins)) {
                    return Ok(());
                }
                kernel.close_fast_path().map_err(|failure| failure.to_string())?;
                pin(&pins).map_err(|error| error.to_string())?;
                if !pins.is_empty() {
                    self.proceed(Stage::Pinned(pins), REST);
                }
            }
            Stage::Pinned(before) => {
                let (pins, pinned) = pins(&wanted, facts).map_err(|error| error.to_string())?;
                if !pinned || pins != before {
                    return Err("hardware addresses have changed".to_owned());
                }
                // A frame that was on its way when it was first pinned may have moved it since; none can any more.
                pin(&pins).map_err(|error| error.to_string())?;
                kernel.open_fast_path(wanted.table(&pins)).map_err(|failure| failure.to_string())?;
                self.ports = pins.len();
                info!(ports = self.ports, "the fast path is open");
            }
        }
        Ok(())
    }

    fn is_refused(&mut self, kernel: &mut Kernel) -> bool {
        let refused = self.refused.get_or_insert_with(|| {
            let why = kernel.refuses_fast_path();
            why.iter().for_each(|why| info!(why, "the fast path is not available; all flows use the normal path"));
            why
        });
        refused.is_some()
    }

    fn proceed(&mut self, stage: Stage, after: Duration) {
        (self.stage, self.due) = (stage, Some(Instant::now() + after));
    }

    fn begin_again(&mut self, after: Duration) {
        self.proceed(Stage::Rest, after);
    }
}
