//! Whether the gateways of exits are there: each is asked four times a second, beside the loop.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_indextoname;
use tracing::{debug, info, warn};

use self::memory::Memory;
use super::{Event, EventSender, threads};
use crate::effects::neighbours::Neighbours;
use crate::facts::backoff::at_random;
use crate::model::facts::{KernelFacts, is_link_local};
use crate::model::gateways::{Answers, Asked, Health};
use crate::model::managed::{At, LinkFamily, by_link, link_of};
use crate::model::replace;
use crate::wire::neighbour::Mac;

/// Between two questions to a gateway, less up to a fifth at random: hosts that started together do not ask together.
const EVERY: Duration = Duration::from_millis(250);
/// How long after a NIC was opened, or could not be, it is opened again.
const AGAIN: Duration = Duration::from_secs(5);

/// What the loop is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A gateway is dead, or back.
    Dead(At, bool),
    /// The gateways that have been asked for some seconds, and have never answered.
    Silent(BTreeSet<At>),
    /// Why gateways are not asked, if so.
    Problem(Option<String>),
}

/// The gateways that are probed.
pub(super) struct GatewayProbes {
    wanted: Asked,
    thread: mpsc::Sender<Asked>,
    problem: Option<String>,
    silent: BTreeSet<At>,
}

impl GatewayProbes {
    /// With what was known of them when the daemon ended last, by its state folder: who was dead is until it has answered.
    pub fn new(state: &Path, tell: EventSender) -> (Self, Answers) {
        let memory = Memory::open(state);
        let answers = memory.answers();
        let thread = threads::start("gateways", move |wanted| watch(wanted, memory, &tell));
        (Self { wanted: Asked::new(), thread, problem: None, silent: BTreeSet::new() }, answers)
    }

    /// From now on these are asked, and no others.
    pub fn want(&mut self, wanted: &Asked) {
        if self.wanted != *wanted {
            self.wanted.clone_from(wanted);
            let _ = self.thread.send(wanted.clone());
        }
    }

    /// Takes note of why gateways are not asked, or that they are.
    pub fn failed(&mut self, problem: Option<String>) {
        problem.iter().for_each(|problem| warn!("{problem}"));
        self.problem = problem;
    }

    /// Takes note of the gateways that never answered.
    pub fn silent(&mut self, silent: BTreeSet<At>) {
        self.silent = silent;
    }

    /// What status should tell.
    pub fn problems<'a>(&'a self, kernel: &'a KernelFacts) -> impl Iterator<Item = String> + 'a {
        let asked = self.silent.iter().filter(|at| self.wanted.contains_key(at));
        let silent = asked.filter_map(|(nic, gateway)| Some((&kernel.links.get(nic)?.name, gateway))).map(|(nic, gateway)| {
            format!(
                "gateway {gateway} has not answered on {nic} yet, so packets through it may not arrive: `ip neigh show dev {nic}` lists who answers; a binding's `gateway` has to be the router of the NIC's subnet"
            )
        });
        self.problem.iter().cloned().chain(silent)
    }
}

/// One gateway.
#[derive(Default)]
struct Gateway {
    health: Health,
    /// The NIC's address that asks.
    from: Option<IpAddr>,
    /// The machine that answered last; everybody is asked once it does not.
    mac: Option<Mac>,
    asked: bool,
}

/// The NICs of gateways, by family.
#[derive(Default)]
struct Links {
    /// The gateways that each hears of.
    of: BTreeMap<LinkFamily, BTreeSet<IpAddr>>,
    /// With the time until which they are good: this host's NICs may change.
    open: BTreeMap<LinkFamily, (Neighbours, Instant)>,
    /// When those that could not be opened are tried again.
    closed: BTreeMap<LinkFamily, Instant>,
    problem: Option<String>,
}

