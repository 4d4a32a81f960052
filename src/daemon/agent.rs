//! The loop: facts in, plan out. Everything that it knows is derived again in each round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc as thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::calls::Calls;
use super::control::{Question, Response};
use super::cutter::{self, Job};
use super::metrics::Metrics;
use super::sources::{self, Sources};
use super::{Error, Options, Teller, Told, withdraw};
use crate::effects;
use crate::effects::kernel::Kernel;
use crate::effects::kubernetes::reporter::Reporter;
use crate::model::cluster::Cluster;
use crate::model::facts::EngineChange;
use crate::model::known::Facts;
use crate::model::pod::RuntimeChange;
use crate::model::resolve::{Outcome, Past, resolve};
use crate::model::select::Index;
use crate::plan::boot::Remembered;
use crate::plan::engine::{self, EngineStep};
use crate::plan::{Observed, Plan, boot, routing, tables};
use crate::report::explain::explain;
use crate::report::node;
use crate::report::status::Status;

/// How long after a failure everything is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often numbers that nobody is bound to are looked after, while there are any.
const SWEEP: Duration = Duration::from_secs(30);
/// How long after a change the cluster is told of it, and of what else has changed meanwhile.
const NEWS: Duration = Duration::from_millis(200);
/// How long an agent that is told to stop listens for the end of its DaemonSet.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a dry run waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Agent {
    kernel: Kernel,
    cutter: thread::Sender<Job>,
    metrics: Metrics,
    facts: Facts,
    past: Past,
    outcome: Outcome,
    /// Sources that have not given their first snapshot.
    silent: Silent,
    sources: Sources,
    /// The kernel's tables were looked at for what an earlier run left.
    taken_over: bool,
    /// What went wrong in the last round.
    failures: Vec<String>,
    calls: Calls,
    reporter: Option<Reporter>,
    boot_guard: Option<BootGuard>,
    retry: Option<Instant>,
    sweep: Option<Instant>,
    /// When the cluster is to be told.
    news: Option<Instant>,
}

/// What the next boot is to close, as the file has it.
struct BootGuard {
    file: PathBuf,
    written: Option<Remembered>,
}

struct Silent {
    kernel: bool,
    files: bool,
    engine: bool,
    runtime: bool,
    cluster: bool,
}

impl Silent {
    fn any(&self) -> bool {
        self.kernel || self.files || self.engine || self.runtime || self.cluster
    }
}

impl Agent {
    pub fn new(options: &Options, kernel: Kernel, tell: Teller) -> Self {
        let silent = Silent {
            kernel: true,
            files: options.manifests.is_some(),
            engine: options.docker.is_some(),
            runtime: options.containerd.is_some(),
            cluster: options.cluster.is_some(),
        };
        let mut sources = Sources::default();
        options.docker.iter().for_each(|_| sources.expect(sources::DOCKER));
        options.containerd.iter().for_each(|_| sources.expect(sources::CONTAINERD));
        let mut facts = Facts::of(Cluster::new(options.cluster.as_ref().is_some_and(|cluster| cluster.raw_exits), &options.inside));
        // Until the runtime has spoken nobody knows where a pod is, whatever the API server says of addresses.
        facts.sandboxes = options.containerd.is_some().then(BTreeMap::new);
        Self {
            cutter: cutter::start(tell.clone()),
            kernel,
            metrics: Metrics::new(),
            facts,
            past: Past::default(),
            outcome: Outcome::default(),
            silent,
            sources,
            taken_over: false,
            failures: Vec::new(),
            boot_guard: options.boot_guard.clone().map(|file| BootGuard { file, written: None }),
            reporter: None,
            calls: Calls::new(options.docker.clone().filter(|_| !options.dry_run), tell.clone()),
            retry: None,
            sweep: None,
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
            let wake = [self.retry, self.sweep, self.news].into_iter().flatten().min();
            let first = tokio::select! {
                one = told.recv() => match one {
                    Some(one) => Some(one),
                    None => return,
                },
                () = sleep_until(wake) => None,
            };
            let began = Instant::now();
            let mut dirty = is_due(self.retry) || is_due(self.sweep);
            let mut questions = Vec::new();
            // All that is there already goes into the same round.
            for one in first.into_iter().chain(std::iter::from_fn(|| told.try_recv().ok())) {
                match one {
                    Told::Stop => return,
                    Told::Question(question, respond) => questions.push((question, respond)),
                    other => dirty |= self.hear(other),
                }
            }
            if dirty && !self.silent.kernel && !self.silent.files {
                self.round(began);
            }
            if is_due(self.news) {
                self.news = None;
                self.report();
            }
            for (question, respond) in questions {
                let _ = respond.send(self.answer(question));
            }
        }
    }

