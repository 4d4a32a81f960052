//! Other programs' NAT chains ahead of ours: a flow that such a chain translates keeps its address.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::contract::PRIORITY_SNAT;
use crate::effects::kernel::{Failure, Kernel};

/// How long after a change of chains they are looked at: kube-proxy and the like change many in a row.
const SETTLE: Duration = Duration::from_secs(1);
/// How long after a look that failed the next comes.
const AGAIN: Duration = Duration::from_secs(10);

/// Other programs' NAT chains that run before egressd's, and when to look again.
pub(super) struct NatChains {
    due: Option<Instant>,
    problems: Vec<String>,
}

impl NatChains {
    pub fn new() -> Self {
        Self { due: Some(Instant::now()), problems: Vec::new() }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// NAT chains may have come or gone.
    pub fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, kernel: &mut Kernel) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        let ahead = match kernel.nat_chains_ahead() {
            Ok(ahead) => ahead,
            Err(error) => {
                self.due = Some(Instant::now() + AGAIN);
                let failure = Failure::of("looking for other programs' NAT chains ahead of egressd's", &error);
                return self.note(vec![failure.to_string()]);
            }
        };
        self.due = None;
        let problem = |chain: &crate::nft::decode::AnyChain| {
            let priority = chain.base.map_or(0, |base| base.priority);
            format!(
                "NAT chain {chain} has priority {priority} and runs before egressd's ({PRIORITY_SNAT}), so flows that it translates do not get their exit; set its priority above {PRIORITY_SNAT} (`srcnat` is 100)"
            )
        };
        self.note(ahead.iter().map(problem).collect());
    }

    fn note(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{problem}");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!("no other program's NAT chain runs before egressd's any more");
        }
        self.problems = problems;
    }

    /// What status should tell.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}
