//! A round: what follows from the facts is decided, planned and carried out.

use std::time::Instant;

use tracing::{debug, info, warn};

use super::{Agent, LOOK, LOOKS, REPORT_DELAY, SWEEP, is_due};
use crate::daemon::cutter::{self, Job};
use crate::effects::kernel::{Done, Failure};
use crate::model::resolve::RowInputs;
use crate::model::resolve::census::Census;
use crate::model::resolve::few::{Changed, resolve_few};
use crate::model::ways;
use crate::plan::ahead::plan_ahead;
use crate::plan::flows::Cut;
use crate::plan::read_back::{read_back, spills};
use crate::plan::resets::Resets;
use crate::plan::{Observed, Plan, engine, few, sysctls};

impl Agent {
    /// Resolves, plans and carries out, for a few if the facts that changed are theirs alone. `quiet`: none has changed, and nothing is due
    /// but a look.
    pub(super) fn round(&mut self, began: Instant, quiet: bool) {
        self.metrics.rounds.inc();
        self.fast_path.note();
        match self.plan_for_few() {
            Some((plan, changed)) => self.round_for_few(plan, &changed, began),
            None => self.round_for_all(began, quiet),
        }
    }

    /// The plan for a few, unless it takes one for everybody.
    fn plan_for_few(&mut self) -> Option<(Plan, Changed)> {
        let (touched, census) = (std::mem::take(&mut self.facts.touched), self.census.take());
        if touched.all || !self.taken_over || self.silent.any() || !self.failing.is_empty() {
            return None;
        }
        let ruleset = self.kernel.known_ruleset()?;
        let mut census = census.unwrap_or_else(|| Census::of(&self.facts, &touched, &self.outcome));
        let changed = resolve_few(&self.facts, &mut self.past, &mut self.outcome, &mut census, &touched)?;
        self.census = Some(census);
        self.rounds_since_full += 1;
        Some((few::plan_few(&self.outcome, &self.facts.kernel, ruleset, &changed, &self.past.departed), changed))
    }

    fn round_for_few(&mut self, plan: Plan, changed: &Changed, began: Instant) {
        let cuts = plan.cuts.clone();
        self.past.departed.clone_from(&plan.departed);
        if std::mem::take(&mut self.fresh) {
            self.looks = 0;
        }
        let done = self.kernel.carry_out(plan);
        self.log_round(&done, cuts.len(), began);
        self.transitions.log_few(&self.outcome, changed);
        if !cuts.is_empty() && done.refused.is_none() {
            let _ = self.cutter.send(Job::Cut(cuts, Vec::new()));
        }
        self.settle(done);
    }

    fn round_for_all(&mut self, began: Instant, quiet: bool) {
        self.look = Some(began + LOOK);
        self.failing.begin(began);
        self.held = None;
        let plan = match self.plan(Some(began)) {
            Ok(plan) => plan,
            Err(failure) => return self.stopped_by(failure),
        };
        if quiet && self.rounds_since_full > 0 && !plan.ruleset.is_empty() {
            warn!(
                changes = plan.ruleset.len(),
                "a full round found changes that incremental rounds had missed; this is a bug, please report it"
            );
            self.metrics.missed.inc();
        }
        self.rounds_since_full = 0;
        let (empty, cuts, server_cuts) = (plan.is_empty(), plan.cuts.clone(), plan.server_cuts.clone());
        let mut resets = plan.resets.clone();
        self.past.departed.clone_from(&plan.departed);
        if plan.target.as_ref().is_some_and(|target| target.tables.is_empty()) && !(plan.disarm.is_empty() && cuts.is_empty()) {
            let disarmed =
                self.kernel.disarm(&plan.disarm).map_err(|error| Failure::of("removing the bound sources from tables that go", &error));
            // Without the tables, flows that had an exit would go on by the host's NIC.
            let cut = || cutter::cut_now(&plan.cuts, &plan.server_cuts).map_err(|error| Failure::of(cutter::STEP, &error));
            if let Err(failure) = disarmed.and_then(|()| cut()) {
                return self.stopped_by(failure);
            }
        }
        if std::mem::take(&mut self.fresh) {
            self.looks = if plan.before.is_empty() && plan.after.is_empty() { 0 } else { LOOKS };
        }
        let mut done = self.kernel.carry_out(plan);
        done.failures.extend_from_slice(self.ipvs.unretired());
        if empty && !self.taken_over {
            done.failures.extend(self.kernel.take_over().err());
        }
        let again = self.beside.begin_due(cutter::STEP, began);
        let whole = !self.silent.any();
        if !self.taken_over && whole {
            self.taken_over = true;
            // Flows that an earlier run had not ended yet.
            let departed = self.past.departed.iter().map(|(_, address)| Cut::all((*address).into())).collect();
            let _ = self.cutter.send(Job::Cut(departed, Vec::new()));
            resets = Resets::of(&self.outcome);
        }
        let flows_stay = cuts.is_empty() && server_cuts.is_empty();
        self.log_round(&done, cuts.len() + server_cuts.len(), began);
        self.transitions.log(&self.outcome);
        self.gates.want(&self.outcome, &self.facts.kernel, whole);
        self.gateways.want(&self.outcome.uplinks.gateways);
        self.spill.want(&self.outcome);
        self.ipvs.want(&self.outcome, &self.facts.kernel);
        self.past.serve(&self.outcome.inbound, whole);
        if whole {
            self.facts.answers.retain(&self.outcome.uplinks.gateways);
            self.route_back.want(&self.outcome, &self.facts.kernel);
            self.holders.keep(&self.past.holders);
        }
        self.inbound.note(&self.outcome.inbound, &self.outcome.uplinks.probes, &mut self.facts.verdicts);
        // Flows end once the rules are right. What was refused is planned anew, with its cuts.
        if !flows_stay && done.refused.is_none() {
            let _ = self.cutter.send(Job::Cut(cuts, server_cuts));
        } else if again {
            let _ = self.cutter.send(Job::Again);
        }
        if let Some(resets) = resets.filter(|_| done.refused.is_none()) {
            let _ = self.cutter.send(Job::Reset(resets));
        }
        self.settle(done);
        self.remember(began);
        if !self.silent.engine {
            self.calls.start(engine::steps(&self.facts));
        }
        let used = self.used();
        if self.sweep.is_none() || is_due(self.sweep) {
            let retired = self.past.memory.numbers.exits().any(|(exit, _)| !used.contains(&exit));
            self.sweep = retired.then(|| Instant::now() + SWEEP);
            if retired {
                let _ = self.cutter.send(Job::Survey);
            }
        }
    }

