//! The loop's events: each updates the facts, and tells whether anything may follow from it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Agent, sleep_until};
use crate::contract::PROTOCOL;
use crate::daemon::keeper::Keeper;
use crate::daemon::{Event, cutter, gateways, keeper, sources};
use crate::effects::nft::Notice;
use crate::model::cluster::ClusterChange;
use crate::model::facts::{EngineChange, KernelChange, Rule};
use crate::model::health::Verdict;
use crate::model::pod::RuntimeChange;
use crate::model::programs::Wanted;
use crate::model::replace;
use crate::model::select::Index;
use crate::plan::engine::{self, EngineStep};
use crate::plan::routing::Routing;

impl Agent {
    /// Handles events until it is enough, or the deadline has passed, or no sender is left.
    pub(super) async fn handle_until(
        &mut self,
        deadline: Instant,
        events: &mut mpsc::UnboundedReceiver<Event>,
        enough: impl Fn(&Self) -> bool,
    ) {
        while !enough(self) {
            tokio::select! {
                one = events.recv() => match one {
                    Some(one) => drop(self.handle(one)),
                    None => break,
                },
                () = sleep_until(Some(deadline)) => break,
            }
        }
    }

    /// Handles an event; whether anything may follow from it.
    pub(super) fn handle(&mut self, event: Event) -> bool {
        self.transitions.touch();
        // What these are about is known.
        let narrow = matches!(event, Event::Kernel(_) | Event::Engine(_) | Event::Cut(_));
        let dirty = self.update(event);
        self.facts.touched.all |= dirty && !narrow;
        dirty
    }

    fn update(&mut self, event: Event) -> bool {
        match event {
            Event::Kernel(changes) => {
                let mut dirty = std::mem::take(&mut self.silent.kernel);
                self.facts.touched.all |= dirty;
                for change in changes {
                    let looked = matches!(change, KernelChange::Routing { .. } | KernelChange::Link(_));
                    self.addresses.note(&change, &self.facts.kernel, &mut self.facts.probes);
                    if let KernelChange::Routing { rules, .. } = &change {
                        self.note_lost(rules);
                    }
                    let new = self.facts.apply_kernel(change);
                    let again = !new && looked && self.looks > 0;
                    self.facts.touched.all |= again;
                    self.looks -= u8::from(again);
                    self.fresh |= new;
                    dirty |= new || again;
                }
                return dirty;
            }
            Event::Engine(changes) => {
                let mut dirty = false;
                for change in changes {
                    dirty |= !matches!(change, EngineChange::Made { .. } | EngineChange::Lost(_) | EngineChange::Problems(_));
                    match &change {
                        EngineChange::Snapshot { containers, .. } => {
                            info!(containers = containers.len(), "received the engine's containers");
                            self.silent.engine = false;
                            self.sources.found(sources::DOCKER);
                            self.sources.told(sources::DOCKER);
                        }
                        EngineChange::Lost(why) => self.sources.lost(sources::DOCKER, why.clone()),
                        // Docker starts the container about a millisecond later, so do not wait for a round.
                        EngineChange::Made { container, name, placement } => {
                            self.calls.begin(engine::place(&self.facts, container, name, placement));
                        }
                        _ => {}
                    }
                    self.facts.apply(change);
                }
                return dirty;
            }
            Event::Runtime(changes) => {
                let mut dirty = false;
                for change in changes {
                    match &change {
                        RuntimeChange::Snapshot(sandboxes) => {
                            info!(sandboxes = sandboxes.len(), "received the runtime's sandboxes");
                            dirty |= std::mem::take(&mut self.silent.runtime);
                            self.sources.found(sources::CONTAINERD);
                            self.sources.told(sources::CONTAINERD);
                        }
                        RuntimeChange::Lost(why) => self.sources.lost(sources::CONTAINERD, why.clone()),
                        _ => {}
                    }
                    dirty |= self.facts.apply_runtime(change);
                }
                return dirty;
            }
            Event::Cluster(changes) => {
                let mut dirty = false;
                for change in changes {
                    match &change {
                        ClusterChange::Lost(why) => self.sources.lost(sources::KUBERNETES, why.clone()),
                        ClusterChange::Found => self.sources.found(sources::KUBERNETES),
                        _ => {}
                    }
                    dirty |= self.facts.cluster.apply(change);
                }
                if self.silent.cluster && self.facts.cluster.whole() {
                    info!("received the API server's objects");
                    self.silent.cluster = false;
                    self.sources.told(sources::KUBERNETES);
                }
                return dirty;
            }
            Event::Files(manifests) => {
                self.silent.files = false;
                info!(bindings = manifests.bindings.len(), errors = manifests.errors.len(), "read manifests");
                self.facts.manifests = Index::new(manifests);
                self.wanted.send_replace(Some(Wanted::of(self.facts.manifests.bindings.iter().map(Arc::as_ref))));
            }
            Event::Programs(mut facts) => {
                self.silent.programs = false;
                facts.no_zones = self.has_no_zones();
                if !facts.cgroups.is_empty()
                    && let Some(why) = self.sees_no_groups()
                {
                    facts = facts.without_cgroups(why);
                }
                self.facts.programs = facts;
            }
            Event::Listeners(listeners) => self.facts.listeners = Some(listeners),
            Event::Health(check, verdict) => {
                if !self.inbound.hears_of(&check) {
                    return false;
                }
                match &verdict {
                    Verdict::Healthy => info!(server = %check, "healthy"),
                    Verdict::Unhealthy(why) => info!(server = %check, why, "unhealthy"),
                }
                self.facts.verdicts.insert(check, verdict);
            }
            Event::RoutedBack(now) => {
                self.facts.routed_back = now;
                return false;
            }
            Event::ServersFree(servers) => {
                self.kernel.free(&servers);
                return false;
            }
            Event::Nft(notice) => return self.changed(&notice),
            Event::Called { step, outcome } => {
                if let EngineStep::Place { container, .. } = &step {
                    self.facts.moving.remove(container);
                }
                self.metrics.failures.inc_by(self.calls.ended(&step, outcome).into());
            }
            Event::Probed(report) => return self.addresses.probed(report, &self.facts.kernel, &mut self.facts.probes),
            Event::Conflict(at, by) => {
                self.addresses.conflict(at, by, &self.facts.kernel);
                return false;
            }
            Event::Cloud(reports) => {
                self.silent.cloud = false;
                self.facts.cloud = reports;
            }
            Event::PortsFull(full) => {
                self.spill.told = true;
                return std::mem::take(&mut self.silent.ports) | replace(&mut self.facts.full, full);
            }
            Event::Gateway(gateways::Report::Dead(at, dead)) => return self.facts.answers.note(at, dead),
            Event::Gateway(gateways::Report::Silent(silent)) => {
                self.gateways.silent(silent);
                return false;
            }
            Event::Gateway(gateways::Report::Problem(problem)) => {
                self.gateways.failed(problem);
                return false;
            }
            Event::Cut(report) => return self.flows_ended(report),
            Event::Remembered(Ok(())) => {
                self.beside.well(keeper::STEP);
                return false;
            }
            Event::Remembered(Err(failure)) => {
                self.beside.failed(failure, Instant::now());
                self.boot_guard.iter_mut().for_each(Keeper::failed);
                return false;
            }
            Event::Unserved(what, problem) => {
                self.unserved.retain(|(of, _)| *of != what);
                self.unserved.extend(problem.map(|problem| (what, problem)));
                return false;
            }
            Event::Question(..) | Event::Stop => return false,
        }
        true
    }

