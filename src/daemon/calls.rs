//! Calls to the engine: each is made once for what it is about, beside the loop, and a refused one again after a while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::retry;
use super::{Event, EventSender};
use crate::effects::docker::{Engine, Error, Placed};
use crate::facts::backoff::Backoff;
use crate::plan::engine::EngineStep;

/// How long after the first refusal a call is made again.
const AGAIN: Duration = Duration::from_secs(10);

/// The calls by what they are about.
pub(super) struct Calls {
    socket: Option<PathBuf>,
    tell: EventSender,
    calls: BTreeMap<String, Call>,
}

struct Call {
    step: EngineStep,
    state: State,
    backoff: Backoff,
    /// The refusal that the log has.
    logged: Option<String>,
}

enum State {
    Running,
    /// Done, with what status should tell of it. Not made again as long as it is planned.
    Done(Option<String>),
    Refused {
        problem: String,
        again: Instant,
    },
}

/// What a call came to: something to tell, or a refusal.
pub(crate) type CallResult = Result<Option<String>, String>;

impl Calls {
    pub fn new(socket: Option<PathBuf>, tell: EventSender) -> Self {
        Self { socket, tell, calls: BTreeMap::new() }
    }

    /// Starts those of the planned calls that are new, or due again.
    pub fn start(&mut self, steps: Vec<EngineStep>) {
        let now = Instant::now();
        self.calls.retain(|_, call| matches!(call.state, State::Running) || steps.contains(&call.step));
        for step in steps {
            match self.calls.get(&step.object()).map(|call| &call.state) {
                Some(State::Refused { again, .. }) if *again <= now => self.begin(step),
                Some(_) => {}
                None => self.begin(step),
            }
        }
    }

    /// Starts one call, ahead of what is planned.
    pub fn begin(&mut self, step: EngineStep) {
        let Some(socket) = self.socket.clone() else { return };
        let before = self.calls.remove(&step.object()).filter(|call| call.step == step);
        let (backoff, logged) = before.map_or_else(|| (Backoff::new(AGAIN, retry::LONGEST), None), |call| (call.backoff, call.logged));
        self.calls.insert(step.object(), Call { step: step.clone(), state: State::Running, backoff, logged });
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let outcome = make(&socket, &step).await.map_err(|error| error.to_string());
            let _ = tell.send(Event::Called { step, outcome });
        });
    }

    /// Takes note of a call's end; whether it was refused.
    pub fn ended(&mut self, step: &EngineStep, outcome: CallResult) -> bool {
        let object = step.object();
        // A container that was removed may have a successor of its name.
        let Some(call) = self.calls.get_mut(&object).filter(|call| call.step == *step) else { return false };
        match outcome {
            Ok(note) => {
                info!(object, note, "engine call done");
                call.state = State::Done(note);
                false
            }
            Err(problem) => {
                if call.logged.as_ref() != Some(&problem) {
                    warn!(object, problem, "engine call failed; retrying");
                    call.logged = Some(problem.clone());
                }
                call.state = State::Refused { problem, again: Instant::now() + call.backoff.wait() };
                true
            }
        }
    }

    /// When the next refused call is due.
    pub fn due(&self) -> Option<Instant> {
        let again = |call: &Call| match call.state {
            State::Refused { again, .. } => Some(again),
            State::Running | State::Done(_) => None,
        };
        self.calls.values().filter_map(again).min()
    }

    /// What status should tell.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.calls.iter().filter_map(|(object, call)| match &call.state {
            State::Refused { problem, .. } | State::Done(Some(problem)) => Some(format!("{object}: {problem}")),
            State::Running | State::Done(None) => None,
        })
    }
}

async fn make(socket: &Path, step: &EngineStep) -> Result<Option<String>, Error> {
    let engine = Engine::connect(socket)?;
    match step {
        EngineStep::CreateNetwork(network) => engine.create_network(network).await.map(|()| None),
        EngineStep::RemoveNetwork(name) => engine.remove_network(name).await.map(|()| None),
        EngineStep::Place { container, placement, made, .. } => {
            let placed = engine.place(container, placement, made).await?;
            Ok((placed == Placed::Running)
                .then(|| "the container has run before, so it is not moved to its network; remove it and create it again".to_owned()))
        }
    }
}
