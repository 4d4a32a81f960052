//! The daemon's Unix socket: one request and one answer a connection, each a line of JSON.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::question::{Call, Question, Response, counted, dropped, put};
use super::status_cache::{FlowsError, StatusCache};
use super::{Error, EventSender, retry, started};
use crate::effects::enter::NamespaceId;
use crate::model::facts::IfIndex;
use crate::model::leave::Asked;
use crate::model::started::Started;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    Status,
    Explain {
        workload: String,
        destination: Option<IpAddr>,
    },
    /// Open flows of a workload, or of all.
    Flows {
        workload: Option<String>,
    },
    /// How many flows each exit has, and how fast.
    Exits,
    /// What becomes of a call to a port.
    ExplainInbound(Call),
    /// Which network namespace the daemon is in, as [`NamespaceId`] is written.
    Namespace,
    /// Whether all sources have spoken and the kernel is as it should be.
    Ready,
    /// Whether the rules of the control group of programs that are started so are in the kernel; waits for them.
    Exec(Started),
    /// The same of the program behind a link of this host, which `egressd exec --namespace` has made.
    Isolated(IfIndex),
    /// By which exits connections leave that another process dials (`egressd proxy`).
    Leave(Asked),
}

/// Longest request that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Flows that are listed at most; a table of conntrack may have a million.
const FLOWS: usize = 20_000;
/// How long a client may take for its request, and for taking in the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a client that could not be taken the next is.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked whether the socket is still in its folder.
const LOOK: Duration = Duration::from_secs(5);

pub(super) fn path(state: &Path) -> PathBuf {
    state.join("egressd.sock")
}

/// Serves the socket in the state folder, for root only.
pub(super) fn serve(state: &Path, tell: EventSender, cache: StatusCache) -> Result<(), Error> {
    let path = path(state);
    let listener = bind(&path).map_err(|source| Error::Serve { what: path.display().to_string(), source })?;
    tokio::spawn(take(listener, path, tell, cache));
    Ok(())
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Makes the socket anew where it was removed, perhaps with its folder.
fn renew(listener: &mut UnixListener, path: &Path) {
    if fs::symlink_metadata(path).is_ok() {
        return;
    }
    match path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| bind(path)) {
        Ok(anew) => {
            *listener = anew;
            info!(path = %path.display(), "the control socket had been removed; created it again");
        }
        Err(error) => warn!(path = %path.display(), %error, "the control socket was removed, and cannot be created again; retrying"),
    }
}

/// Takes clients for ever. When there are no file descriptors left, clients wait until there are.
async fn take(mut listener: UnixListener, path: PathBuf, tell: EventSender, cache: StatusCache) {
    let mut warned: Option<Instant> = None;
    let mut look = tokio::time::interval(LOOK);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                renew(&mut listener, &path);
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let (tell, cache) = (tell.clone(), cache.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, tell, cache).await {
                        debug!(%error, "a client disconnected");
                    }
                });
            }
            Err(error) => {
                // Many that wait are taken in small numbers, with a failure after each.
                if warned.is_none_or(|at| at.elapsed() >= retry::LONGEST) {
                    warn!(%error, "failed to accept a client on the control socket; retrying");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, tell: EventSender, cache: StatusCache) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(read, LONGEST));
    timeout(PATIENCE, read.read_line(&mut line)).await??;
    let request: Request = serde_json::from_str(&line)?;
    let response = match request {
        Request::Status => put(Question::Status(counted().await), &tell).await,
        Request::Explain { workload, destination } => put(Question::Explain { workload, destination, drops: dropped().await }, &tell).await,
        Request::ExplainInbound(call) => put(Question::ExplainInbound(call), &tell).await,
        Request::Flows { workload } => cache.flows_of(workload, FLOWS).await.map(|flows| match flows {
            Ok(flows) => Response::Flows(flows),
            Err(FlowsError::Unknown(workload)) => Response::Unknown(workload),
            Err(error @ FlowsError::Unread(_)) => Response::Refused(error.to_string()),
        }),
        Request::Exits => cache.flows().await.map(Response::Flows),
        Request::Namespace => {
            Some(NamespaceId::own().map_or_else(|error| Response::Refused(error.to_string()), |id| Response::Text(id.to_string())))
        }
        Request::Ready => put(Question::Ready, &tell).await,
        Request::Exec(started) => started::await_ready(|| Question::Exec(started.clone()), &tell).await,
        Request::Leave(asked) => put(Question::Leave(asked), &tell).await,
        Request::Isolated(link) => started::await_ready(|| Question::Isolated(link), &tell).await,
    };
    if let Some(response) = response {
        timeout(PATIENCE, write.write_all(&serde_json::to_vec(&response)?)).await??;
    }
    write.shutdown().await
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("failed to reach egressd at {path}; is `egressd run` running, with the same --state-dir?")]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("failed to reach egressd at {path}; are you root?")]
    Forbidden { path: PathBuf, source: io::Error },
    #[error("egressd did not answer within {} s, so it is busy or hangs; see its log (journalctl -u egressd)", ANSWER.as_secs())]
    Late,
    #[error("failed to talk to egressd")]
    Talk(#[source] io::Error),
    #[error("egressd stopped before it answered; see its log (journalctl -u egressd)")]
    Stopped,
    #[error("failed to read egressd's answer; is it of the same version?")]
    Answer(#[source] serde_json::Error),
}

/// How long the daemon may take to answer the command line.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the daemon of a state folder (for the command line; blocks for 10 seconds at most).
pub fn ask(state: &Path, request: &Request) -> Result<Response, AskError> {
    let path = path(state);
    let mut line = serde_json::to_vec(request).map_err(AskError::Answer)?;
    line.push(b'\n');
    // A thread of its own: connect(2) waits without end for a daemon that accepts nobody.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || drop(tell.send(talk(path, &line))));
    told.recv_timeout(ANSWER).map_err(|_| AskError::Late)?
}

fn talk(path: PathBuf, line: &[u8]) -> Result<Response, AskError> {
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Forbidden { path, source },
        _ => AskError::Unreachable { path, source },
    })?;
    stream.write_all(line).map_err(AskError::Talk)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(AskError::Talk)?;
    if answer.is_empty() { Err(AskError::Stopped) } else { serde_json::from_str(&answer).map_err(AskError::Answer) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::*;

    /// The clock stands still but for what waits: ten seconds pass at once.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_hung_up_on() {
        let (tell, _told) = mpsc::unbounded_channel();
        let cache = StatusCache::new(tell.clone(), watch::channel(0).1);
        let (_silent, served) = tokio::net::UnixStream::pair().unwrap();
        assert_eq!(answer(served, tell, cache).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