    /// Counts that another program took policy rules of ours away: those that are wanted, and were there until now.
    fn note_lost(&mut self, now: &[Rule]) {
        let ours = |rules: &[Rule]| rules.iter().filter(|rule| rule.protocol == PROTOCOL).count();
        if !self.taken_over || ours(now) >= ours(&self.facts.kernel.rules) {
            return;
        }
        let (before, now): (BTreeSet<&Rule>, BTreeSet<&Rule>) = (self.facts.kernel.rules.iter().collect(), now.iter().collect());
        let wanted = Routing::desired(&self.outcome, &self.facts.kernel).rules;
        if wanted.iter().any(|rule| before.contains(rule) && !now.contains(rule)) {
            info!("another program removed egressd's policy rules; restoring them");
            self.metrics.drift.inc();
        }
    }

    /// Somebody changed nftables, or we cannot know; whether our tables have to be looked at.
    fn changed(&mut self, notice: &Notice) -> bool {
        if notice.nat_chains || notice.lost {
            self.nat.changed();
        }
        if notice.gates || notice.lost {
            self.gates.changed();
        }
        if notice.others || notice.lost {
            // What another firewall refuses of late is refused to open flows, too.
            self.shut();
        }
        if notice.ours {
            info!(program = notice.program.as_deref().unwrap_or("?"), "another program changed egressd's nftables tables; restoring them");
            self.metrics.drift.inc();
            self.kernel.forget();
        } else if notice.lost {
            debug!("nftables events were lost; reading egressd's tables again");
            self.kernel.doubt();
        }
        notice.ours || notice.lost
    }

    /// Closes the fast path for now. If it does not close, the next plan finds that out.
    fn shut(&mut self) {
        if let Err(failure) = self.kernel.close_fast_path() {
            debug!(%failure, "the fast path stays open");
        }
        self.fast_path.disturbed();
    }

    /// Whether the kernel has no conntrack zones. Where it could not be asked it is asked again when programs change.
    fn has_no_zones(&mut self) -> bool {
        if self.no_zones.is_none() {
            match self.kernel.refuses_zones() {
                Ok(none) => self.no_zones = Some(none),
                Err(failure) => warn!(%failure, "retrying; until then datagrams of two programs may count as one flow"),
            }
        }
        self.no_zones.unwrap_or(true)
    }

    /// Why programs cannot be known by their control groups. Where the kernel could not be asked it is asked again when programs change.
    fn sees_no_groups(&mut self) -> Option<String> {
        if self.no_sockets.is_none() {
            match self.kernel.refuses_programs() {
                Ok(why) => self.no_sockets = Some(why),
                Err(failure) => return Some(failure.to_string()),
            }
        }
        self.no_sockets.clone().flatten()
    }

    /// Flows were ended, or not; whether anything may follow from it.
    fn flows_ended(&mut self, report: cutter::Report) -> bool {
        match report.failure {
            Some(failure) => self.beside.failed(failure, Instant::now()),
            None => self.beside.well(cutter::STEP),
        }
        let ended = |(_, address): &(_, IpAddr)| report.ended.iter().any(|source| source.contains(address));
        let before = self.past.departed.len();
        self.past.departed.retain(|departed| !ended(departed));
        if let Some(borne) = &report.borne {
            let used = self.used();
            self.past.memory.numbers.release(&used, borne);
            self.sweep = None;
            self.facts.touched.all = true;
        }
        report.borne.is_some() || self.past.departed.len() < before
    }
}
