//! IPVS, where published ports ask for it: its services are read and put right again and again, since the kernel tells nobody of a change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::effects::ipvs::{Error, Ipvs};
use crate::effects::kernel::{Failure, Kernel};
use crate::effects::nft;
use crate::facts::cause::with_causes;
use crate::model::facts::KernelFacts;
use crate::model::ipvs::table::Table;
use crate::model::ipvs::{KernelIpvs, Scheduler};
use crate::model::ports::Called;
use crate::model::replace;
use crate::model::resolve::Outcome;
use crate::model::services::{Served, Services};
use crate::plan::inbound::{ServerCut, virtual_services};
use crate::plan::ipvs::{Ends, IpvsStep, begun_before, desired, redirects, served, steps, sysctls};

/// How often the services are read: what another program does to them is repaired within a second.
const LOOK: Duration = Duration::from_millis(500);
/// How often a kernel without IPVS is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a change by another program is told.
const TOLD: Duration = Duration::from_secs(600);

/// The virtual services of IPVS, and when to read them again.
#[derive(Default)]
pub(super) struct VirtualServices {
    hands: Option<Ipvs>,
    unretired: Vec<Failure>,
    due: Option<Instant>,
    /// Some binding asks for it.
    asked: bool,
    /// It is looked at: somebody asks for it, or there is something of ours.
    wanted: bool,
    desired: Table,
    /// Links whose neighbours must not be told of a better router.
    redirects: BTreeSet<String>,
    /// Addresses of this host: other programs' services at them are in the way.
    own: BTreeSet<IpAddr>,
    /// Servers' addresses that some link of this host led to.
    lived: BTreeSet<IpAddr>,
    ends: Ends,
    /// The last look left all as it is wanted since: what differs now was changed by another program.
    settled: bool,
    /// How often that was so lately, and when last.
    drift: Option<(u32, Instant)>,
    problems: Vec<String>,
    /// What is known has changed: the services are decided on anew.
    news: bool,
}

/// What a look came to.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Flows that have to end.
    pub cuts: Vec<ServerCut>,
    /// Another program had changed something of ours.
    pub drifted: bool,
}

impl VirtualServices {
    pub fn due(&self) -> Option<Instant> {
        if self.news { Some(Instant::now()) } else { self.due }
    }

    /// Takes the flag that the next round has to decide again.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes note of what an outcome needs.
    pub fn want(&mut self, outcome: &Outcome, kernel: &KernelFacts) {
        if !outcome.inbound.ipvs && !self.asked && !self.wanted {
            return;
        }
        let desired = desired(&outcome.inbound);
        self.own = outcome.uplinks.held().map(|(address, _)| address).collect();
        self.redirects = redirects(outcome, kernel);
        let servers: BTreeSet<IpAddr> = desired.values().flat_map(|service| service.servers.keys()).map(|(address, _)| *address).collect();
        let lives = |address: &IpAddr| kernel.near_ends_of(*address).next().is_some();
        self.lived.extend(servers.iter().filter(|address| lives(address)));
        let gone: BTreeSet<IpAddr> = self.lived.iter().filter(|address| !lives(address)).copied().collect();
        let gone_now = replace(&mut self.ends.gone, gone);
        let takes = |called: &Called, server: &IpAddr| {
            let servers = desired.get(called).into_iter().flat_map(|service| &service.servers);
            servers.into_iter().any(|((address, _), one)| address == server && one.weight > 0)
        };
        self.ends.drained.retain(|(called, server)| !takes(called, server));
        self.asked = outcome.inbound.ipvs;
        let wanted = self.asked || !desired.is_empty();
        if replace(&mut self.desired, desired) | gone_now | (wanted && !self.wanted) {
            self.settled = false;
            self.due = Some(Instant::now());
        }
        self.wanted |= wanted;
    }

    /// The time of these servers to drain is over.
    pub fn end(&mut self, cuts: &[ServerCut]) {
        for called in self.desired.keys() {
            let (address, ports) = *called;
            let of = cuts.iter().filter(|cut| cut.hits(address, ports.protocol.number(), ports.first));
            self.ends.drained.extend(of.map(|cut| (*called, cut.server)));
        }
        if !cuts.is_empty() {
            self.settled = false;
            self.due = self.due.map(|_| Instant::now());
        }
    }

    /// Takes over what an earlier run left, ahead of the first decision: who was served then is served on.
    pub fn take_over(&mut self, kernel: &mut Kernel, known: &mut Option<KernelIpvs>, before: &mut Served) {
        let Ok(ours) = kernel.ruleset().map(virtual_services) else { return };
        if ours.is_empty() {
            return;
        }
        self.wanted = true;
        if let Some(table) = self.ask(&ours, known) {
            before.extend(served(&table, &ours));
            self.news = false;
        }
    }

