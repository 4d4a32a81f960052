//! What became of workloads since the round before: one line of the log for each, and the last of them for who asks.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use foldhash::{HashMap, HashSet};
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, info};

use crate::model::binding::BindingName;
use crate::model::resolve::Outcome;
use crate::model::resolve::few::Changed;
use crate::model::workload::{Row, State, Subject};
use crate::report::changes::{Change, Changes, KEPT};
use crate::report::status::{shown, time, word};

/// Lines of one round, at most: on a large node all workloads may change at once.
const LINES: usize = 100;

/// The bound workloads of the round before, by what tells their addresses apart.
#[derive(Default)]
pub(super) struct Transitions {
    seen: HashMap<u64, Seen>,
    round: u64,
    /// The last changes, oldest first.
    last: VecDeque<Change>,
    /// Goes up whenever status may have changed.
    revision: watch::Sender<u64>,
}

struct Seen {
    subject: Subject,
    address: Option<IpNet>,
    binding: BindingName,
    state: State,
    /// The state's word: a row that no interface shows is waiting whatever its state.
    word: &'static str,
    since: Timestamp,
    round: u64,
}

/// How much of one look at rows was told.
struct Telling {
    at: Timestamp,
    changed: usize,
    kept: usize,
}

impl Transitions {
    /// Logs what differs from the round before, and returns how much that is.
    pub fn log(&mut self, outcome: &Outcome) -> usize {
        self.round += 1;
        let mut telling = Telling { at: Timestamp::now(), changed: 0, kept: 0 };
        outcome.all_rows().for_each(|row| self.look(row, outcome, &mut telling));
        let (round, last) = (self.round, &mut self.last);
        self.seen.retain(|_, seen| {
            let stays = seen.round == round;
            if !stays {
                telling.gone(seen, last);
            }
            stays
        });
        self.told(&telling)
    }

    /// The same of what has changed for a few.
    pub fn log_few(&mut self, outcome: &Outcome, changed: &Changed) -> usize {
        let mut telling = Telling { at: Timestamp::now(), changed: 0, kept: 0 };
        changed.after.iter().for_each(|row| self.look(row, outcome, &mut telling));
        let stay: HashSet<u64> = changed.after.iter().filter(|row| row.binding.is_some()).map(key).collect();
        for gone in changed.before.iter().map(key).filter(|key| !stay.contains(key)) {
            if let Some(seen) = self.seen.remove(&gone) {
                telling.gone(&seen, &mut self.last);
            }
        }
        self.told(&telling)
    }

    fn look(&mut self, row: &Row, outcome: &Outcome, telling: &mut Telling) {
        let Some(binding) = row.binding.as_ref().map(|binding| &binding.name) else { return };
        let key = key(row);
        let before = self.seen.get(&key);
        let same = before.filter(|before| before.binding == *binding && before.state == row.state);
        if same.is_none() {
            telling.changed += 1;
            if telling.changed <= LINES {
                tell(row, binding, outcome);
            }
        }
        let since = same.filter(|same| same.word == word(row)).map(|same| same.since);
        // More of one round would push each other out.
        if since.is_none() && telling.kept < KEPT {
            telling.kept += 1;
            let from = before.map(|before| before.word.to_owned());
            keep(&mut self.last, Change::to_row(row, outcome, binding.to_string(), from, telling.at));
        }
        let now = Seen {
            subject: row.subject.clone(),
            address: row.address,
            binding: binding.clone(),
            state: row.state.clone(),
            word: word(row),
            since: since.unwrap_or(telling.at),
            round: self.round,
        };
        self.seen.insert(key, now);
    }

    fn told(&self, telling: &Telling) -> usize {
        if telling.changed > LINES {
            info!(more = telling.changed - LINES, "and other workloads; see `egressd status`");
        }
        self.touch();
        telling.changed
    }

