//! One connection to a containerd, from the first list to the first failure.
//!
//! Questions run beside each other and beside the events, at most one at a time for a container; an event that makes its record doubtful makes
//! the next one necessary, so that no answer is older than the event that asked for it.
//!
//! containerd answers a subscription only with its first event, so nobody knows when it began. It is asked for ahead of the list, and the list is
//! read once more a while later; and again when shims must have told what they kept while containerd was away, since what events speak of
//! while a list is read is left as they say. Events are ordered by arrival, never by their timestamps: a clock may be set back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::{
    GetContainerRequest, GetRequest, ListContainersRequest, ListNamespacesRequest, ListTasksRequest, SubscribeRequest,
};
use containerd_client::tonic::{Code, Request, Response, Status, metadata, transport};
use containerd_client::types::{Envelope, v1};
use containerd_client::{Client, connect};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use tokio::time::{Instant, timeout};

use super::event::{self, Event};
use super::namespaces::Namespaces;
use super::record::{self, DOCKER, Id, LIST_FILTER, Record};
use super::state::{Ask, Followup, Found, Listed, Parse, RuntimeState};
use crate::facts::pending::Pending;
use crate::model::pod::RuntimeChange;

/// A containerd that takes longer for an answer is taken for lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the tasks of a namespace may take, and one task by itself: containerd asks each one's shim, one after another, and gives one that
/// hangs two seconds.
const PATIENCE_TASKS: Duration = Duration::from_secs(10);
const PATIENCE_TASK: Duration = Duration::from_secs(5);
/// A list of tasks that takes longer may have left out those whose shims hang: what it lacks is asked for one by one.
const PROMPT: Duration = Duration::from_secs(1);
/// Tasks that are asked for at a time, when not all can be.
const ABREAST: usize = 16;
/// How long after the first list, and after the second one, the list is read again.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// How long after all further ones.
const RELIST: Duration = Duration::from_secs(180);
/// containerd's own limit for a message; a list of 10,000 tasks has about 2 MiB.
const LARGEST: usize = 16 << 20;
/// Which namespace of containerd a question is about.
const NAMESPACE: &str = "containerd-namespace";

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("failed to connect to containerd: {0}")]
    Reach(#[source] std::io::Error),
    #[error("failed to connect to containerd: {0}")]
    Connect(#[source] transport::Error),
    #[error("failed to ask containerd for {what}: {status}")]
    Question { what: &'static str, status: Box<Status> },
    #[error("containerd gave no answer for {what} within {} s", PATIENCE.as_secs())]
    Slow { what: &'static str },
    #[error("failed to read events: {0}")]
    Events(#[source] Box<Status>),
    #[error("containerd closed the stream of events")]
    Closed,
}

enum Answer {
    Record(Id, Read<Found>),
    List(Read<Listed>),
}

/// What was read, and what of it could not be: by id, why.
struct Read<T> {
    found: T,
    faults: BTreeMap<Id, String>,
}

struct Session {
    channel: transport::Channel,
    namespaces: Namespaces,
    state: RuntimeState,
    answers: FuturesUnordered<BoxFuture<'static, Result<Answer, Ended>>>,
    /// Containers whose record is being asked for.
    asked: Pending<Id>,
    listing: bool,
    /// When the list is to be read next.
    due: Option<Instant>,
    /// Lists that were read.
    lists: usize,
    faults: BTreeMap<Id, String>,
}

/// Tells a snapshot and then the changes, until something fails.
pub async fn run(socket: &Path, parse: Parse, mut tell: impl FnMut(RuntimeChange)) -> Ended {
    match follow(socket, parse, &mut tell).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn follow(socket: &Path, parse: Parse, tell: &mut impl FnMut(RuntimeChange)) -> Result<Infallible, Ended> {
    let namespaces = patiently("a connection", async { Namespaces::of(socket).await.map_err(Ended::Reach) }).await?;
    let channel = patiently("a connection", async { connect(socket).await.map_err(Ended::Connect) }).await?;
    let mut events = subscribe(channel.clone()).boxed();
    let mut session = Session {
        channel,
        namespaces,
        state: RuntimeState::new(parse),
        answers: FuturesUnordered::new(),
        asked: Pending::default(),
        listing: false,
        due: None,
        lists: 0,
        faults: BTreeMap::new(),
    };
    session.list();
    loop {
        let due = session.due.filter(|_| !session.listing);
        tokio::select! {
            // The subscription goes out first.
            biased;
            envelope = events.next() => {
                let envelope = envelope.ok_or(Ended::Closed)?.map_err(|status| Ended::Events(Box::new(status)))?;
                if let Some((id, event)) = event::read(&envelope).filter(|(id, _)| id.namespace != DOCKER) {
                    session.event(id, event, tell);
                }
            }
            Some(answer) = session.answers.next() => session.answer(answer?, tell),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                session.due = None;
                session.list();
            }
        }
    }
}

fn subscribe(channel: transport::Channel) -> impl Stream<Item = Result<Envelope, Status>> {
    let subscribed = async move { Client::from(channel).events().subscribe(SubscribeRequest { filters: event::filters() }).await };
    subscribed.map_ok(Response::into_inner).try_flatten_stream()
}

impl Session {
    fn event(&mut self, id: Id, event: Event, tell: &mut impl FnMut(RuntimeChange)) {
        tracing::trace!(%id, ?event, "containerd event");
        if matches!(event, Event::Created | Event::Updated | Event::Deleted) {
            self.asked.again(&id);
        }
        if event == Event::Deleted {
            self.blame(&id, None, tell);
        }
        let followup = self.state.event(id, event);
        self.carry_out(followup, tell);
    }

    fn answer(&mut self, answer: Answer, tell: &mut impl FnMut(RuntimeChange)) {
        match answer {
            Answer::Record(id, Read { found, mut faults }) => {
                if self.asked.end(&id) {
                    return self.ask(id);
                }
                self.blame(&id, faults.remove(&id), tell);
                let followup = self.state.found(id, found);
                self.carry_out(followup, tell);
            }
            Answer::List(Read { found, faults }) => {
                self.listing = false;
                for followup in self.state.listed(found) {
                    self.carry_out(followup, tell);
                }
                self.due = Some(Instant::now() + AGAIN.get(self.lists).copied().unwrap_or(RELIST));
                self.lists += 1;
                if self.lists == 1 {
                    tell(RuntimeChange::Snapshot(self.state.sandboxes()));
                }
                if self.faults != faults {
                    self.faults = faults;
                    tell(self.problems());
                }
            }
        }
    }

    /// Takes note of what is wrong with a container's record by now.
    fn blame(&mut self, id: &Id, fault: Option<String>, tell: &mut impl FnMut(RuntimeChange)) {
        let before = self.faults.remove(id);
        let same = before == fault;
        self.faults.extend(fault.map(|fault| (id.clone(), fault)));
        if !same && self.lists > 0 {
            tell(self.problems());
        }
    }

    fn problems(&self) -> RuntimeChange {
        RuntimeChange::Problems(self.faults.iter().map(|(id, fault)| (format!("container {id}"), fault.clone())).collect())
    }

    fn carry_out(&mut self, followup: Followup, tell: &mut impl FnMut(RuntimeChange)) {
        let change = match followup.ask {
            Some(Ask::Record(id)) => {
                self.ask(id);
                None
            }
            Some(Ask::Namespace { id, pid }) => {
                let found = self.namespaces.of_process(pid);
                self.state.namespace(&id, pid, found)
            }
            None => None,
        };
        // What is known before the list is told is in it.
        [followup.change, change].into_iter().flatten().filter(|_| self.lists > 0).for_each(tell);
    }

    fn ask(&mut self, id: Id) {
        if !self.asked.begin(&id) {
            return;
        }
        let client = Client::from(self.channel.clone());
        self.answers.push(patiently("a container", async move { one_record(&client, id).await }).boxed());
    }

    fn list(&mut self) {
        self.listing = true;
        self.state.begin();
        let client = Client::from(self.channel.clone());
        self.answers.push(async move { all(&client).await.map(Answer::List) }.boxed());
    }
}

async fn patiently<T>(what: &'static str, answer: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
    timeout(PATIENCE, answer).await.unwrap_or(Err(Ended::Slow { what }))
}

fn refused(what: &'static str) -> impl FnOnce(Status) -> Ended {
    move |status| Ended::Question { what, status: Box::new(status) }
}

/// A question about one namespace of containerd.
fn within<T>(namespace: &str, question: T) -> Result<Request<T>, Ended> {
    let mut request = Request::new(question);
    let name: metadata::MetadataValue<_> =
        namespace.parse().map_err(|_| refused("a namespace")(Status::invalid_argument(format!("`{namespace}` is no name"))))?;
    request.metadata_mut().insert(NAMESPACE, name);
    Ok(request)
}

async fn one_record(client: &Client, id: Id) -> Result<Answer, Ended> {
    let request = within(&id.namespace, GetContainerRequest { id: id.id.clone() })?;
    let answer = match client.containers().max_decoding_message_size(LARGEST).get(request).await {
        Ok(answer) => answer.into_inner().container,
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => return Err(refused("a container")(status)),
    };
    let mut faults = BTreeMap::new();
    let found = match answer {
        None => Found::Nothing,
        Some(wire) => useful(&id, record::read(&id.namespace, wire), &mut faults).map_or(Found::Useless, Found::Record),
    };
    Ok(Answer::Record(id, Read { found, faults }))
}

async fn all(client: &Client) -> Result<Read<Listed>, Ended> {
    let mut faults = BTreeMap::new();
    let mut listed = Listed { records: Vec::new(), tasks: HashMap::new(), mute: HashSet::new() };
    let answer =
        patiently("namespaces", async { client.namespaces().list(ListNamespacesRequest::default()).await.map_err(refused("namespaces")) });
    let namespaces = answer.await?.into_inner().namespaces;
    for namespace in namespaces.into_iter().map(|namespace| namespace.name).filter(|name| name != DOCKER) {
        let before = listed.records.len();
        records(client, &namespace, &mut listed, &mut faults).await?;
        // Each task costs containerd a question to its shim: only those of records that are of use are asked for.
        if listed.records.len() == before {
            continue;
        }
        let began = Instant::now();
        if let Ok(answer) = timeout(PATIENCE_TASKS, tasks(client, &namespace)).await {
            listed.tasks.extend(answer?);
            if began.elapsed() < PROMPT {
                continue;
            }
        }
        let missing = listed.records[before..].iter().map(|(id, _)| id).filter(|id| !listed.tasks.contains_key(id));
        let ids: Vec<Id> = missing.cloned().collect();
        let mut each = futures::stream::iter(ids).map(|id| one_task(client, id)).buffer_unordered(ABREAST);
        while let Some((id, task)) = each.next().await {
            match task {
                Ok(pid) => listed.tasks.extend(pid.map(|pid| (id, pid))),
                Err(fault) => {
                    tracing::warn!(%id, fault, "failed to ask for a container's task");
                    faults.insert(id.clone(), fault);
                    listed.mute.insert(id);
                }
            }
        }
    }
    Ok(Read { found: listed, faults })
}

/// The process of a container's task, if it has one that is not over.
async fn one_task(client: &Client, id: Id) -> (Id, Result<Option<u32>, String>) {
    let ask = async {
        let request = within(&id.namespace, GetRequest { container_id: id.id.clone(), ..GetRequest::default() })
            .map_err(|ended| ended.to_string())?;
        match client.tasks().get(request).await {
            // containerd 1.6 gives a task whose shim it asked in vain no state at all.
            Ok(answer) => match answer.into_inner().process {
                Some(task) if task.status() == v1::Status::Unknown => Err("its shim does not report its task".to_owned()),
                process => Ok(process.filter(is_alive).map(|task| task.pid)),
            },
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(format!("its shim does not report its task: {status}")),
        }
    };
    let answer = timeout(PATIENCE_TASK, ask).await;
    let answer = answer
        .unwrap_or_else(|_| Err(format!("its shim does not answer within {} s; see its process on the host", PATIENCE_TASK.as_secs())));
    (id, answer)
}

fn is_alive(task: &v1::Process) -> bool {
    task.status() != v1::Status::Stopped && task.pid != 0
}

async fn records(client: &Client, namespace: &str, listed: &mut Listed, faults: &mut BTreeMap<Id, String>) -> Result<(), Ended> {
    let what = "containers";
    let request = within(namespace, ListContainersRequest { filters: vec![LIST_FILTER.to_owned()] })?;
    let mut containers = client.containers().max_decoding_message_size(LARGEST);
    let mut stream = patiently(what, async { containers.list_stream(request).await.map_err(refused(what)) }).await?.into_inner();
    while let Some(message) = patiently(what, async { stream.message().await.map_err(refused(what)) }).await? {
        let Some(wire) = message.container else { continue };
        let id = Id { namespace: namespace.to_owned(), id: wire.id.clone() };
        let record = useful(&id, record::read(namespace, wire), faults);
        listed.records.extend(record.map(|record| (id, record)));
    }
    Ok(())
}

async fn tasks(client: &Client, namespace: &str) -> Result<Vec<(Id, u32)>, Ended> {
    let request = within(namespace, ListTasksRequest::default())?;
    let answer = client.tasks().max_decoding_message_size(LARGEST).list(request).await.map_err(refused("tasks"))?;
    let alive = answer.into_inner().tasks.into_iter().filter(is_alive);
    Ok(alive.map(|task| (Id { namespace: namespace.to_owned(), id: task.id }, task.pid)).collect())
}

/// One record that is not as it should be is a fault of its own, and does not stop the others.
fn useful(id: &Id, read: Result<Option<Record>, record::Fault>, faults: &mut BTreeMap<Id, String>) -> Option<Record> {
    read.unwrap_or_else(|fault| {
        tracing::warn!(%id, %fault, "a container's record cannot be used");
        faults.insert(id.clone(), format!("its record cannot be used: {fault}"));
        None
    })
}