    /// Prints the plan once every source has spoken.
    pub async fn dry_run(&mut self, told: &mut mpsc::UnboundedReceiver<Told>) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.silent.any() {
            tokio::select! {
                one = told.recv() => match one {
                    Some(one) => drop(self.hear(one)),
                    None => break,
                },
                () = sleep_until(Some(deadline)) => break,
            }
        }
        if self.silent.engine {
            warn!("the engine does not answer: the plan is without its containers, and takes nothing away");
        }
        if self.silent.runtime || self.silent.cluster {
            warn!("the container runtime or the API server does not answer: the plan is without its pods, and takes nothing away");
        }
        match self.plan() {
            Some(plan) => print!("{plan}"),
            None => warn!("failed to read the kernel's tables"),
        }
        for step in engine::steps(&self.facts) {
            println!("{}: {step:?}", step.object());
        }
        Ok(())
    }

    /// Takes in what was told; whether anything may follow from it.
    fn hear(&mut self, told: Told) -> bool {
        match told {
            Told::Kernel(changes) => {
                let mut dirty = std::mem::take(&mut self.silent.kernel);
                for change in changes {
                    dirty |= self.facts.kernel.apply(change);
                }
                return dirty;
            }
            Told::Engine(changes) => {
                let mut dirty = false;
                for change in changes {
                    dirty |= !matches!(change, EngineChange::Made { .. } | EngineChange::Lost(_) | EngineChange::Problems(_));
                    match &change {
                        EngineChange::Snapshot { containers, .. } => {
                            info!(containers = containers.len(), "engine listed");
                            self.silent.engine = false;
                            self.sources.found(sources::DOCKER);
                        }
                        EngineChange::Lost(why) => self.sources.lost(sources::DOCKER, why.clone()),
                        // Its start is a millisecond behind: no round comes first.
                        EngineChange::Made { container, name, placement } => {
                            self.calls.begin(engine::place(&self.facts, container, name, placement));
                        }
                        _ => {}
                    }
                    self.facts.apply(change);
                }
                return dirty;
            }
            Told::Runtime(changes) => {
                let mut dirty = false;
                for change in changes {
                    match &change {
                        RuntimeChange::Snapshot(sandboxes) => {
                            info!(sandboxes = sandboxes.len(), "container runtime listed");
                            dirty |= std::mem::take(&mut self.silent.runtime);
                            self.sources.found(sources::CONTAINERD);
                        }
                        RuntimeChange::Lost(why) => self.sources.lost(sources::CONTAINERD, why.clone()),
                        _ => {}
                    }
                    dirty |= self.facts.apply_runtime(change);
                }
                return dirty;
            }
            Told::Cluster(changes) => {
                let mut dirty = false;
                for change in changes {
                    dirty |= self.facts.cluster.apply(change);
                }
                if self.silent.cluster && self.facts.cluster.whole() {
                    info!("API server listed");
                    self.silent.cluster = false;
                }
                return dirty;
            }
            Told::Files(manifests) => {
                self.silent.files = false;
                info!(bindings = manifests.bindings.len(), errors = manifests.errors.len(), "manifests read");
                self.facts.manifests = Index::new(manifests);
            }
            Told::Nft(notice) => {
                if !notice.ours && !notice.lost {
                    return false;
                }
                info!(program = notice.program.as_deref().unwrap_or("?"), "our nftables tables were changed by another program");
                self.metrics.drift.inc();
                self.kernel.forget();
            }
            Told::Called { step, outcome } => {
                if let EngineStep::Place { container, .. } = &step {
                    self.facts.moving.remove(container);
                }
                self.metrics.failures.inc_by(self.calls.ended(&step, outcome).into());
            }
            Told::Carried(marks) => {
                let used = self.used();
                self.past.memory.numbers.release(&used, &marks, &self.outcome.ground.needed);
                self.sweep = None;
            }
            Told::Question(..) | Told::Stop => return false,
        }
        true
    }

    /// Resolves, plans and carries out.
    fn round(&mut self, began: Instant) {
        self.metrics.rounds.inc();
        self.retry = None;
        let Some(plan) = self.plan() else {
            self.retry = Some(Instant::now() + RETRY);
            return;
        };
        let (empty, cuts) = (plan.is_empty(), plan.cuts.clone());
        if !plan.disarm.is_empty() {
            match self.kernel.disarm(&plan.disarm) {
                Ok(()) => cutter::cut_now(&plan.cuts),
                Err(error) => warn!(%error, "failed to take claims out of tables that go"),
            }
        }
        let done = self.kernel.carry_out(plan);
        if empty && !self.taken_over {
            self.kernel.take_over();
        }
        if !self.taken_over && !self.silent.any() {
            self.taken_over = true;
            let sources = self.outcome.rows.iter().filter(|r| r.entry.is_some()).filter_map(|r| r.address).collect();
            let _ = self.cutter.send(Job::Orphans(sources));
        }
        self.metrics.changes.inc_by(done.steps as u64);
        self.metrics.failures.inc_by(done.failures.len() as u64);
        if empty {
            debug!("nothing to change");
        } else {
            let taken = began.elapsed();
            self.metrics.latency.observe(taken.as_secs_f64());
            info!(
                changes = done.steps,
                cuts = cuts.len(),
                failures = done.failures.len(),
                microseconds = taken.as_micros(),
                "kernel programmed"
            );
        }
        if !cuts.is_empty() {
            let _ = self.cutter.send(Job::Cut(cuts));
        }
        if !done.failures.is_empty() {
            self.retry = Some(Instant::now() + RETRY);
        }
        self.failures = done.failures;
        self.remember();
        if self.reporter.is_some() {
            self.news.get_or_insert_with(|| Instant::now() + NEWS);
        }
        if !self.silent.engine {
            self.calls.start(engine::steps(&self.facts));
            self.retry = self.retry.into_iter().chain(self.calls.due()).min();
        }
        let used = self.used();
        if self.sweep.is_none() || is_due(self.sweep) {
            let retired = self.past.memory.numbers.retired(&used).next().is_some();
            self.sweep = retired.then(|| Instant::now() + SWEEP);
            if retired {
                let _ = self.cutter.send(Job::Survey);
            }
        }
    }

    /// Tells the cluster what became of its bindings here.
    fn report(&self) {
        if let Some(reporter) = self.reporter.as_ref().filter(|_| !self.silent.any()) {
            reporter.report(&self.facts.cluster.node, node::spec(&self.facts, &self.outcome, self.problems()));
        }
    }

    /// Whether the agent goes for good. What makes it go is told by two ways, and may come later than the order to stop.
    pub async fn is_dismissed(&mut self, told: &mut mpsc::UnboundedReceiver<Told>) -> bool {
        let deadline = Instant::now() + LAST_WORDS;
        while self.facts.cluster.daemonset.is_some() && !self.facts.cluster.dismissed() {
            tokio::select! {
                one = told.recv() => match one {
                    Some(one) => drop(self.hear(one)),
                    None => break,
                },
                () = sleep_until(Some(deadline)) => break,
            }
        }
        self.facts.cluster.dismissed()
    }

    /// Takes everything of ours out of the kernel.
    pub fn withdraw(&mut self, boot_guard: Option<&Path>) -> Result<(), Error> {
        info!("no agent is wanted here any more: taking everything of egressd out of the kernel");
        let withdrawn = withdraw::withdraw(&mut self.kernel, &self.facts.kernel, boot_guard)?;
        info!(changes = withdrawn.done.steps, flows = withdrawn.flows, failures = ?withdrawn.done.failures, left = ?withdrawn.left, "withdrawn");
        Ok(())
    }

    /// Tells the cluster that nothing is bound here any more.
    pub async fn take_leave(&mut self) {
        if let Some(reporter) = self.reporter.take() {
            reporter.last(&self.facts.cluster.node, node::spec(&self.facts, &Outcome::default(), [])).await;
        }
    }

    /// Writes down what the next boot is to close, once everybody is known.
    fn remember(&mut self) {
        let Some(guard) = self.boot_guard.as_mut().filter(|_| !self.silent.any()) else { return };
        let now = boot::remember(&self.outcome, &self.facts.kernel);
        if guard.written.as_ref() == Some(&now) {
            return;
        }
        match effects::boot::write(&guard.file, &now) {
            Ok(()) => guard.written = Some(now),
            Err(error) => {
                warn!(%error, "failed to remember what is guarded");
                self.failures.push(format!("{error}; give --boot-guard a file that can be written"));
            }
        }
    }

    /// The plan for the facts as they are. `None`: the kernel's tables could not be read.
    fn plan(&mut self) -> Option<Plan> {
        let observed = match self.kernel.ruleset() {
            Ok(ruleset) => ruleset,
            Err(error) => {
                warn!(%error, "failed to read our nftables tables");
                return None;
            }
        };
        if !self.taken_over {
            tables::read_back(observed, &self.facts.kernel, &mut self.past);
        }
        self.facts.cluster.grant();
        // The rows of the round before go first: at ten thousand addresses they are megabytes, and the new ones take their place.
        drop(std::mem::take(&mut self.outcome));
        self.outcome = resolve(&self.facts, &mut self.past);
        let sysctls = self.kernel.sysctls(&routing::sysctl_keys(&self.outcome));
        let ruleset = self.kernel.ruleset().ok()?;
        let observed = Observed { kernel: &self.facts.kernel, ruleset, sysctls: &sysctls };
        Some(Plan::make(&self.outcome, &observed, !self.silent.any()))
    }

    fn used(&self) -> BTreeSet<u32> {
        self.outcome.ground.exits().map(|exit| exit.mark).collect()
    }

    fn answer(&self, question: Question) -> Response {
        match question {
            Question::Status(flows) => Response::Status(self.status(&flows)),
            Question::Explain { workload, destination } => match explain(&self.facts, &self.outcome, &workload, destination) {
                Some(text) => Response::Text(text),
                None => Response::Unknown(workload),
            },
            Question::Metrics => Response::Text(self.metrics.text(&self.outcome, self.sources.up())),
            Question::Ready => Response::Ready(!self.silent.any() && self.failures.is_empty() && self.sources.are_fresh()),
        }
    }

    fn status(&self, flows: &BTreeMap<IpAddr, u64>) -> Status {
        Status::of(&self.facts, &self.outcome, flows, self.problems())
    }

    /// What could not be read or done, each with its cure.
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.facts.manifests.errors.iter().map(|e| format!("{}: {}", e.object, e.error)).collect();
        problems.extend(self.sources.problems());
        if self.silent.cluster {
            problems.push("the API server has not told all yet: nothing is taken away until it has".to_owned());
        }
        problems.extend(self.facts.cluster.troubles.values().cloned());
        let unread = self.facts.engine_problems.iter().chain(&self.facts.runtime_problems);
        problems.extend(unread.map(|(object, problem)| format!("{object}: {problem}")));
        problems.extend(engine::problems(&self.facts));
        problems.extend(self.failures.iter().cloned());
        problems.extend(self.calls.problems());
        problems
    }
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
