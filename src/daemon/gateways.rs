//! Whether the gateways of exits are there: each is asked four times a second, beside the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{Teller, Told};
use crate::effects::neighbours::Neighbours;
use crate::facts::backoff::at_random;
use crate::model::facts::{Family, IfIndex};
use crate::model::gateways::Health;
use crate::model::managed::{At, link_of};
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
    /// Why gateways are not asked.
    Problem(String),
}

/// The gateways that are asked.
pub(super) struct Watch {
    wanted: BTreeSet<At>,
    thread: mpsc::Sender<BTreeSet<At>>,
    problem: Option<String>,
}

impl Watch {
    pub fn new(tell: Teller) -> Self {
        let (thread, wanted) = mpsc::channel();
        let work = move || watch(&wanted, &tell);
        std::thread::Builder::new().name("gateways".to_owned()).spawn(work).expect("a thread can be started");
        Self { wanted: BTreeSet::new(), thread, problem: None }
    }

    /// From now on these are asked, and no others.
    pub fn want(&mut self, wanted: &BTreeSet<At>) {
        if self.wanted != *wanted {
            self.wanted.clone_from(wanted);
            let _ = self.thread.send(wanted.clone());
        }
    }

    /// Takes note of why gateways are not asked.
    pub fn failed(&mut self, problem: String) {
        warn!("{problem}");
        self.problem = Some(problem);
    }

    /// What status should tell.
    pub fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}

/// One gateway.
#[derive(Default)]
struct Gateway {
    health: Health,
    /// The machine that answered last; everybody is asked once it does not.
    mac: Option<Mac>,
    asked: bool,
}

/// The NICs of gateways, by family.
#[derive(Default)]
struct Links {
    /// With the time until which they are good: the NIC's own addresses, which they ask from, may change.
    open: BTreeMap<(IfIndex, Family), (Neighbours, Instant)>,
    /// When those that could not be opened are tried again.
    closed: BTreeMap<(IfIndex, Family), Instant>,
    problem: Option<String>,
}

/// The thread; it ends when the sender is dropped.
fn watch(wanted: &mpsc::Receiver<BTreeSet<At>>, tell: &Teller) {
    let mut gateways: BTreeMap<At, Gateway> = BTreeMap::new();
    let mut links = Links::default();
    loop {
        let next = if gateways.is_empty() {
            wanted.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            wanted.recv_timeout(EVERY - at_random(EVERY / 5))
        };
        match next {
            Ok(mut now) => {
                now = wanted.try_iter().last().unwrap_or(now);
                gateways.retain(|at, _| now.contains(at));
                links.open.retain(|link, _| now.iter().any(|at| link_of(at) == *link));
                let before = std::mem::take(&mut gateways);
                gateways = now.into_iter().map(|at| (at, Gateway::default())).collect();
                gateways.extend(before);
                // The next round comes at its time.
                continue;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        for (at, dead) in round(&mut gateways, &mut links) {
            info!(gateway = %at.1, dead, "gateway");
            if tell.send(Told::Gateway(Report::Dead(at, dead))).is_err() {
                return;
            }
        }
        if let Some(problem) = links.problem.take() {
            let _ = tell.send(Told::Gateway(Report::Problem(problem)));
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
        gateway.asked = links.ask(*at, gateway.mac);
    }
    changed
}

impl Links {
    /// Asks a gateway; whether it could be asked.
    fn ask(&mut self, at: At, last: Option<Mac>) -> bool {
        let link = link_of(&at);
        match self.asked(link, at.1, last) {
            Ok(asked) => asked,
            Err(error) => {
                self.open.remove(&link);
                let known = self.closed.insert(link, Instant::now() + AGAIN).is_some();
                debug!(gateway = %at.1, %error, "failed to ask a gateway");
                // A link that is down or gone is no problem of ours.
                if !known && error.kind() == io::ErrorKind::PermissionDenied {
                    self.problem = Some(format!(
                        "whether gateways are there is not known: they cannot be asked ({error}); let egressd have CAP_NET_RAW, and the address family AF_PACKET"
                    ));
                }
                false
            }
        }
    }

    fn asked(&mut self, link: (IfIndex, Family), gateway: IpAddr, last: Option<Mac>) -> io::Result<bool> {
        if self.closed.get(&link).is_some_and(|again| *again > Instant::now()) {
            return Ok(false);
        }
        let now = Instant::now();
        let (neighbours, until) = match self.open.remove(&link).filter(|(_, until)| *until > now) {
            Some(open) => open,
            None => (Neighbours::open(link.0, link.1)?, now + AGAIN),
        };
        let asked = neighbours.ask(gateway, last)?;
        self.closed.remove(&link);
        self.open.insert(link, (neighbours, until));
        Ok(asked)
    }
}