    /// Looks at what there is, and changes nothing.
    fn ask(&mut self, ours: &BTreeSet<Called>, known: &mut Option<KernelIpvs>) -> Option<Table> {
        let table = self.read(known).ok()?;
        self.note_foreign(&table, ours, known);
        Some(table)
    }

    /// Finds out what an outcome depends on, where nobody has looked yet.
    pub fn ask_first(&mut self, outcome: &Outcome, kernel: &mut Kernel, known: &mut Option<KernelIpvs>) {
        if outcome.inbound.ipvs && known.is_none() {
            let ours = kernel.ruleset().map(virtual_services).unwrap_or_default();
            self.ask(&ours, known);
        }
    }

    /// Deletes the services that an outcome has no more. They go ahead of the rules, which say that they are ours; those that are left are told
    /// to it.
    pub fn retire(&mut self, services: &mut Services, kernel: &mut Kernel) {
        self.unretired.clear();
        let wanted = desired(services);
        let Ok(mut gone) = kernel.ruleset().map(virtual_services) else { return };
        gone.retain(|called| !wanted.contains_key(called));
        for called in gone {
            let step = IpvsStep::DeleteService(called);
            match self.apply(&step) {
                Ok(()) => info!("{step}"),
                Err(error) => {
                    self.unretired.push(Failure::of(step.to_string(), &error));
                    services.left.insert(called);
                }
            }
        }
    }

    /// Why services are still there that nobody wants, as the last round found it.
    pub fn unretired(&self) -> &[Failure] {
        &self.unretired
    }

    fn apply(&mut self, step: &IpvsStep) -> Result<(), Error> {
        let hands = match self.hands.take() {
            Some(hands) => hands,
            None => Ipvs::open()?,
        };
        self.hands.insert(hands).apply(step)
    }

    /// Looks, if it is time to, and puts right what is not as it is wanted.
    pub fn look(&mut self, kernel: &mut Kernel, known: &mut Option<KernelIpvs>) -> Looked {
        let mut looked = Looked::default();
        if !self.wanted || self.due.is_none_or(|due| due > Instant::now()) {
            return looked;
        }
        self.due = Some(Instant::now() + LOOK);
        let ours = match kernel.ruleset().map(virtual_services) {
            Ok(ours) => ours,
            Err(error) => {
                self.tell(vec![Failure::of("reading which virtual services are ours", &error as &nft::ReadError).to_string()]);
                return looked;
            }
        };
        let table = match self.read(known) {
            Ok(table) => table,
            Err(Error::Missing) => {
                // The bindings that asked for it are told.
                self.due = Some(Instant::now() + AGAIN);
                self.tell(Vec::new());
                return looked;
            }
            Err(error) => {
                self.tell(vec![with_causes(&error)]);
                return looked;
            }
        };
        self.note_foreign(&table, &ours, known);
        let steps = steps(&self.desired, &table, &ours, &self.ends);
        let mut problems = self.set_sysctls(kernel);
        // What drains goes by itself.
        looked.drifted = self.settled && steps.iter().any(|step| !matches!(step, IpvsStep::DeleteServer(..)));
        let mut done = Vec::new();
        for step in &steps {
            match self.apply(step) {
                Ok(()) => {
                    info!("{step}");
                    done.push(step.clone());
                }
                Err(error) => {
                    self.learn(step, &error, known);
                    problems.push(with_causes(&error));
                }
            }
        }
        looked.cuts = begun_before(&done);
        self.forget_all_but(&table);
        self.settled = problems.is_empty();
        if looked.drifted {
            let count = self.drift.filter(|(_, at)| at.elapsed() < TOLD).map_or(0, |(count, _)| count) + 1;
            self.drift = Some((count, Instant::now()));
            let commands: Vec<String> = steps.iter().map(ToString::to_string).collect();
            warn!(commands = commands.join("; "), "another program changed egressd's virtual services; restoring them");
        }
        self.tell(problems);
        if !self.asked && self.desired.is_empty() && ours.is_empty() {
            (self.wanted, self.due, self.hands) = (false, None, None);
            *known = None;
        }
        looked
    }

    /// Forgets servers that are wanted no more and were none at the last look.
    fn forget_all_but(&mut self, table: &Table) {
        let services = self.desired.values().chain(table.values());
        let servers: BTreeSet<IpAddr> = services.flat_map(|service| service.servers.keys()).map(|(address, _)| *address).collect();
        self.lived.retain(|address| servers.contains(address));
        self.ends.gone.retain(|address| servers.contains(address));
    }

