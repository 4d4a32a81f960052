//! One connection to a containerd, from the first list to the first failure.
//!
//! Questions run beside each other and beside the events, at most one at a time for a container; an event that makes its record doubtful makes
//! the next one necessary, so that no answer is older than the event that asked for it.
//!
//! containerd answers a subscription only with its first event, so nobody knows when it began. It is asked for ahead of the list, and the list is
//! read once more a while later; and again after an event that is older than the connection, which a shim kept while containerd was away.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::{
    GetContainerRequest, ListContainersRequest, ListNamespacesRequest, ListTasksRequest, SubscribeRequest,
};
use containerd_client::tonic::{Code, Request, Response, Status, metadata, transport};
use containerd_client::types::{Envelope, v1};
use containerd_client::{Client, connect};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use tokio::time::Instant;

use super::book::{Ask, Book, Found, Listed, Outcome, Parse};
use super::event::{self, Event};
use super::namespaces::Namespaces;
use super::record::{self, DOCKER, Id, LIST_FILTER, Record};
use crate::model::pod::RuntimeChange;

/// A containerd that takes longer for an answer is taken for lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// When the list is read again.
const AGAIN: Duration = Duration::from_secs(1);
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
    Record(Id, Found),
    List(Listed),
}

struct Session {
    channel: transport::Channel,
    namespaces: Namespaces,
    book: Book,
    answers: FuturesUnordered<BoxFuture<'static, Result<Answer, Ended>>>,
    /// Containers whose record is being asked for, and whether it has to be asked for once more.
    asked: HashMap<Id, bool>,
    listing: bool,
    /// When the list is to be read next.
    due: Option<Instant>,
    /// The list has been told.
    told: bool,
}

/// Tells a snapshot and then the changes, until something fails.
pub async fn run(socket: &Path, parse: Parse, mut tell: impl FnMut(RuntimeChange)) -> Ended {
    match follow(socket, parse, &mut tell).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn follow(socket: &Path, parse: Parse, tell: &mut impl FnMut(RuntimeChange)) -> Result<Infallible, Ended> {
    let began = SystemTime::now();
    let namespaces = Namespaces::of(socket).await.map_err(Ended::Reach)?;
    let channel = connect(socket).await.map_err(Ended::Connect)?;
    let mut events = subscribe(channel.clone()).boxed();
    let mut session = Session {
        channel,
        namespaces,
        book: Book::new(parse),
        answers: FuturesUnordered::new(),
        asked: HashMap::new(),
        listing: false,
        due: None,
        told: false,
    };
    session.list();
    loop {
        let due = session.due.filter(|_| !session.listing);
        tokio::select! {
            // The subscription goes out first.
            biased;
            envelope = events.next() => {
                let envelope = envelope.ok_or(Ended::Closed)?.map_err(|status| Ended::Events(Box::new(status)))?;
                if event::time(&envelope).is_some_and(|time| time < began) {
                    session.due = Some(Instant::now() + AGAIN);
                }
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
        if let Some(again) = self.asked.get_mut(&id) {
            *again |= matches!(event, Event::Created | Event::Updated | Event::Deleted);
        }
        let outcome = self.book.event(id, event);
        self.carry_out(outcome, tell);
    }

    fn answer(&mut self, answer: Answer, tell: &mut impl FnMut(RuntimeChange)) {
        match answer {
            Answer::Record(id, found) => {
                if self.asked.remove(&id) == Some(true) {
                    return self.ask(id);
                }
                let outcome = self.book.found(id, found);
                self.carry_out(outcome, tell);
            }
            Answer::List(listed) => {
                self.listing = false;
                for outcome in self.book.listed(listed) {
                    self.carry_out(outcome, tell);
                }
                if !self.told {
                    self.told = true;
                    self.due = Some(Instant::now() + AGAIN);
                    tell(RuntimeChange::Snapshot(self.book.sandboxes()));
                }
            }
        }
    }

    fn carry_out(&mut self, outcome: Outcome, tell: &mut impl FnMut(RuntimeChange)) {
        let change = match outcome.ask {
            Some(Ask::Record(id)) => {
                self.ask(id);
                None
            }
            Some(Ask::Namespace { id, pid }) => {
                let found = self.namespaces.of_process(pid);
                self.book.namespace(&id, pid, found)
            }
            None => None,
        };
        // What is known before the list is told is in it.
        [outcome.change, change].into_iter().flatten().filter(|_| self.told).for_each(tell);
    }

    fn ask(&mut self, id: Id) {
        if let Some(again) = self.asked.get_mut(&id) {
            *again = true;
            return;
        }
        self.asked.insert(id.clone(), false);
        let client = Client::from(self.channel.clone());
        self.answers.push(patiently("a container", async move { one_record(&client, id).await }).boxed());
    }

    fn list(&mut self) {
        self.listing = true;
        self.book.begin();
        let client = Client::from(self.channel.clone());
        self.answers.push(async move { all(&client).await.map(Answer::List) }.boxed());
    }
}

async fn patiently<T>(what: &'static str, answer: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(Ended::Slow { what }))
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
    let found = match answer {
        None => Found::Nothing,
        Some(wire) => useful(&id, record::read(&id.namespace, wire)).map_or(Found::Useless, Found::Record),
    };
    Ok(Answer::Record(id, found))
}

async fn all(client: &Client) -> Result<Listed, Ended> {
    let mut listed = Listed { records: Vec::new(), tasks: HashMap::new() };
    let answer =
        patiently("namespaces", async { client.namespaces().list(ListNamespacesRequest::default()).await.map_err(refused("namespaces")) });
    let namespaces = answer.await?.into_inner().namespaces;
    for namespace in namespaces.into_iter().map(|namespace| namespace.name).filter(|name| name != DOCKER) {
        records(client, &namespace, &mut listed).await?;
        // Only with records is there a task, and each costs containerd a question to its shim.
        patiently("tasks", tasks(client, &namespace, &mut listed)).await?;
    }
    Ok(listed)
}

async fn records(client: &Client, namespace: &str, listed: &mut Listed) -> Result<(), Ended> {
    let what = "containers";
    let request = within(namespace, ListContainersRequest { filters: vec![LIST_FILTER.to_owned()] })?;
    let mut containers = client.containers().max_decoding_message_size(LARGEST);
    let mut stream = patiently(what, async { containers.list_stream(request).await.map_err(refused(what)) }).await?.into_inner();
    while let Some(message) = patiently(what, async { stream.message().await.map_err(refused(what)) }).await? {
        let Some(wire) = message.container else { continue };
        let id = Id { namespace: namespace.to_owned(), id: wire.id.clone() };
        let record = useful(&id, record::read(namespace, wire));
        listed.records.extend(record.map(|record| (id, record)));
    }
    Ok(())
}

async fn tasks(client: &Client, namespace: &str, listed: &mut Listed) -> Result<(), Ended> {
    let request = within(namespace, ListTasksRequest::default())?;
    let answer = client.tasks().max_decoding_message_size(LARGEST).list(request).await.map_err(refused("tasks"))?;
    let alive = answer.into_inner().tasks.into_iter().filter(|task| task.status() != v1::Status::Stopped && task.pid != 0);
    listed.tasks.extend(alive.map(|task| (Id { namespace: namespace.to_owned(), id: task.id }, task.pid)));
    Ok(())
}

/// One record that is not as it should be is said in the log, and does not stop the others.
fn useful(id: &Id, read: Result<Option<Record>, record::Fault>) -> Option<Record> {
    read.unwrap_or_else(|fault| {
        tracing::warn!(%id, %fault, "a container's record is of no use");
        None
    })
}
