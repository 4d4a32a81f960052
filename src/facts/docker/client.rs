//! Questions to an engine, one connection each, and its stream of events.
//!
//! The answers are not read by bollard: its types know a closed set of states, so one container in a newer state makes the whole list
//! unreadable, and its time limit covers the head of an answer only.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, Fuse, select};
use futures::{FutureExt, Stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{Connection, handshake};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::wire;

/// Podman says its own API's version in each answer.
const LIBPOD: &str = "libpod-api-version";
/// Bytes of an answer. A list of 500 containers has some megabytes, unless they have thousands of labels each.
const LONGEST_ANSWER: usize = 256 << 20;
/// An engine writes one event a line; a longer one cannot be told from a stream of nonsense.
const LONGEST_EVENT: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("failed to connect to {socket}: {source}")]
    Connect { socket: PathBuf, source: std::io::Error },
    #[error("failed to talk to the engine: {0}")]
    Talk(#[from] hyper::Error),
    #[error("the engine answered {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the engine gave no whole answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("failed to read the engine's answer: {0}")]
    Read(#[from] serde_json::Error),
    #[error("the engine's answer is longer than {LONGEST_ANSWER} bytes")]
    Endless,
    #[error("an event is longer than {LONGEST_EVENT} bytes")]
    Long,
}

impl AskError {
    /// What was asked about is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// An answer as a whole.
pub struct Answer {
    pub body: Bytes,
    /// The version of Podman's own API, when it is Podman that answers.
    pub libpod: Option<String>,
}

/// An engine to ask. Cheap to make and to clone.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// `patience` is how long a whole answer may take.
    pub fn new(socket: &Path, patience: Duration) -> Self {
        Self { socket: socket.to_owned(), patience }
    }

    /// Asks one question; `query` are its parameters with their values.
    ///
    /// # Errors
    /// When the engine is away, slow, or refuses.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, AskError> {
        self.in_time(async {
            let (mut sender, connection) = handshake(self.connect().await?).await?;
            let talk = async move {
                let response = sender.send_request(request(path, query)).await?;
                let libpod = response.headers().get(LIBPOD).and_then(|version| version.to_str().ok()).map(str::to_owned);
                let status = response.status();
                let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(unread)?.to_bytes();
                if status.is_success() { Ok(Answer { body, libpod }) } else { Err(refused(status, &body)) }
            };
            // The connection ends with its only user.
            futures::join!(talk, connection).0
        })
        .await
    }

    /// Asks for events from now on.
    ///
    /// # Errors
    /// When the engine is away, slow to begin, or refuses.
    pub async fn events(&self, filters: &str) -> Result<Events, AskError> {
        self.in_time(async {
            let (mut sender, connection) = handshake(self.connect().await?).await?;
            let mut connection = connection.fuse();
            let asked = pin!(sender.send_request(request("/events", &[("filters", filters)])));
            let response: Response<Incoming> = match select(asked, &mut connection).await {
                Either::Left((response, _)) => response?,
                Either::Right((_, asked)) => asked.await?,
            };
            let status = response.status();
            let mut events = Events { body: response.into_body(), read: Vec::new(), connection };
            if status.is_success() {
                return Ok(events);
            }
            while events.read_more().await? {}
            Err(refused(status, &events.read))
        })
        .await
    }

    async fn connect(&self) -> Result<TokioIo<UnixStream>, AskError> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map(TokioIo::new).map_err(|source| AskError::Connect { socket: self.socket.clone(), source })
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
        timeout(self.patience, answer).await.unwrap_or(Err(AskError::Slow(self.patience)))
    }
}

/// Events as they come.
pub struct Events {
    body: Incoming,
    /// What has come of lines that are not taken yet.
    read: Vec<u8>,
    /// Not in a task of its own, which hands one event over at a time: whoever asks whether there is more gets all that has come.
    connection: Fuse<Connection<TokioIo<UnixStream>, Empty<Bytes>>>,
}

impl Events {
    /// The lines of the stream, each one event. It ends when the engine ends it.
    pub fn lines(self) -> impl Stream<Item = Result<Vec<u8>, AskError>> + Unpin {
        Box::pin(futures::stream::try_unfold(self, |mut events| async move {
            let line = events.line().await?;
            Ok(line.map(|line| (line, events)))
        }))
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, AskError> {
        let mut looked_through = 0;
        loop {
            if let Some(end) = self.read[looked_through..].iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(looked_through + end + 1);
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            looked_through = self.read.len();
            if looked_through > LONGEST_EVENT {
                return Err(AskError::Long);
            }
            if !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// Whether there was more to read.
    async fn read_more(&mut self) -> Result<bool, AskError> {
        let Some(frame) = poll_fn(|context| self.poll_frame(context)).await else { return Ok(false) };
        if let Ok(data) = frame?.into_data() {
            self.read.extend_from_slice(&data);
        }
        Ok(true)
    }

    fn poll_frame(&mut self, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        // That it has failed is told by the body.
        let _ = self.connection.poll_unpin(context);
        Pin::new(&mut self.body).poll_frame(context)
    }
}

fn request(path: &str, query: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut uri = path.to_owned();
    for (at, (name, value)) in query.iter().enumerate() {
        uri.push(if at == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&escaped(value));
    }
    // Without a version in its path the engine answers in its newest API.
    Request::get(uri).header(header::HOST, "docker").body(Empty::new()).expect("an escaped path is a URI")
}

/// What may stand in a path or a query (RFC 3986, 2.3).
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> AskError {
    error.downcast::<hyper::Error>().map_or(AskError::Endless, |error| AskError::Talk(*error))
}

fn refused(status: StatusCode, body: &[u8]) -> AskError {
    let message = serde_json::from_slice::<wire::Refusal>(body).map(|refusal| refusal.message);
    AskError::Refused { status: status.as_u16(), message: message.unwrap_or_else(|_| String::from_utf8_lossy(body).trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn events_that_have_come_are_there_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let client = Client::new(&socket, Duration::from_secs(5));
        let (events, mut engine) = futures::join!(client.events("{}"), async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("written");
            stream
        });
        let mut lines = events.expect("events").lines();
        assert!(lines.next().now_or_never().is_none(), "nothing has happened");
        engine.write_all(b"2\r\na\n\r\n2\r\nb\n\r\n").await.expect("written");
        // So that the runtime hears of it.
        tokio::time::sleep(Duration::from_millis(10)).await;
        for expected in ["a\n", "b\n"] {
            let line = lines.next().now_or_never().expect("it is there").expect("a line").expect("readable");
            assert_eq!(line, expected.as_bytes());
        }
    }

    #[test]
    fn what_is_asked_about_stays_one_word_of_the_request() {
        assert_eq!(escaped(r#"{"id":["a b"]}"#), "%7B%22id%22%3A%5B%22a%20b%22%5D%7D");
        let request = request("/containers/json", &[("all", "true"), ("filters", "a&b?")]);
        assert_eq!(request.uri(), "/containers/json?all=true&filters=a%26b%3F");
    }
}
