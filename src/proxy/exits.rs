//! By which exits connections leave that are dialled by a binding: the agent is asked four times a second, and while it is away what it said
//! last holds, as its rules do in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::scope::Scope;
use crate::daemon::control::{AskError, Request, ask};
use crate::daemon::question::Response;
use crate::model::leave::{Asked, Leaving};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// What is known of the exits that manifests ask for.
pub struct Exits {
    known: Arc<Mutex<Known>>,
    wanted: watch::Sender<BTreeSet<Asked>>,
}

#[derive(Default)]
struct Known {
    of: BTreeMap<Asked, Exit>,
    /// What open connections live in whose exit their binding does not have any more.
    former: Vec<(IpAddr, Arc<Scope>)>,
    /// Why the agent does not answer.
    away: Option<String>,
}

/// The answer to one question, and what was made of it.
#[derive(Default)]
struct Exit {
    /// `None` until the agent has answered.
    leaving: Option<Leaving>,
    /// Turns taken.
    turns: usize,
    /// By their exits: what open connections live in.
    scopes: BTreeMap<IpAddr, Arc<Scope>>,
}

/// How a new connection leaves.
pub struct Way {
    /// The address that it is bound to, if it is not the namespace that decides.
    pub source: Option<IpAddr>,
    /// Where it is dialled, and as long as what it may live.
    pub scope: Arc<Scope>,
}

