//! One connection to an engine, from the first list to the first failure.
//!
//! Nothing here waits for one container while another has something to say: questions run beside each other and beside the events. At most one
//! question about a network, and one to the list, is on its way at a time; what comes up meanwhile goes into the next one. So an answer is
//! never older than the event that made it necessary, answers about one thing never overtake each other, and a thousand starts at once cost a
//! few big answers instead of a thousand. A container is never inspected by itself: engine 20.10 answers that only when its start is over.
//!
//! Events are ordered by arrival, never by their timestamps: a clock that is set back would make all events old. The engine is subscribed to
//! first and listed afterwards. Events that come before the list is here are reasons to ask again, all later ones are changes. The engine begins
//! its answer before it subscribes, so everything is listed once more a while later, and then every few minutes.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::Instant;

use super::client::{AskError, Client};
use super::read::{self, Event, Listed};
use super::state::{Ask, Asked, Endpoint, EngineState, Everything, Followup, Parse};
use super::wire::{self, List};
use crate::facts::pending::Pending;
use crate::model::facts::{EngineChange, Network};

/// An engine that takes longer for a whole answer is taken for lost; a network, for not answering.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the list may lag behind an event.
const LAG: Duration = Duration::from_secs(1);
/// How often everything is listed: the engine drops events that nobody takes in time.
const AGAIN: Duration = Duration::from_secs(180);
/// The same while a container is on a network that the engine does not tell of.
const SOON: Duration = Duration::from_secs(5);
/// Containers in one question.
const MOST: usize = 500;
/// Events that are looked at ahead of their turn.
const AHEAD: usize = 1024;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("failed to ask the engine for {question}: {source}")]
    Question { question: &'static str, source: AskError },
    #[error("failed to read events: {0}")]
    Events(#[source] AskError),
    #[error("the engine closed the stream of events")]
    Closed,
}

/// What came back for a question.
enum Answer {
    Everything(Everything),
    Containers { asked: Vec<Asked>, list: List<Listed> },
    Endpoints { network: String, endpoints: Vec<Endpoint>, inspected: Result<Option<wire::Network>, AskError> },
    Network { id: String, network: Option<Network> },
}

struct Session {
    client: Client,
    state: EngineState,
    answers: FuturesUnordered<BoxFuture<'static, Result<Answer, Ended>>>,
    /// Containers that the next list question is for, and whether the list should have caught up with what is known of them.
    dirty: HashMap<String, bool>,
    listing: bool,
    later: VecDeque<(Instant, Ask)>,
    /// By network: what the next question is for. There is an entry while a question is on its way.
    endpoints: HashMap<String, Vec<Endpoint>>,
    networks: Pending<String>,
    /// When everything is listed next; `None` while it is.
    again: Option<Instant>,
    /// Events from before the first list; `None` once that is told.
    early: Option<Vec<Event>>,
}

/// Tells a snapshot and then the changes, until something fails.
pub async fn run(socket: &Path, parse: Parse, mut tell: impl FnMut(EngineChange)) -> Ended {
    match follow(socket, parse, &mut tell).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn follow(socket: &Path, parse: Parse, tell: &mut impl FnMut(EngineChange)) -> Result<std::convert::Infallible, Ended> {
    let client = Client::new(socket, PATIENCE);
    let mut events = Incoming::new(client.events(&read::event_filters()).await.map_err(Ended::Events)?.lines());
    let mut session = Session {
        client,
        state: EngineState::new(parse),
        answers: FuturesUnordered::new(),
        dirty: HashMap::new(),
        listing: false,
        later: VecDeque::new(),
        endpoints: HashMap::new(),
        networks: Pending::default(),
        again: None,
        early: Some(Vec::new()),
    };
    session.list_everything();
    loop {
        events.take_what_is_there()?;
        if let Some(event) = events.queue.pop_front() {
            session.hear(event, &events.queue, tell);
            continue;
        }
        let due = session.later.front().map(|(due, _)| *due).into_iter().chain(session.again).min();
        tokio::select! {
            biased;
            line = events.lines.next() => events.take(line)?,
            Some(answer) = session.answers.next() => session.answer(answer?, tell),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => session.due(),
        }
    }
}

/// What the stream of events has brought.
enum Heard {
    Event(Event),
    /// Something happened, and nobody knows what.
    Unreadable,
}

/// Events in the order of the stream, those that are there already ahead of their turn.
struct Incoming<L> {
    lines: L,
    queue: VecDeque<Heard>,
}

impl<L: Stream<Item = Result<Vec<u8>, AskError>> + Unpin> Incoming<L> {
    fn new(lines: L) -> Self {
        Self { lines, queue: VecDeque::new() }
    }

    fn take_what_is_there(&mut self) -> Result<(), Ended> {
        while self.queue.len() < AHEAD
            && let Some(line) = self.lines.next().now_or_never()
        {
            self.take(line)?;
        }
        Ok(())
    }

    fn take(&mut self, line: Option<Result<Vec<u8>, AskError>>) -> Result<(), Ended> {
        let line = line.ok_or(Ended::Closed)?.map_err(Ended::Events)?;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(&line) {
            Ok(event) => self.queue.extend(read::event(event).map(Heard::Event)),
            Err(error) => {
                tracing::warn!(%error, "failed to read an event of the engine; listing everything again");
                self.queue.push_back(Heard::Unreadable);
            }
        }
        Ok(())
    }
}

impl Session {
    /// Takes in an event; `ahead` is what has come after it already.
    fn hear(&mut self, heard: Heard, ahead: &VecDeque<Heard>, tell: &mut impl FnMut(EngineChange)) {
        let event = match heard {
            Heard::Event(event) => event,
            Heard::Unreadable => {
                self.list_again_within(LAG);
                return;
            }
        };
        tracing::trace!(?event, "docker event");
        if let Some(early) = &mut self.early {
            early.push(event);
            return;
        }
        if let Some(made) = self.state.made(&event) {
            // A container whose start has been told as well may have run for long: nobody listened.
            let started = |heard: &Heard| matches!(heard, Heard::Event(Event::Started(id)) if id == event.object());
            if !ahead.iter().any(started) {
                tell(made);
            }
        }
        let followup = self.state.event(event);
        self.carry_out(followup, tell);
    }

    fn answer(&mut self, answer: Answer, tell: &mut impl FnMut(EngineChange)) {
        match answer {
            Answer::Everything(everything) => {
                let Some(early) = self.early.take() else {
                    self.again = Some(Instant::now() + AGAIN);
                    let followup = self.state.everything(everything);
                    return self.carry_out(followup, tell);
                };
                self.again = Some(Instant::now() + LAG);
                let followup = self.state.restart(everything);
                self.carry_out(followup, tell);
                for event in early {
                    let ask = self.state.doubt(event);
                    ask.into_iter().for_each(|ask| self.ask(ask));
                }
            }
            Answer::Containers { asked, list } => {
                self.listing = false;
                let followup = self.state.relisted(asked, list);
                self.carry_out(followup, tell);
                self.ask_containers();
            }
            Answer::Endpoints { network, endpoints, inspected } => {
                let failure = inspected.as_ref().err().map(ToString::to_string);
                self.state.network_answers(&network, failure).into_iter().for_each(&mut *tell);
                match inspected {
                    Ok(inspected) => {
                        for endpoint in endpoints {
                            let addresses = inspected.as_ref().and_then(|network| read::addresses(network, &endpoint.container));
                            let followup = self.state.addresses(&endpoint, addresses);
                            self.carry_out(followup, tell);
                        }
                    }
                    Err(_) => {
                        let open = endpoints.into_iter().filter(|endpoint| self.state.is_open(endpoint));
                        self.later.extend(open.map(|endpoint| (Instant::now() + LAG, Ask::Addresses(endpoint))));
                    }
                }
                let waiting = self.endpoints.remove(&network).unwrap_or_default();
                self.ask_endpoints(network, waiting);
            }
            Answer::Network { id, network } => {
                if self.networks.end(&id) {
                    return self.ask(Ask::Network(id));
                }
                if network.is_none() && self.state.has_somebody_on(&id) {
                    self.list_again_within(SOON);
                }
                self.state.network_found(&id, network).into_iter().for_each(tell);
            }
        }
    }

    fn carry_out(&mut self, followup: Followup, tell: &mut impl FnMut(EngineChange)) {
        followup.changes.into_iter().for_each(tell);
        followup.asks.into_iter().for_each(|ask| self.ask(ask));
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some((_, ask)) = self.later.pop_front_if(|(due, _)| *due <= now) {
            match ask {
                Ask::ContainerLater(id) => _ = self.dirty.insert(id, true),
                other => self.ask(other),
            }
        }
        self.ask_containers();
        if self.again.is_some_and(|again| again <= now) {
            self.list_everything();
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Container(id) => {
                self.dirty.entry(id).or_default();
                self.ask_containers();
            }
            Ask::ContainerLater(_) => self.later.push_back((Instant::now() + LAG, ask)),
            Ask::Addresses(endpoint) => match self.endpoints.get_mut(&endpoint.network) {
                Some(waiting) => waiting.push(endpoint),
                None => self.ask_endpoints(endpoint.network.clone(), vec![endpoint]),
            },
            Ask::Network(id) => {
                if !self.networks.begin(&id) {
                    return;
                }
                let client = self.client.clone();
                self.put(async move {
                    let network = client.one_network(&id).await.map_err(failed("a network"))?;
                    Ok(Answer::Network { id, network })
                });
            }
        }
    }

    fn list_again_within(&mut self, time: Duration) {
        self.again = self.again.map(|again| again.min(Instant::now() + time));
    }

    fn list_everything(&mut self) {
        self.again = None;
        self.state.begin();
        let client = self.client.clone();
        self.put(async move {
            let containers = async { client.all_containers().await.map_err(failed("its containers")) };
            let networks = async { client.networks().await.map_err(failed("its networks")) };
            let (containers, networks) = futures::try_join!(containers, networks)?;
            Ok(Answer::Everything(Everything { containers, networks }))
        });
    }

    fn ask_containers(&mut self) {
        if self.listing || self.dirty.is_empty() {
            return;
        }
        self.listing = true;
        let some: Vec<String> = self.dirty.keys().take(MOST).cloned().collect();
        let asked = |id: String| Asked { era: self.state.era(&id), settled: self.dirty.remove(&id).unwrap_or_default(), id };
        let asked: Vec<Asked> = some.into_iter().map(asked).collect();
        let client = self.client.clone();
        self.put(async move {
            let ids: Vec<&str> = asked.iter().map(|one| one.id.as_str()).collect();
            let List { entries, broken } = client.some_containers(&ids).await.map_err(failed("some containers"))?;
            Ok(Answer::Containers { list: List { entries: entries.into_iter().map(read::container).collect(), broken }, asked })
        });
    }

    fn ask_endpoints(&mut self, network: String, endpoints: Vec<Endpoint>) {
        if endpoints.is_empty() {
            return;
        }
        self.endpoints.insert(network.clone(), Vec::new());
        let client = self.client.clone();
        self.put(async move {
            let inspected = client.network(&network).await;
            Ok(Answer::Endpoints { network, endpoints, inspected })
        });
    }

    fn put(&self, question: impl Future<Output = Result<Answer, Ended>> + Send + 'static) {
        self.answers.push(question.boxed());
    }
}

fn failed(question: &'static str) -> impl FnOnce(AskError) -> Ended {
    move |source| Ended::Question { question, source }
}