/// The thread; it ends when the sender is dropped.
fn watch(wanted: &mpsc::Receiver<Asked>, mut memory: Memory, tell: &EventSender) {
    let mut gateways: BTreeMap<At, Gateway> = BTreeMap::new();
    let mut links = Links::default();
    let (mut silent, mut problem) = (BTreeSet::new(), None);
    loop {
        let pause = || EVERY - at_random(EVERY / 5);
        let Ok(mut given) = threads::all_given(wanted, (!gateways.is_empty()).then(pause)) else { return };
        if let Some(newest) = given.pop() {
            links.listen_for(&newest);
            let mut before = std::mem::take(&mut gateways);
            for (at, from) in newest {
                let known = before.remove(&at);
                let gateway = known.unwrap_or_else(|| Gateway { health: memory.recall(at), ..Gateway::default() });
                gateways.insert(at, Gateway { from, ..gateway });
            }
            if gateways.is_empty() && problem.take().is_some() {
                let _ = tell.send(Event::Gateway(Report::Problem(None)));
            }
            // The next round comes at its time.
            continue;
        }
        let changed = round(&mut gateways, &mut links);
        if !changed.is_empty() {
            memory.keep(gateways.iter().map(|(at, gateway)| (*at, gateway.health)));
        }
        for (at, dead) in changed {
            if dead {
                warn!(gateway = %at.1, "gateway does not answer any more");
            } else {
                info!(gateway = %at.1, "gateway answers");
            }
            if tell.send(Event::Gateway(Report::Dead(at, dead))).is_err() {
                return;
            }
        }
        let now: BTreeSet<At> = gateways.iter().filter(|(_, gateway)| gateway.health.is_silent()).map(|(at, _)| *at).collect();
        if replace(&mut silent, now) {
            let _ = tell.send(Event::Gateway(Report::Silent(silent.clone())));
        }
        if replace(&mut problem, links.problem.clone()) {
            let _ = tell.send(Event::Gateway(Report::Problem(problem.clone())));
        }
    }
}

/// Takes note of the answers to the last questions, and asks the next; what changed.
fn round(gateways: &mut BTreeMap<At, Gateway>, links: &mut Links) -> Vec<(At, bool)> {
    let mut answers: BTreeMap<At, Mac> = BTreeMap::new();
    for ((nic, _), (link, _)) in &links.open {
        answers.extend(link.claims(Instant::now()).map(|claim| ((*nic, claim.address), claim.mac)));
    }
    let mut changed = Vec::new();
    for (at, gateway) in gateways {
        let answer = answers.get(at).copied();
        if gateway.asked || answer.is_some() {
            gateway.mac = answer;
            changed.extend(gateway.health.note(answer.is_some()).map(|dead| (*at, dead)));
        }
        let from = gateway.from.or_else(|| link_local_of(*at));
        gateway.asked = from.is_some_and(|from| links.ask(*at, from, gateway.mac));
    }
    changed
}

/// The NIC's own link-local address, which alone may ask for a router by its link-local one where the NIC has no other of IPv6.
fn link_local_of((nic, gateway): At) -> Option<IpAddr> {
    let is_on_link = |address: &IpAddr| address.is_ipv6() && is_link_local(*address);
    let name = is_on_link(&gateway).then(|| if_indextoname(nic).ok()).flatten()?;
    let mut own = getifaddrs().ok()?.filter(|one| name.to_str() == Ok(one.interface_name.as_str()));
    own.find_map(|one| Some(IpAddr::from(one.address?.as_sockaddr_in6()?.ip())).filter(is_on_link))
}

impl Links {
    /// From now on these are heard of, and no others. A link that hears of the same ones as before goes on.
    fn listen_for(&mut self, asked: &Asked) {
        let of = by_link(asked.keys());
        self.open.retain(|link, _| of.get(link) == self.of.get(link));
        self.closed.retain(|link, _| of.contains_key(link));
        if of.is_empty() {
            self.problem = None;
        }
        self.of = of;
    }

    /// Asks a gateway; whether it could be asked.
    fn ask(&mut self, at: At, from: IpAddr, last: Option<Mac>) -> bool {
        let link = link_of(&at);
        match self.asked(link, at.1, from, last) {
            Ok(asked) => asked,
            Err(error) => {
                self.open.remove(&link);
                let known = self.closed.insert(link, Instant::now() + AGAIN).is_some();
                debug!(gateway = %at.1, %error, "failed to ask a gateway");
                // A link that is down or gone is no problem of ours.
                if !known && error.kind() == io::ErrorKind::PermissionDenied {
                    self.problem = Some(format!(
                        "cannot probe gateways ({error}), so a dead one is not noticed; give egressd CAP_NET_RAW, and the address family AF_PACKET"
                    ));
                }
                false
            }
        }
    }

    fn asked(&mut self, link: LinkFamily, gateway: IpAddr, from: IpAddr, last: Option<Mac>) -> io::Result<bool> {
        if self.closed.get(&link).is_some_and(|again| *again > Instant::now()) {
            return Ok(false);
        }
        let now = Instant::now();
        let (neighbours, until) = match self.open.remove(&link).filter(|(_, until)| *until > now) {
            Some(open) => open,
            None => (Neighbours::open(link.0, link.1, self.of.get(&link))?, now + AGAIN),
        };
        neighbours.ask(gateway, from, last)?;
        self.closed.remove(&link);
        self.problem = None;
        self.open.insert(link, (neighbours, until));
        Ok(true)
    }
}
