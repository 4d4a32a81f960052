//! Keeps the routes and rules by which servers' answers come back through this host: a thread of its own enters their network namespaces, and looks
//! at all of them again and again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tracing::error;

use super::{Event, EventSender, threads};
use crate::effects::route_back::{self, Hands};
use crate::model::facts::KernelFacts;
use crate::model::replace;
use crate::model::resolve::Outcome;
use crate::model::route_back::{RouteBack, RoutedBack};
use crate::model::ways_back::ways_back;

/// How often all namespaces are looked at while any has something of ours: nobody tells of changes in them.
const LOOK: Duration = Duration::from_secs(2);

/// The routes back of servers, which a thread keeps.
pub(super) struct RoutesBack {
    state: PathBuf,
    tell: EventSender,
    thread: Option<mpsc::Sender<BTreeSet<RouteBack>>>,
    wanted: BTreeSet<RouteBack>,
    /// Whether an earlier run left something is known.
    looked: bool,
}

impl RoutesBack {
    /// Starts nothing yet. `state` is the state directory.
    pub fn new(state: PathBuf, tell: EventSender) -> Self {
        Self { state, tell, thread: None, wanted: BTreeSet::new(), looked: false }
    }

    /// Takes note of what an outcome needs. What an earlier run left goes with the first that is told.
    pub fn want(&mut self, outcome: &Outcome, kernel: &KernelFacts) {
        let changed = replace(&mut self.wanted, ways_back(outcome, kernel));
        let first = replace(&mut self.looked, true);
        let left = first && route_back::has_left_something(&self.state);
        if !changed && !left {
            return;
        }
        let thread = self.thread.get_or_insert_with(|| start(self.state.clone(), self.tell.clone()));
        let _ = thread.send(self.wanted.clone());
    }
}

fn start(state: PathBuf, tell: EventSender) -> mpsc::Sender<BTreeSet<RouteBack>> {
    threads::start("route-back", move |orders: &mpsc::Receiver<BTreeSet<RouteBack>>| match Hands::new(&state) {
        Ok(hands) => keep(hands, &state, orders, &tell),
        Err(error) => {
            error!(%error, "failed to keep the servers' routes back");
            let failed = |wanted: BTreeSet<RouteBack>| wanted.into_iter().map(|one| (one, Err(error.to_string()))).collect();
            while orders.recv().is_ok_and(|wanted| tell.send(Event::RoutedBack(failed(wanted))).is_ok()) {}
        }
    })
}

fn keep(mut hands: Hands, state: &Path, orders: &mpsc::Receiver<BTreeSet<RouteBack>>, tell: &EventSender) {
    let (mut wanted, mut last) = (BTreeSet::new(), RoutedBack::new());
    loop {
        let idle = wanted.is_empty() && !route_back::has_left_something(state);
        let order = if idle { orders.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { orders.recv_timeout(LOOK) };
        match order {
            Ok(newer) => wanted = orders.try_iter().last().unwrap_or(newer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = hands.look(&wanted);
        if replace(&mut last, now) && tell.send(Event::RoutedBack(last.clone())).is_err() {
            return;
        }
    }
}
