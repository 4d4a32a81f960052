//! One connection to an engine, from the first list to the first failure.
//!
//! Nothing here waits for one container while another has something to say: questions run beside each other and beside the events. At most one
//! question about a network, and one to the list, is on its way at a time; what comes up meanwhile goes into the next one. So an answer is
//! never older than the event that made it necessary, answers about one thing never overtake each other, and a thousand starts at once cost a
//! few big answers instead of a thousand. A container is never inspected by itself: engine 20.10 answers that only when its start is over.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, Network, NetworkInspect};
use bollard::query_parameters::EventsOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::Instant;

use super::book::{Ask, Book, Endpoint, Parse};
use super::question::{PAGE, all_containers, all_networks, one_network, some_containers, some_endpoints};
use super::read::{self, Event, Listed};
use crate::model::facts::EngineChange;

/// An engine that takes longer to begin an answer is taken for lost.
const TIMEOUT_SECONDS: u64 = 30;
/// How far back events are read: a container that is just being started has said `connect` already, and the list has no address yet.
const LOOK_BACK: Duration = Duration::from_secs(5);
/// How old a `create` may be for its container to count as being made; one from before the list does not, since it may have started.
const MOMENT: Duration = Duration::from_millis(500);
/// How long the list may lag behind an event.
const LAG: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("failed to connect to the engine")]
    Connect(#[source] bollard::errors::Error),
    #[error("failed to ask the engine for {question}: {source}")]
    Question { question: &'static str, source: bollard::errors::Error },
    #[error("failed to read events: {0}")]
    Events(#[source] bollard::errors::Error),
    #[error("the engine closed the stream of events")]
    Closed,
}

/// What came back for a question.
pub enum Answer {
    Containers { asked: Vec<(String, u32)>, listed: Vec<Listed> },
    Endpoints { network: String, endpoints: Vec<Endpoint>, inspected: Option<Box<NetworkInspect>> },
    Network { id: String, network: Option<Box<Network>> },
}

struct Session {
    docker: Docker,
    book: Book,
    answers: FuturesUnordered<BoxFuture<'static, Result<Answer, Ended>>>,
    /// Containers that the next list question is for.
    dirty: HashSet<String>,
    listing: bool,
    later: VecDeque<(Instant, String)>,
    /// By network: what the next question is for. There is an entry while a question is on its way.
    endpoints: HashMap<String, Vec<Endpoint>>,
}

/// Tells a snapshot and then the changes, until something fails.
pub async fn run(socket: &Path, parse: Parse, mut tell: impl FnMut(EngineChange)) -> Ended {
    match follow(socket, parse, &mut tell).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn follow(socket: &Path, parse: Parse, tell: &mut impl FnMut(EngineChange)) -> Result<std::convert::Infallible, Ended> {
    let docker = connect(socket).await.map_err(Ended::Connect)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The engine begins its answer before it subscribes, so `since` is what makes sure that nothing falls between events and list.
    let mut events = docker.events(Some(events_since(now.saturating_sub(LOOK_BACK)))).boxed();
    let mut early = VecDeque::new();
    let mut session = Session {
        docker: docker.clone(),
        book: Book::new(parse),
        answers: FuturesUnordered::new(),
        dirty: HashSet::new(),
        listing: false,
        later: VecDeque::new(),
        endpoints: HashMap::new(),
    };
    tell(session.snapshot(&mut events, &mut early).await?);
    for message in early {
        news(message, now).into_iter().for_each(|event| session.event(event, tell));
    }
    loop {
        let due = session.later.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            message = events.next() => {
                let message = message.ok_or(Ended::Closed)?.map_err(Ended::Events)?;
                let making = at(&message) >= now && age(&message) < MOMENT;
                if let Some(event) = news(message, now) {
                    session.book.made(&event).filter(|_| making).into_iter().for_each(&mut *tell);
                    session.event(event, tell);
                }
            }
            Some(answer) = session.answers.next() => session.answer(answer?, tell),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => session.due(),
        }
    }
}

/// bollard 0.21 puts no version into its paths, so every engine answers in its own newest one; all that is read here is the same since API 1.41.
async fn connect(socket: &Path) -> Result<Docker, bollard::errors::Error> {
    let docker = Docker::connect_with_unix(&socket.to_string_lossy(), TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    docker.negotiate_version().await
}

/// What an event tells beyond a list that was asked for at `listed`: what the list may lag behind, and of the time before that any `connect`,
/// whose address the list may lack.
fn news(message: EventMessage, listed: Duration) -> Option<Event> {
    let old = at(&message) + LAG < listed;
    read::event(message).filter(|event| !old || matches!(event, Event::Connected { .. }))
}

/// When it happened, by the engine's clock, since the epoch.
fn at(message: &EventMessage) -> Duration {
    Duration::from_nanos(message.time_nano.and_then(|time| time.try_into().ok()).unwrap_or_default())
}

fn age(message: &EventMessage) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(at(message))
}

fn events_since(time: Duration) -> EventsOptions {
    let since = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    EventsOptions { since: Some(since), until: None, filters: Some(read::event_filters()) }
}

impl Session {
    /// Lists everything, and reads events meanwhile: the engine drops what a slow listener does not take.
    async fn snapshot(
        &mut self,
        events: &mut (impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + Unpin),
        early: &mut VecDeque<EventMessage>,
    ) -> Result<EngineChange, Ended> {
        let docker = self.docker.clone();
        let listing = async move { futures::try_join!(all_containers(&docker), all_networks(&docker)) };
        tokio::pin!(listing);
        loop {
            tokio::select! {
                message = events.next() => early.push_back(message.ok_or(Ended::Closed)?.map_err(Ended::Events)?),
                listed = &mut listing => {
                    let (listed, networks) = listed?;
                    let networks = networks.into_iter().filter_map(read::network).collect();
                    return Ok(EngineChange::Snapshot { containers: self.book.restart(listed), networks });
                }
            }
        }
    }

    fn event(&mut self, event: Event, tell: &mut impl FnMut(EngineChange)) {
        tracing::trace!(?event, "docker event");
        let (change, ask) = self.book.event(event);
        change.into_iter().for_each(&mut *tell);
        ask.into_iter().for_each(|ask| self.ask(ask));
    }

    fn answer(&mut self, answer: Answer, tell: &mut impl FnMut(EngineChange)) {
        match answer {
            Answer::Containers { mut asked, listed } => {
                self.listing = false;
                for one in listed {
                    if let Some(place) = asked.iter().position(|(id, _)| *id == one.id) {
                        let (_, era) = asked.swap_remove(place);
                        self.book.relisted(one, era).into_iter().for_each(&mut *tell);
                    }
                }
                asked.iter().filter_map(|(id, _)| self.book.gone(id)).for_each(&mut *tell);
                self.ask_containers();
            }
            Answer::Endpoints { network, endpoints, inspected } => {
                for endpoint in endpoints {
                    let addresses = inspected.as_deref().and_then(|network| read::addresses(network, &endpoint.container));
                    let (change, ask) = self.book.addresses(&endpoint, addresses);
                    change.into_iter().for_each(&mut *tell);
                    ask.into_iter().for_each(|ask| self.ask(ask));
                }
                let waiting = self.endpoints.remove(&network).unwrap_or_default();
                self.ask_endpoints(network, waiting);
            }
            Answer::Network { id, network } => {
                let network = network.and_then(|network| read::network(*network));
                tell(network.map_or(EngineChange::NetworkGone(id), |network| EngineChange::Network(Box::new(network))));
            }
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.later.pop_front_if(|(due, _)| *due <= now) {
            self.dirty.insert(id);
        }
        self.ask_containers();
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Container(id) => {
                self.dirty.insert(id);
                self.ask_containers();
            }
            Ask::ContainerLater(id) => self.later.push_back((Instant::now() + LAG, id)),
            Ask::Addresses(endpoint) => match self.endpoints.get_mut(&endpoint.network) {
                Some(waiting) => waiting.push(endpoint),
                None => self.ask_endpoints(endpoint.network.clone(), vec![endpoint]),
            },
            Ask::Network(id) => {
                let docker = self.docker.clone();
                self.answers.push(async move { one_network(&docker, id).await }.boxed());
            }
        }
    }

    fn ask_containers(&mut self) {
        if self.listing || self.dirty.is_empty() {
            return;
        }
        self.listing = true;
        let some: Vec<_> = self.dirty.iter().take(usize::try_from(PAGE).unwrap_or(1)).cloned().collect();
        some.iter().for_each(|id| _ = self.dirty.remove(id));
        let asked = some.into_iter().map(|id| (self.book.era(&id), id)).map(|(era, id)| (id, era)).collect();
        let docker = self.docker.clone();
        self.answers.push(async move { some_containers(&docker, asked).await }.boxed());
    }

    fn ask_endpoints(&mut self, network: String, endpoints: Vec<Endpoint>) {
        if endpoints.is_empty() {
            return;
        }
        self.endpoints.insert(network.clone(), Vec::new());
        let docker = self.docker.clone();
        self.answers.push(async move { some_endpoints(&docker, network, endpoints).await }.boxed());
    }
}