impl Exits {
    /// Asks the agent of this state folder, once something is wanted. Must be called within a tokio runtime.
    pub fn start(state: &Path) -> Self {
        let (wanted, mut told) = watch::channel(BTreeSet::new());
        let known = Arc::<Mutex<Known>>::default();
        let (state, kept) = (state.to_owned(), Arc::clone(&known));
        tokio::spawn(async move {
            loop {
                let mut all = told.borrow_and_update().clone();
                all.extend(lock(&kept).about_former());
                if all.is_empty() {
                    if told.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                let state = state.clone();
                let answers = spawn_blocking(move || ask_all(&state, all)).await;
                answers.into_iter().flatten().for_each(|(asked, answer)| lock(&kept).take(&asked, answer));
                tokio::select! {
                    changed = told.changed() => if changed.is_err() { return },
                    () = sleep(PAUSE) => {}
                }
            }
        });
        Self { known, wanted }
    }

    /// Says what is of interest from now on.
    pub fn want(&self, wanted: BTreeSet<Asked>) {
        lock(&self.known).want(&wanted);
        self.wanted.send_if_modified(|before| crate::model::replace(before, wanted));
    }

    /// The exits that new connections leave by, in the order of their turn.
    pub fn of(&self, asked: &Asked) -> Vec<IpAddr> {
        let known = lock(&self.known);
        let mut exits = known.of.get(asked).and_then(|exit| exit.leaving.as_ref()).map(|leaving| leaving.exits.clone()).unwrap_or_default();
        let mut seen = BTreeSet::new();
        exits.retain(|exit| seen.insert(*exit));
        exits
    }

    /// Why there is none; `None` when there is one.
    pub fn refusal(&self, asked: &Asked) -> Option<String> {
        lock(&self.known).refusal(asked)
    }

    /// Why the agent could not be asked.
    pub fn problem(&self) -> Option<String> {
        lock(&self.known).away.clone()
    }

    /// How a connection leaves that begins now, dialled in the namespace of `scope`.
    ///
    /// # Errors
    /// When there is no exit, why.
    pub fn leave(&self, asked: &Asked, scope: &Arc<Scope>) -> Result<Way, String> {
        let mut known = lock(&self.known);
        if let Some(why) = known.refusal(asked) {
            return Err(why);
        }
        let way = known.of.get_mut(asked).and_then(|exit| exit.way(asked, scope));
        way.ok_or_else(|| "its exit is not known yet".to_owned())
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer = Result<Option<Leaving>, AskError>;

fn ask_all(state: &Path, all: BTreeSet<Asked>) -> Vec<(Asked, Answer)> {
    let answer = |asked: &Asked| match ask(state, &Request::Leave(asked.clone()))? {
        Response::Leaving(leaving) => Ok(Some(leaving)),
        // It has not heard of everything yet.
        _ => Ok(None),
    };
    all.into_iter().map(|asked| (asked.clone(), answer(&asked))).collect()
}

impl Known {
    fn want(&mut self, wanted: &BTreeSet<Asked>) {
        let (of, unwanted) = std::mem::take(&mut self.of).into_iter().partition(|(asked, _)| wanted.contains(asked));
        self.of = of;
        let unwanted: BTreeMap<Asked, Exit> = unwanted;
        self.former.extend(unwanted.into_values().flat_map(|exit| exit.scopes));
        for asked in wanted {
            self.of.entry(asked.clone()).or_default();
        }
    }

    /// Whether the host still leads out what has a former exit. Those that nothing is open of are forgotten.
    fn about_former(&mut self) -> impl Iterator<Item = Asked> + '_ {
        self.former.retain(|(_, scope)| Arc::strong_count(scope) > 1);
        self.former.iter().map(|(exit, _)| Asked::Source(*exit))
    }

    fn take(&mut self, asked: &Asked, answer: Answer) {
        match answer {
            Ok(leaving) => {
                self.away = None;
                let Some(leaving) = leaving else { return };
                if let (Asked::Source(source), true) = (asked, leaving.exits.is_empty()) {
                    self.former.iter().filter(|(exit, _)| exit == source).for_each(|(_, scope)| scope.gone.cancel());
                }
                if let Some(exit) = self.of.get_mut(asked) {
                    self.former.extend(exit.take(asked, leaving));
                }
            }
            Err(error) => {
                let why = format!("{error}; using the exits that egressd reported last");
                if self.away.as_ref() != Some(&why) {
                    warn!("{why}");
                }
                self.away = Some(why);
            }
        }
    }

    fn refusal(&self, asked: &Asked) -> Option<String> {
        let leaving = self.of.get(asked).and_then(|exit| exit.leaving.as_ref());
        match (leaving, &self.away) {
            (Some(leaving), _) if !leaving.exits.is_empty() => None,
            (Some(leaving), _) => Some(leaving.reason.clone().unwrap_or_else(|| "the binding has no exit".to_owned())),
            (None, Some(away)) => Some(away.clone()),
            (None, None) => Some("egressd has not reported the exit yet".to_owned()),
        }
    }
}

impl Exit {
    /// Gives what open connections live in whose exit is not among those that can be used now.
    fn take(&mut self, asked: &Asked, leaving: Leaving) -> Vec<(IpAddr, Arc<Scope>)> {
        if self.leaving.as_ref() == Some(&leaving) {
            return Vec::new();
        }
        match &leaving.reason {
            Some(reason) => warn!(?asked, reason, "no exit can be used"),
            None => info!(?asked, exits = ?leaving.exits, "connections leave through these exits from now on"),
        }
        let (stay, former) = std::mem::take(&mut self.scopes).into_iter().partition(|(exit, _)| leaving.exits.contains(exit));
        self.scopes = stay;
        let former: BTreeMap<IpAddr, Arc<Scope>> = former;
        if leaving.resets {
            former.values().for_each(|scope| scope.gone.cancel());
        }
        self.leaving = Some(leaving);
        former.into_iter().collect()
    }

    fn way(&mut self, asked: &Asked, scope: &Arc<Scope>) -> Option<Way> {
        let exits = &self.leaving.as_ref()?.exits;
        let source = *exits.get(self.turns % exits.len().max(1))?;
        self.turns = self.turns.wrapping_add(1);
        // The agent gives a pod's connections their exit, and ends them.
        if matches!(asked, Asked::Pod { .. }) {
            return Some(Way { source: None, scope: Arc::clone(scope) });
        }
        let of_exit = self.scopes.entry(source).or_insert_with(|| Arc::new(scope.within()));
        Some(Way { source: Some(source), scope: Arc::clone(of_exit) })
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn host() -> Arc<Scope> {
        Arc::new(Scope { id: None, gone: CancellationToken::new() })
    }

    fn asked() -> Asked {
        Asked::Binding { binding: "default/crawler".to_owned(), ipv6: false }
    }

    fn leaving(hosts: &[u8], resets: bool) -> Leaving {
        let exits: Vec<IpAddr> = hosts.iter().map(|host| [172, 31, 0, *host].into()).collect();
        Leaving { reason: exits.is_empty().then(|| "its NIC is down".to_owned()), exits, resets }
    }

    fn known(answer: Leaving) -> Exits {
        let exits = Exits { known: Arc::default(), wanted: watch::channel(BTreeSet::new()).0 };
        exits.want([asked()].into());
        lock(&exits.known).take(&asked(), Ok(Some(answer)));
        exits
    }

    #[test]
    fn exits_take_turns_and_a_connection_ends_with_its_exit_only_where_the_binding_resets() {
        for resets in [true, false] {
            let exits = known(leaving(&[1, 2, 2], resets));
            let ways: Vec<Way> = (0..4).map(|_| exits.leave(&asked(), &host()).unwrap_or_else(|why| panic!("{why}"))).collect();
            let sources: Vec<String> = ways.iter().map(|way| way.source.unwrap().to_string()).collect();
            assert_eq!(sources, ["172.31.0.1", "172.31.0.2", "172.31.0.2", "172.31.0.1"]);
            lock(&exits.known).take(&asked(), Ok(Some(leaving(&[1], resets))));
            let ended: Vec<bool> = ways.iter().map(|way| way.scope.gone.is_cancelled()).collect();
            assert_eq!(ended, [false, resets, resets, false]);
            // No binding names it any more, so that the host would lead it another way.
            let former: Vec<Asked> = lock(&exits.known).about_former().collect();
            assert_eq!(former, [Asked::Source([172, 31, 0, 2].into())]);
            lock(&exits.known).take(&former[0], Ok(Some(leaving(&[], false))));
            assert!(ways[1].scope.gone.is_cancelled() && !ways[0].scope.gone.is_cancelled());
            drop(ways);
            assert_eq!(lock(&exits.known).about_former().count(), 0);
        }
    }

    #[test]
    fn without_an_exit_it_is_said_why_and_what_was_known_holds_while_the_agent_is_away() {
        let exits = known(leaving(&[], false));
        assert_eq!(exits.refusal(&asked()).as_deref(), Some("its NIC is down"));
        assert!(exits.leave(&asked(), &host()).is_err());
        lock(&exits.known).take(&asked(), Ok(Some(leaving(&[1], false))));
        lock(&exits.known).take(&asked(), Err(AskError::Late));
        assert_eq!(exits.refusal(&asked()), None);
        assert!(exits.leave(&asked(), &host()).is_ok() && exits.problem().is_some());
        let other = Asked::Binding { binding: "default/other".to_owned(), ipv6: false };
        assert_eq!(exits.refusal(&other), exits.problem(), "nothing is known of it");
        lock(&exits.known).take(&asked(), Ok(None));
        assert_eq!((exits.refusal(&asked()), exits.problem()), (None, None), "a new agent has not heard of everything yet");
    }

    #[test]
    fn what_is_dialled_by_an_exit_ends_with_its_namespace() {
        let (exits, host) = (known(leaving(&[1], false)), host());
        let way = exits.leave(&asked(), &host).unwrap_or_else(|why| panic!("{why}"));
        host.gone.cancel();
        assert!(way.scope.gone.is_cancelled());
    }
}