    /// Logs what a plan came to, and takes back what was promised to those whose part of it failed: bound means programmed.
    fn log_round(&mut self, done: &Done, cuts: usize, began: Instant) {
        self.metrics.changes.inc_by(done.steps as u64);
        if done.steps > 0 || done.refused.is_some() || cuts > 0 {
            self.fast_path.disturbed();
        }
        if done.steps == 0 && cuts == 0 {
            debug!("nothing changed");
        } else {
            let taken = began.elapsed();
            self.metrics.latency.observe(taken.as_secs_f64());
            info!(changes = done.steps, cuts, failures = done.failures.len(), microseconds = taken.as_micros(), "kernel programmed");
        }
        for failure in &done.failures {
            if let Some(way) = failure.table.and_then(ways::of_table) {
                self.outcome.not_programmed(Some(way), &failure.error);
            }
        }
        if let Some(failure) = &done.refused {
            self.outcome.not_programmed(None, &failure.error);
        }
    }

    /// Has what failed tried again, and the cluster told.
    fn settle(&mut self, done: Done) {
        self.metrics.failures.inc_by(done.failures.len() as u64);
        self.failing.note(done.failures, Instant::now());
        if self.reporter.is_some() {
            self.report_due.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
        }
    }

    /// The plan for the facts as they are, unless the kernel's tables cannot be read. When the round `began`, if it is to be carried out: then the
    /// policies of lost exits change at once, ahead of it.
    pub(super) fn plan(&mut self, began: Option<Instant>) -> Result<Plan, Failure> {
        let unread = |error| Failure::of("reading our nftables tables", &error);
        let observed = self.kernel.ruleset().map_err(unread)?;
        if !self.taken_over {
            read_back(observed, &self.facts.kernel, &mut self.past);
            // What an earlier run closed stays closed until it is counted anew.
            self.silent.ports = !self.spill.told && spills(observed);
            self.ipvs.take_over(&mut self.kernel, &mut self.facts.ipvs, &mut self.past.served);
        }
        self.facts.cluster.grant();
        self.facts.isolate();
        let inputs = RowInputs::discover(&self.facts, &mut self.past);
        let mut moved = Vec::new();
        if let Some(began) = began.filter(|_| self.taken_over && !self.silent.any())
            && let Some(known) = self.kernel.known_ruleset()
        {
            let ahead = plan_ahead(&self.outcome, &inputs.uplinks, known);
            moved.clone_from(&ahead.ruleset);
            if !moved.is_empty() {
                let done = self.kernel.carry_out(ahead);
                self.metrics.changes.inc_by(done.steps as u64);
                self.fast_path.disturbed();
                if let Some(failure) = done.refused {
                    moved.clear();
                    warn!(%failure, "failed to move policies off lost exits ahead of the full round");
                } else {
                    let microseconds = began.elapsed().as_micros();
                    info!(changes = done.steps, microseconds, "moved policies off lost exits, ahead of the full round");
                }
            }
        }
        // The rows of the round before go first: at ten thousand addresses they are megabytes, and the new ones take their place.
        drop(std::mem::take(&mut self.outcome));
        self.outcome = inputs.resolve(&self.facts, &mut self.past);
        if began.is_some() && !self.silent.any() {
            self.ipvs.retire(&mut self.outcome.inbound, &mut self.kernel);
        }
        let sysctls = self.kernel.sysctls(&sysctls::keys(&self.outcome, &self.facts.kernel));
        if self.kernel.take_drift() {
            info!("another program changed egressd's nftables tables while events were lost; restoring them");
            self.metrics.drift.inc();
        }
        // They may have changed since they were read first.
        let ruleset = match self.kernel.ruleset() {
            Ok(ruleset) => ruleset,
            Err(error) => {
                let failure = unread(error);
                self.outcome.not_programmed(None, &failure.error);
                return Err(failure);
            }
        };
        let observed = Observed { kernel: &self.facts.kernel, ruleset, sysctls: &sysctls, ahead: &moved };
        Ok(self.planner.plan(&self.outcome, &observed, &self.past.departed, !self.silent.any()))
    }
}
