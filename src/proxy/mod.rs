//! `egressd proxy`: ports inside many network namespaces, served by one process. A process of its own, since it has to enter namespaces
//! (`CAP_SYS_ADMIN`), which the agent does for one thing alone (`clientSource: RouteBack`).
//!
//! One loop decides (`control`), one thread enters namespaces (`opener`), a few serve (`workers`).

mod accept;
mod containers;
mod context;
mod control;
mod datagram;
mod header;
mod http;
mod limits;
pub(crate) mod metrics;
mod namespaces;
mod opener;
mod pipe;
mod port;
mod relay;
mod report;
mod sctp;
mod sockets;
mod tcp;
mod udp;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::daemon;
use crate::daemon::systemd::{self, Manager};
use crate::effects::enter::NamespaceId;
use crate::facts::files;
use containers::Containers;
use context::{Context, Scopes};
use control::Control;
use limits::Descriptors;
use namespaces::Namespaces;
use opener::Opener;
use pipe::Pipes;
use workers::Workers;

/// What `egressd proxy` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// The file of options, which is no manifest.
    pub config: PathBuf,
    /// Docker's socket. It is asked once a manifest selects containers.
    pub docker: PathBuf,
    /// Where `/metrics`, `/status`, `/healthz` and `/readyz` are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How long open connections may go on after a SIGTERM.
    pub drain: Duration,
}

/// How often it is looked whether the last connection has ended, once the process is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to start the thread that enters network namespaces")]
    Opener(#[source] io::Error),
    #[error("failed to start the threads that serve")]
    Workers(#[source] io::Error),
    #[error("failed to watch network namespaces; when too many files are open, raise fs.inotify.max_user_instances")]
    Namespaces(#[source] io::Error),
    #[error("failed to read manifests of {folder}")]
    Manifests { folder: PathBuf, source: io::Error },
}

/// Serves until it is told to stop (SIGTERM, SIGINT). Then it listens no more, and open connections may go on for a while.
pub async fn run(options: Options) -> Result<(), Error> {
    let descriptors = Descriptors::raise();
    let opener = Opener::start().map_err(Error::Opener)?;
    let home = NamespaceId::own().map_err(Error::Opener)?;
    let workers = Workers::start().map_err(Error::Workers)?;
    let mut namespaces = Namespaces::new().map_err(Error::Namespaces)?;
    let manifests = files::Source::new(&options.manifests, &options.config, None);
    let mut manifests = manifests.map_err(|source| Error::Manifests { folder: options.manifests.clone(), source })?;
    let (ask, mut asked) = mpsc::channel(16);
    let (stop, mut stopped) = mpsc::channel(1);
    daemon::listen_to_signals(move || {
        let _ = stop.try_send(());
    });
    if let Some(address) = options.metrics {
        http::serve(address, ask.clone());
    }
    let context = Context { opener, home, workers, scopes: Scopes::default(), descriptors, pipes: Pipes::default() };
    let mut control = Control::new(Arc::new(context));
    let mut containers = Containers::new(&options.docker);
    let mut manager = Manager::new();
    let mut end = None;
    info!(version = env!("CARGO_PKG_VERSION"), "egressd proxy runs");
    loop {
        let due = [control.due(), manager.due(), end.map(|end: Instant| end.min(Instant::now() + LOOK))].into_iter().flatten().min();
        tokio::select! {
            said = manifests.next(), if end.is_none() => {
                control.take(said);
                containers.want(control.in_containers());
                control.assign(&containers, &mut namespaces);
            }
            () = containers.changed() => control.assign(&containers, &mut namespaces),
            changed = namespaces.changed() => {
                if let Err(error) = changed {
                    warn!(%error, "failed to hear of network namespaces; looking at all of them");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                namespaces.look();
            }
            Some(answer) = asked.recv() => {
                // Who asked may have gone.
                let _ = answer.send(control.report());
                continue;
            }
            _ = stopped.recv(), if end.is_none() => {
                systemd::stopping();
                control.retire();
                info!(open = control.open(), "egressd proxy listens no more");
                end = Some(Instant::now() + options.drain);
            }
            () = daemon::sleep_until(due) => {}
        }
        control.round(&mut namespaces).await;
        if control.is_ready() {
            manager.ready();
        }
        manager.alive();
        if control.is_over() {
            info!("egressd proxy stops");
            return Ok(());
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            warn!(open = control.open(), "egressd proxy stops and ends what is still open (see --drain-seconds)");
            return Ok(());
        }
    }
}

/// Reads bytes as a header of the PROXY protocol, whatever they are (see [`crate::fuzzing`]).
pub fn read_any(bytes: &[u8]) {
    let _ = header::decode_v1(bytes);
    if let Some((fixed, body)) = bytes.split_first_chunk() {
        let _ = header::decode_v2(fixed, body);
    }
}
