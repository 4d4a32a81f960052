//! The loop: facts in, plan out. Everything that it knows is derived again in each round.

mod answer;
mod dry_run;
mod hear;
mod leave;
mod managed;
mod silent;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc as thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use self::silent::Silent;
use super::calls::Calls;
use super::cutter::{self, Job};
use super::inbound::Inbound;
use super::keeper::{self, Keeper};
use super::metrics::Metrics;
use super::retry::Retries;
use super::sources::{self, Sources};
use super::systemd::Manager;
use super::transitions::Transitions;
use super::{Options, Teller, Told, addresses, gates, gateways, ipvs, nat, spill};
use crate::effects::kernel::{Failure, Kernel};
use crate::effects::kubernetes::reporter::Reporter;
use crate::model::cluster::Cluster;
use crate::model::known::Facts;
use crate::model::listeners::Listeners;
use crate::model::programs::Wanted;
use crate::model::resolve::{Outcome, Past, resolve};
use crate::model::ways;
use crate::plan::engine;
use crate::plan::flows::Cut;
use crate::plan::read_back::{read_back, spills};
use crate::plan::{Observed, Plan, Planner, boot, sysctls};
use crate::report::node;

/// How often to check whether flows still bear exits that nobody is bound to any more.
const SWEEP: Duration = Duration::from_secs(30);
/// How often all settings are looked at again: of most of them the kernel tells nothing when another program changes them.
const LOOK: Duration = Duration::from_secs(60);
/// As many as a program that deletes routes until there are none needs, and few enough where the kernel never shows what it was told.
const LOOKS: u8 = 16;
/// How long after a change the cluster is told of it, and of what else has changed meanwhile.
const NEWS: Duration = Duration::from_millis(200);

pub(super) struct Agent {
    kernel: Kernel,
    cutter: thread::Sender<Job>,
    metrics: Metrics,
    facts: Facts,
    past: Past,
    outcome: Outcome,
    planner: Planner,
    /// The kernel's facts have changed since the last round.
    fresh: bool,
    /// How many looks at routes, rules and links that show nothing new are news all the same: what the last round added may be gone again, and
    /// then the facts are what they were before it.
    looks: u8,
    /// Sources that have not given their first snapshot.
    silent: Silent,
    /// Why the kernel does not look at sockets' control groups, once that was tried.
    no_sockets: Option<Option<String>>,
    /// What is to be looked up of the host's programs.
    wanted: watch::Sender<Option<Wanted>>,
    sources: Sources,
    /// The kernel's tables were looked at for what an earlier run left.
    taken_over: bool,
    /// Steps of the last round that failed.
    failing: Retries,
    /// Work beside the loop that failed.
    beside: Retries,
    /// What is not served by HTTP, and why.
    unserved: Vec<(&'static str, String)>,
    nat: nat::Watch,
    gates: gates::Watch,
    addresses: addresses::Watch,
    gateways: gateways::Watch,
    spill: spill::Watch,
    inbound: Inbound,
    ipvs: ipvs::Watch,
    transitions: Transitions,
    manager: Manager,
    calls: Calls,
    reporter: Option<Reporter>,
    boot_guard: Option<Keeper>,
    sweep: Option<Instant>,
    look: Option<Instant>,
    /// When the cluster is to be told.
    news: Option<Instant>,
}

impl Agent {
    pub fn new(options: &Options, kernel: Kernel, wanted: watch::Sender<Option<Wanted>>, tell: Teller) -> Self {
        if options.manifests.is_none() {
            wanted.send_replace(Some(Wanted::default()));
        }
        let mut sources = Sources::default();
        options.docker.iter().for_each(|_| sources.expect(sources::DOCKER));
        options.containerd.iter().for_each(|_| sources.expect(sources::CONTAINERD));
        let mut facts = Facts::of(Cluster::new(options.cluster.as_ref().is_some_and(|cluster| cluster.raw_exits), &options.inside));
        // Until the runtime has spoken nobody knows where a pod is, whatever the API server says of addresses.
        facts.sandboxes = options.containerd.is_some().then(BTreeMap::new);
        facts.listeners = Some(Listeners::default());
        let (gateways, dead) = gateways::Watch::new(&options.state, tell.clone());
        facts.dead_gateways = dead;
        Self {
            cutter: cutter::start(tell.clone()),
            kernel,
            metrics: Metrics::new(),
            facts,
            past: Past::default(),
            outcome: Outcome::default(),
            planner: Planner::default(),
            fresh: false,
            looks: 0,
            silent: Silent::new(options),
            no_sockets: None,
            wanted,
            sources,
            taken_over: false,
            failing: Retries::default(),
            beside: Retries::default(),
            unserved: Vec::new(),
            nat: nat::Watch::new(),
            gates: gates::Watch::new(),
            addresses: addresses::Watch::new(tell.clone()),
            gateways,
            spill: spill::Watch::new(&options.sysctls, tell.clone()),
            inbound: Inbound::start(&tell),
            ipvs: ipvs::Watch::default(),
            transitions: Transitions::default(),
            manager: Manager::new(),
            boot_guard: options.boot_guard.clone().filter(|_| !options.dry_run).map(|file| Keeper::start(file, tell.clone())),
            reporter: None,
            calls: Calls::new(options.docker.clone().filter(|_| !options.dry_run), tell.clone()),
            sweep: None,
            look: None,
            news: None,
        }
    }