    /// Tells those who watch that status may have changed.
    pub fn touch(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// A number that goes up whenever status may have changed.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The last changes, oldest first.
    pub fn last(&self) -> Changes {
        Changes { changes: self.last.iter().cloned().collect() }
    }

    /// Since when a row is what it is; `None` of one that no binding asks for.
    pub fn since(&self, row: &Row) -> Option<Timestamp> {
        self.seen.get(&key(row)).map(|seen| seen.since)
    }
}

impl Telling {
    fn gone(&mut self, seen: &Seen, last: &mut VecDeque<Change>) {
        self.changed += 1;
        if self.kept < KEPT {
            self.kept += 1;
            keep(last, seen.freed(self.at));
        }
        if self.changed <= LINES {
            info!(workload = %seen.subject, address = seen.address.map(shown), binding = %seen.binding, "freed");
        }
    }
}

impl Seen {
    fn freed(&self, at: Timestamp) -> Change {
        Change {
            at: time(at),
            workload: self.subject.to_string(),
            address: self.address.map(shown),
            binding: self.binding.to_string(),
            from: Some(self.word.to_owned()),
            to: "Freed".to_owned(),
            exit: None,
            nic: None,
            reason: None,
            message: None,
        }
    }
}

fn keep(last: &mut VecDeque<Change>, change: Change) {
    if last.len() == KEPT {
        last.pop_front();
    }
    last.push_back(change);
}

/// A workload has one row for each address, and one without while it waits for it.
fn key(row: &Row) -> u64 {
    let subject = match &row.subject {
        Subject::Container(container) => container.id.as_str(),
        Subject::Pod(pod) => pod.uid.as_str(),
        Subject::Bare(name) => name,
        Subject::Namespace(name) | Subject::Programs(name) => name,
        Subject::Source(_) => "",
    };
    FixedState::default().hash_one((subject, row.network.as_deref(), row.address))
}

fn tell(row: &Row, binding: &BindingName, outcome: &Outcome) {
    let (workload, address) = (&row.subject, row.address.map(shown));
    match &row.state {
        State::Bound(exit) => {
            let nic = outcome.uplinks.nics.get(&exit.interface).map(|uplink| uplink.name.as_str());
            info!(%workload, address, exit = %exit.address, nic, %binding, "bound");
        }
        State::Waiting(reason) => debug!(%workload, address, %binding, reason = reason.word(), "waiting"),
        State::Dropped(reason) | State::FellBack(reason) | State::Refused(reason) => {
            info!(%workload, address, %binding, reason = reason.word(), why = %reason, "{}", word(row).to_lowercase());
        }
        State::Free => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::binding::{Binding, Selector, Source};
    use crate::model::reason::Reason;
    use crate::model::select::Held;

    fn row(name: &str, state: State) -> Row {
        Row {
            subject: Subject::Bare(name.to_owned()),
            network: None,
            default_route: false,
            address: None,
            entry: None,
            binding: Some(Held::Listed(Arc::new(Binding::plain(Source::File, "shop/crawler", Selector::Addresses(Vec::new()))))),
            losers: Vec::new(),
            beside: Vec::new(),
            state,
        }
    }

    fn outcome(rows: Vec<Row>) -> Outcome {
        Outcome { rows, ..Outcome::default() }
    }

    fn told(transitions: &Transitions) -> Vec<(String, Option<String>, String)> {
        transitions.last().changes.into_iter().map(|change| (change.workload, change.from, change.to)).collect()
    }

    #[test]
    fn a_change_says_from_what_to_what_and_what_does_not_change_keeps_its_moment() {
        let mut transitions = Transitions::default();
        let waiting = || row("web", State::Waiting(Reason::NoAddressYet));
        assert_eq!(transitions.log(&outcome(vec![waiting()])), 1);
        let since = transitions.since(&waiting());
        assert!(since.is_some());
        assert_eq!(transitions.log(&outcome(vec![waiting()])), 0);
        assert_eq!(transitions.since(&waiting()), since);
        let refused = row("web", State::Refused(Reason::BeingPlaced));
        assert_eq!(transitions.log(&outcome(vec![refused])), 1);
        assert_eq!(transitions.log(&outcome(Vec::new())), 1);
        let (name, word) = (|| "web".to_owned(), |word: &str| Some(word.to_owned()));
        assert_eq!(
            told(&transitions),
            [
                (name(), None, "Waiting".to_owned()),
                (name(), word("Waiting"), "Refused".to_owned()),
                (name(), word("Refused"), "Freed".to_owned())
            ]
        );
        assert_eq!(transitions.since(&waiting()), None);
    }

    #[test]
    fn the_last_changes_are_kept_and_no_more() {
        let mut transitions = Transitions::default();
        let rows = |count: usize| (0..count).map(|number| row(&number.to_string(), State::Waiting(Reason::NoAddressYet))).collect();
        transitions.log(&outcome(rows(KEPT + 5)));
        let names = |transitions: &Transitions| told(transitions).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        assert_eq!((names(&transitions).len(), names(&transitions)[KEPT - 1].as_str()), (KEPT, "199"), "of one round the first");
        transitions.log(&outcome(rows(KEPT + 7)));
        let last = names(&transitions);
        assert_eq!((last.len(), last[0].as_str(), last[KEPT - 1].as_str()), (KEPT, "2", "206"), "of two rounds the newest");
    }

    #[test]
    fn who_watches_hears_of_every_round() {
        let mut transitions = Transitions::default();
        let revisions = transitions.revisions();
        transitions.log(&Outcome::default());
        assert!(revisions.has_changed().unwrap());
    }
}