    /// The services as they are.
    fn read(&mut self, known: &mut Option<KernelIpvs>) -> Result<Table, Error> {
        let opened = match self.hands.take() {
            Some(hands) => Ok(hands),
            None => Ipvs::open(),
        };
        let read = opened.and_then(|mut hands| hands.read().map(|table| (table, hands)));
        match read {
            Ok((table, hands)) => {
                self.hands = Some(hands);
                self.news |= known.is_none() | replace(&mut known.get_or_insert_default().missing, None);
                Ok(table)
            }
            Err(error) => {
                let missing = matches!(error, Error::Missing).then(|| error.to_string());
                self.news |= known.is_none() | replace(&mut known.get_or_insert_default().missing, missing);
                Err(error)
            }
        }
    }

    /// Takes note of other programs' services at our addresses, and of schedulers that have come.
    fn note_foreign(&mut self, table: &Table, ours: &BTreeSet<Called>, known: &mut Option<KernelIpvs>) {
        let known = known.get_or_insert_default();
        let foreign: BTreeSet<Called> = table.keys().filter(|called| !ours.contains(called)).copied().collect();
        // Others' services elsewhere come and go, and nothing follows from it.
        let in_the_way =
            |all: &BTreeSet<Called>| -> Vec<Called> { all.iter().filter(|(address, _)| self.own.contains(address)).copied().collect() };
        let differs = in_the_way(&known.foreign) != in_the_way(&foreign);
        known.foreign = foreign;
        let mut unknown = known.unknown.clone();
        unknown.retain(|scheduler| !Path::new(&format!("/sys/module/ip_vs_{scheduler}")).exists());
        self.news |= differs | replace(&mut known.unknown, unknown);
    }

    /// Takes note of a scheduler that the kernel does not have: those who ask for it are told.
    fn learn(&mut self, step: &IpvsStep, error: &Error, known: &mut Option<KernelIpvs>) {
        let (IpvsStep::AddService(_, settings) | IpvsStep::EditService(_, settings)) = step else { return };
        let scheduler = Scheduler::ALL.into_iter().find(|scheduler| scheduler.name() == settings.scheduler);
        if let Some(scheduler) = scheduler.filter(|_| error.is_unknown()) {
            known.get_or_insert_default().unknown.insert(scheduler);
            self.news = true;
        }
    }

    /// Sets what the services stand on.
    fn set_sysctls(&self, kernel: &mut Kernel) -> Vec<String> {
        if self.desired.is_empty() {
            return Vec::new();
        }
        let wanted = sysctls(&self.redirects);
        let set = wanted.iter().map(|(key, value)| kernel.set_sysctl(key, value));
        set.filter_map(Result::err).map(|failure| failure.to_string()).collect()
    }

    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{problem}");
        }
        self.problems = problems;
    }

    /// What status should tell.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let drift = self.drift.filter(|(_, at)| at.elapsed() < TOLD).map(|(count, at)| {
            format!(
                "another program changed egressd's virtual services {count} times, last {} s ago; egressd restored them. Find that program (it may call `ipvsadm -C`, or be kube-proxy's clean-up) and stop it",
                at.elapsed().as_secs()
            )
        });
        self.problems.iter().cloned().chain(drift)
    }

    /// The steps that would be carried out.
    pub fn planned(&mut self, outcome: &Outcome, kernel: &mut Kernel) -> Vec<IpvsStep> {
        let wanted = desired(&outcome.inbound);
        let mut ours: BTreeSet<Called> = kernel.ruleset().map(virtual_services).unwrap_or_default();
        ours.extend(wanted.keys());
        let table = self.hands.as_mut().and_then(|hands| hands.read().ok()).unwrap_or_default();
        steps(&wanted, &table, &ours, &self.ends)
    }
}

/// Deletes these services: all that is ours goes.
///
/// # Errors
/// When IPVS cannot be asked, or refuses.
pub(super) fn withdraw(services: &BTreeSet<Called>) -> Result<usize, Error> {
    if services.is_empty() {
        return Ok(0);
    }
    let mut hands = match Ipvs::open() {
        Err(Error::Missing) => return Ok(0),
        other => other?,
    };
    let gone: BTreeMap<_, _> = hands.read()?.into_iter().filter(|(called, _)| services.contains(called)).collect();
    gone.keys().try_for_each(|called| hands.apply(&IpvsStep::DeleteService(*called)))?;
    Ok(gone.len())
}
