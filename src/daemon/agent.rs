//! The loop: facts in, plan out. Everything that it knows is derived again in each round.

mod answer;
mod dry_run;
mod events;
mod leave;
mod managed;
mod round;
mod silent;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc as thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

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
use super::{Event, EventSender, Options, addresses, fast_path, gates, gateways, holders, ipvs, nat, route_back, spill};
use crate::effects::kernel::{Failure, Kernel};
use crate::effects::kubernetes::reporter::Reporter;
use crate::model::cluster::Cluster;
use crate::model::known::Facts;
use crate::model::listeners::Listeners;
use crate::model::programs::Wanted;
use crate::model::resolve::census::Census;
use crate::model::resolve::{Outcome, Past};
use crate::plan::{Planner, boot};
use crate::report::node;

/// How often to check whether flows still bear exits that nobody is bound to any more.
const SWEEP: Duration = Duration::from_secs(30);
/// How often all settings are looked at again: of most of them the kernel tells nothing when another program changes them.
const LOOK: Duration = Duration::from_secs(60);
/// As many as a program that deletes routes until there are none needs, and few enough where the kernel never shows what it was told.
const LOOKS: u8 = 16;
/// How long after a change the cluster is told of it, and of what else has changed meanwhile.
const REPORT_DELAY: Duration = Duration::from_millis(200);

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
    /// The same of conntrack's zones.
    no_zones: Option<bool>,
    /// What is to be looked up of the host's programs.
    wanted: watch::Sender<Option<Wanted>>,
    sources: Sources,
    /// The kernel's tables were looked at for what an earlier run left.
    taken_over: bool,
    /// The containers of the last round, as rounds for a few of them need it.
    census: Option<Census>,
    /// Rounds for a few since everything was looked at.
    rounds_since_full: u64,
    /// Steps of the last round that failed.
    failing: Retries,
    /// Work beside the loop that failed.
    beside: Retries,
    /// What is not served by HTTP, and why.
    unserved: Vec<(&'static str, String)>,
    nat: nat::NatChains,
    gates: gates::FirewallGates,
    addresses: addresses::ManagedAddresses,
    gateways: gateways::GatewayProbes,
    spill: spill::PortSpill,
    fast_path: fast_path::FastPathKeeper,
    inbound: Inbound,
    ipvs: ipvs::VirtualServices,
    holders: holders::Keeper,
    route_back: route_back::RoutesBack,
    transitions: Transitions,
    manager: Manager,
    calls: Calls,
    reporter: Option<Reporter>,
    boot_guard: Option<Keeper>,
    sweep: Option<Instant>,
    /// A round could not begin: when the next one may.
    held: Option<Instant>,
    look: Option<Instant>,
    /// When the cluster is to be told.
    report_due: Option<Instant>,
}

impl Agent {
    pub fn new(options: &Options, kernel: Kernel, wanted: watch::Sender<Option<Wanted>>, tell: EventSender) -> Self {
        if options.manifests.is_none() {
            wanted.send_replace(Some(Wanted::default()));
        }
        let mut sources = Sources::default();
        options.docker.iter().for_each(|_| sources.expect(sources::DOCKER));
        options.containerd.iter().for_each(|_| sources.expect(sources::CONTAINERD));
        options.cluster.iter().for_each(|_| sources.expect(sources::KUBERNETES));
        let mut facts = Facts::of(Cluster::new(options.cluster.as_ref().is_some_and(|cluster| cluster.raw_exits), &options.inside));
        // Until the runtime has spoken nobody knows where a pod is, whatever the API server says of addresses.
        facts.sandboxes = options.containerd.is_some().then(BTreeMap::new);
        facts.listeners = Some(Listeners::default());
        let (gateways, answers) = gateways::GatewayProbes::new(&options.state, tell.clone());
        let holders = holders::Keeper::open(&options.state);
        facts.answers = answers;
        Self {
            cutter: cutter::start(tell.clone()),
            kernel,
            metrics: Metrics::new(),
            facts,
            past: Past { holders: holders.kept().clone(), ..Past::default() },
            holders,
            outcome: Outcome::default(),
            planner: Planner::default(),
            fresh: false,
            looks: 0,
            silent: Silent::new(options),
            no_sockets: None,
            no_zones: None,
            wanted,
            sources,
            taken_over: false,
            census: None,
            rounds_since_full: 0,
            failing: Retries::default(),
            beside: Retries::default(),
            unserved: Vec::new(),
            nat: nat::NatChains::new(),
            gates: gates::FirewallGates::new(),
            addresses: addresses::ManagedAddresses::new(tell.clone()),
            gateways,
            spill: spill::PortSpill::new(&options.sysctls, tell.clone()),
            fast_path: fast_path::FastPathKeeper::new(options.fast_path),
            inbound: Inbound::start(&tell),
            ipvs: ipvs::VirtualServices::default(),
            route_back: route_back::RoutesBack::new(options.state.clone(), tell.clone()),
            transitions: Transitions::default(),
            manager: Manager::new(),
            boot_guard: options.boot_guard.clone().filter(|_| !options.dry_run).map(|file| Keeper::start(file, tell.clone())),
            reporter: None,
            calls: Calls::new(options.docker.clone().filter(|_| !options.dry_run), tell.clone()),
            sweep: None,
            held: None,
            look: None,
            report_due: None,
        }
    }

