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
/// How long looks that fail come one right after the other, and who waits for an open gate waits: a firewall that loads its rules tears a look.
const PATIENCE: Duration = Duration::from_secs(2);

/// The rules that other firewalls need for egressd's flows, and when to look again.
pub(super) struct FirewallGates {
    due: Option<Instant>,
    wanted: Wanted,
    /// Every source has spoken: what is not wanted may go.
    whole: bool,
    problems: Vec<String>,
    /// Since when a look is missing that what is wanted, or a change of these chains, asks for.
    unsettled: Option<Instant>,
}

impl FirewallGates {
    pub fn new() -> Self {
        Self { due: None, wanted: Wanted::default(), whole: false, problems: Vec::new(), unsettled: None }
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
            self.unsettled.get_or_insert_with(Instant::now);
        }
    }

    /// What is wanted is let through as far as these firewalls let us, or that was tried for long enough.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_none_or(|since| since.elapsed() >= PATIENCE)
    }

    /// Chains that forwarded packets pass may have changed.
    pub fn changed(&mut self) {
        if !self.wanted.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
            self.unsettled.get_or_insert_with(Instant::now);
        }
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, kernel: &mut Kernel) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        if !self.whole && self.wanted.is_empty() {
            self.unsettled = None;
            return;
        }
        let looked = kernel.open_gates(&self.wanted).map(|(gates, opened)| {
            opened.iter().for_each(|step| info!("{step}"));
            problems(&gates, &self.wanted)
        });
        self.note(looked.map_err(|failure| explained(&failure)));
    }

    /// Takes note of what a look came to: firewalls that stand in the way, or why it failed.
    fn note(&mut self, looked: Result<Vec<String>, String>) {
        if looked.is_ok() {
            self.unsettled = None;
        }
        let now = looked.unwrap_or_else(|failure| vec![failure]);
        let pause = if self.unsettled.is_some() && !self.is_settled() { SETTLE } else { AGAIN };
        self.due = (!now.is_empty()).then(|| Instant::now() + pause);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Family;
    use crate::plan::gates::Whose;

    #[test]
    fn who_waits_for_a_gate_waits_until_a_look_succeeds_or_for_a_while() {
        let mut watch = FirewallGates::new();
        assert!(watch.is_settled(), "nobody asks for anything");
        watch.wanted = Wanted::from([(Whose::Programs, Family::Ip)]);
        watch.changed();
        assert!(!watch.is_settled());
        let soon = |watch: &FirewallGates| watch.due.is_some_and(|due| due <= Instant::now() + SETTLE);
        watch.note(Err("torn".to_owned()));
        assert!(!watch.is_settled() && soon(&watch), "a look that fails is tried again at once");
        watch.note(Ok(vec!["firewalld drops it".to_owned()]));
        assert!(watch.is_settled() && !soon(&watch), "who stands in the way does so for good");
        watch.changed();
        watch.unsettled = Instant::now().checked_sub(PATIENCE);
        watch.note(Err("no answer".to_owned()));
        assert!(watch.is_settled() && !soon(&watch), "it is told, and nobody waits for ever");
    }
}