    /// From now on the cluster is told what became of its bindings here.
    pub fn report_by(&mut self, reporter: Reporter) {
        self.reporter = Some(reporter);
    }

    /// Until told to stop.
    pub async fn run(&mut self, told: &mut mpsc::UnboundedReceiver<Told>) {
        loop {
            let wake = [
                self.retry(),
                self.sweep,
                self.look,
                self.news,
                self.nat.due(),
                self.gates.due(),
                self.addresses.due(),
                self.inbound.due(),
                self.ipvs.due(),
                self.manager.due(),
            ]
            .into_iter()
            .flatten()
            .min();
            let first = tokio::select! {
                one = told.recv() => match one {
                    Some(one) => Some(one),
                    None => return,
                },
                () = sleep_until(wake) => None,
            };
            let began = Instant::now();
            let mut dirty = [self.retry(), self.sweep, self.look].into_iter().any(is_due) | self.ipvs.take_news();
            let mut questions = Vec::new();
            // All that is there already goes into the same round.
            for one in first.into_iter().chain(std::iter::from_fn(|| told.try_recv().ok())) {
                match one {
                    Told::Stop => return,
                    Told::Question(question, respond) => questions.push((question, respond)),
                    other => dirty |= self.hear(other),
                }
            }
            if dirty && !self.silent.local() {
                self.round(began);
            }
            self.look_after_addresses(began);
            self.manager.alive();
            self.nat.look(&mut self.kernel);
            self.gates.look(&mut self.kernel);
            self.ipvs.end(&self.inbound.end_drains(&self.cutter));
            self.look_at_ipvs();
            if is_due(self.news) {
                self.news = None;
                self.report();
            }
            for (question, respond) in questions {
                let _ = respond.send(self.answer(question));
            }
        }
    }

    /// When what failed is tried again.
    fn retry(&self) -> Option<Instant> {
        let calls = self.calls.due().filter(|_| !self.silent.engine);
        [self.failing.due(), self.beside.due(), calls].into_iter().flatten().min()
    }