    /// From now on the cluster is told what became of its bindings here.
    pub fn report_by(&mut self, reporter: Reporter) {
        self.reporter = Some(reporter);
    }

    /// Until told to stop.
    pub async fn run(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) {
        loop {
            let wake = [
                self.due(),
                self.look,
                self.report_due,
                self.nat.due(),
                self.gates.due(),
                self.addresses.due(),
                self.inbound.due(),
                self.ipvs.due(),
                self.fast_path.due(),
                self.manager.due(),
            ]
            .into_iter()
            .flatten()
            .min();
            let first = tokio::select! {
                one = events.recv() => match one {
                    Some(one) => Some(one),
                    None => return,
                },
                () = sleep_until(wake) => None,
            };
            let began = Instant::now();
            let mut dirty = is_due(self.due()) | self.ipvs.take_news();
            self.facts.touched.all |= dirty;
            let mut questions = Vec::new();
            // All that is there already goes into the same round.
            for one in first.into_iter().chain(std::iter::from_fn(|| events.try_recv().ok())) {
                match one {
                    Event::Stop => return,
                    Event::Question(question, respond) => questions.push((question, respond)),
                    other => dirty |= self.handle(other),
                }
            }
            let look = is_due(self.look);
            if (dirty || look) && !self.silent.local() {
                self.facts.touched.all |= look;
                self.round(began, !dirty);
            }
            self.look_after_addresses(began);
            self.manager.alive();
            self.nat.look(&mut self.kernel);
            self.gates.look(&mut self.kernel);
            self.ipvs.end(&self.inbound.end_drains(&self.cutter));
            self.look_at_ipvs();
            let calm = self.is_calm();
            self.fast_path.look(calm, &self.outcome, &self.facts.kernel, &mut self.kernel, &self.cutter);
            if is_due(self.report_due) {
                self.report_due = None;
                self.report_to_cluster();
            }
            for (question, respond) in questions {
                let _ = respond.send(self.answer(question));
            }
        }
    }

    /// Nothing is left to do, nor to end.
    fn is_calm(&mut self) -> bool {
        let done = self.failing.is_empty() && self.beside.is_empty() && self.past.departed.is_empty();
        done && self.taken_over && !self.silent.any() && self.kernel.known_ruleset().is_some()
    }

    /// When there is something to do though nothing changed: what failed is tried again, and exits that nobody uses are looked for. Not before
    /// what keeps a round from doing it is tried again.
    fn due(&self) -> Option<Instant> {
        let calls = self.calls.due().filter(|_| !self.silent.engine);
        let first = [self.failing.due(), self.beside.due(), calls, self.sweep].into_iter().flatten().min();
        first.map(|due| self.held.map_or(due, |held| due.max(held)))
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
        self.held = self.failing.due();
    }

    /// Tells the cluster what became of its bindings here.
    fn report_to_cluster(&self) {
        if let Some(reporter) = self.reporter.as_ref().filter(|_| !self.silent.any()) {
            let problems = self.problems_for(answer::Audience::Cluster);
            reporter.report(&self.facts.cluster.node, node::spec(&self.facts, &self.outcome, problems));
        }
    }

    /// Writes down what the next boot is to close, once everybody is known.
    fn remember(&mut self, now: Instant) {
        self.beside.begin_due(keeper::STEP, now);
        let Some(keeper) = self.boot_guard.as_mut().filter(|_| !self.silent.any()) else { return };
        keeper.keep(boot::remember(&self.outcome, &self.facts.kernel));
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
