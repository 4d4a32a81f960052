//! Others' firewalls, while ports are published or programs run in network namespaces: what their flows need there is put back whenever the owners
//! rewrite their rules.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::effects::kernel::{Failure, Kernel};
use crate::model::facts::KernelFacts;
use crate::model::resolve::Outcome;
use crate::plan::gates::{Wanted, problems};

/// How long after a change they are looked at: a program that loads its rules changes many in a row.
const SETTLE: Duration = Duration::from_millis(50);
/// How long after a look that failed, or found something missing, the next comes: not every firewall's rules are listened to.
const AGAIN: Duration = Duration::from_secs(2);

/// What is wanted of the firewalls, and when to look again.
pub(super) struct Watch {
    due: Option<Instant>,
    wanted: Wanted,
    /// Every source has spoken: what is not wanted may go.
    whole: bool,
    problems: Vec<String>,
}

impl Watch {
    pub fn new() -> Self {
        Self { due: None, wanted: Wanted::default(), whole: false, problems: Vec::new() }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes note of what an outcome needs. Until every source has spoken, nothing that was needed before is taken away.
    pub fn want(&mut self, outcome: &Outcome, kernel: &KernelFacts, whole: bool) {
        let mut wanted = Wanted::of(outcome, kernel);
        if !whole {
            wanted.extend(&self.wanted);
        }
        if wanted != self.wanted || whole != self.whole {
            (self.wanted, self.whole, self.due) = (wanted, whole, Some(Instant::now()));
        }
    }

    /// Chains that forwarded packets pass may have changed.
    pub fn changed(&mut self) {
        if !self.wanted.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, kernel: &mut Kernel) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        if !self.whole && self.wanted.is_empty() {
            return;
        }
        let now = match kernel.open_gates(&self.wanted) {
            Ok((gates, opened)) => {
                opened.iter().for_each(|step| info!("{step}"));
                problems(&gates, &self.wanted)
            }
            Err(failure) => vec![explained(&failure)],
        };
        self.due = (!now.is_empty()).then(|| Instant::now() + AGAIN);
        for problem in now.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{problem}");
        }
        self.problems = now;
    }

    /// What status should tell.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

fn explained(failure: &Failure) -> String {
    format!("{failure}; until then the firewall may drop calls to published ports, and what programs in network namespaces send")
}