    /// Resolves, plans and carries out.
    fn round(&mut self, began: Instant) {
        self.metrics.rounds.inc();
        self.look = Some(began + LOOK);
        self.failing.begin(began);
        let plan = match self.plan() {
            Ok(plan) => plan,
            Err(failure) => return self.stopped_by(failure),
        };
        let (empty, cuts, server_cuts) = (plan.is_empty(), plan.cuts.clone(), plan.server_cuts.clone());
        self.past.departed.clone_from(&plan.departed);
        if plan.target.tables.is_empty() && !(plan.disarm.is_empty() && cuts.is_empty()) {
            let disarmed =
                self.kernel.disarm(&plan.disarm).map_err(|error| Failure::of("taking the bound sources out of tables that go", &error));
            // Without the tables, flows that had an exit would go on by the host's NIC.
            if let Err(failure) = disarmed.and_then(|()| cutter::cut_now(&plan.cuts, &plan.server_cuts)) {
                return self.stopped_by(failure);
            }
        }
        if std::mem::take(&mut self.fresh) {
            self.looks = if plan.before.is_empty() && plan.after.is_empty() { 0 } else { LOOKS };
        }
        if !self.silent.any() {
            self.ipvs.retire(&self.outcome, &mut self.kernel);
        }
        let mut done = self.kernel.carry_out(plan);
        if empty && !self.taken_over {
            done.failures.extend(self.kernel.take_over().err());
        }
        let again = self.beside.begin_due(cutter::STEP, began);
        if !self.taken_over && !self.silent.any() {
            self.taken_over = true;
            // What an earlier run did not come to.
            let departed = self.past.departed.iter().map(|(_, address)| Cut::all((*address).into())).collect();
            let _ = self.cutter.send(Job::Cut(departed, Vec::new()));
        }
        self.metrics.changes.inc_by(done.steps as u64);
        let flows_stay = cuts.is_empty() && server_cuts.is_empty();
        if done.steps == 0 && flows_stay {
            debug!("nothing changed");
        } else {
            let taken = began.elapsed();
            self.metrics.latency.observe(taken.as_secs_f64());
            info!(
                changes = done.steps,
                cuts = cuts.len() + server_cuts.len(),
                failures = done.failures.len(),
                microseconds = taken.as_micros(),
                "kernel programmed"
            );
        }
        // Bound means programmed.
        for failure in &done.failures {
            if let Some(way) = failure.table.and_then(ways::of_table) {
                self.outcome.not_programmed(Some(way), &failure.error);
            }
        }
        if let Some(failure) = done.failures.iter().find(|_| done.batch_refused) {
            self.outcome.not_programmed(None, &failure.error);
        }
        self.transitions.log(&self.outcome);
        self.gates.want(&self.outcome, &self.facts.kernel, !self.silent.any());
        self.gateways.want(&self.outcome.uplinks.gateways);
        self.spill.want(&self.outcome);
        if !self.silent.any() {
            self.facts.dead_gateways.retain(&self.outcome.uplinks.gateways);
        }
        self.ipvs.want(&self.outcome, &self.facts.kernel);
        self.past.serve(&self.outcome.inbound, !self.silent.any());
        self.inbound.note(&self.outcome.inbound, &self.outcome.uplinks.probes, &mut self.facts.verdicts);
        // Flows end once the rules are right. What was refused is planned anew, with its cuts.
        if !flows_stay && !done.batch_refused {
            let _ = self.cutter.send(Job::Cut(cuts, server_cuts));
        } else if again {
            let _ = self.cutter.send(Job::Again);
        }
        self.metrics.failures.inc_by(done.failures.len() as u64);
        self.failing.note(done.failures, Instant::now());
        self.remember(began);
        if self.reporter.is_some() {
            self.news.get_or_insert_with(|| Instant::now() + NEWS);
        }
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

    /// Puts the virtual services of IPVS right.
    fn look_at_ipvs(&mut self) {
        let looked = self.ipvs.look(&mut self.kernel, &mut self.facts.ipvs);
        self.metrics.drift.inc_by(looked.drifted.into());
        if !looked.cuts.is_empty() {
            let _ = self.cutter.send(Job::Cut(Vec::new(), looked.cuts));
        }
    }

    /// Takes note of a failure that kept a round from trying anything else.
    fn stopped_by(&mut self, failure: Failure) {
        self.metrics.failures.inc();
        self.failing.failed(failure, Instant::now());
    }

    /// Tells the cluster what became of its bindings here.
    fn report(&self) {
        if let Some(reporter) = self.reporter.as_ref().filter(|_| !self.silent.any()) {
            reporter.report(&self.facts.cluster.node, node::spec(&self.facts, &self.outcome, self.problems()));
        }
    }

    /// Writes down what the next boot is to close, once everybody is known.
    fn remember(&mut self, now: Instant) {
        self.beside.begin_due(keeper::STEP, now);
        let Some(keeper) = self.boot_guard.as_mut().filter(|_| !self.silent.any()) else { return };
        keeper.keep(boot::remember(&self.outcome, &self.facts.kernel));
    }

    /// The plan for the facts as they are, unless the kernel's tables cannot be read.
    fn plan(&mut self) -> Result<Plan, Failure> {
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
        // The rows of the round before go first: at ten thousand addresses they are megabytes, and the new ones take their place.
        drop(std::mem::take(&mut self.outcome));
        self.outcome = resolve(&self.facts, &mut self.past);
        let sysctls = self.kernel.sysctls(&sysctls::keys(&self.outcome, &self.facts.kernel));
        if self.kernel.take_drift() {
            info!("our nftables tables were changed by another program while events were lost");
            self.metrics.drift.inc();
        }
        let ruleset = self.kernel.ruleset().map_err(unread)?;
        let observed = Observed { kernel: &self.facts.kernel, ruleset, sysctls: &sysctls };
        Ok(self.planner.plan(&self.outcome, &observed, &self.past.departed, !self.silent.any()))
    }

    fn used(&self) -> BTreeSet<IpAddr> {
        self.outcome.uplinks.exits().map(|exit| exit.address).collect()
    }
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}

pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
