//! `egressd proxy`: ports inside many network namespaces, served by one process. A process of its own, since it has to enter namespaces
//! (`CAP_SYS_ADMIN`), which the agent does for one thing alone (`clientSource: RouteBack`).
//!
//! One loop decides (`control`), one thread enters namespaces (`opener`), a few serve (`workers`).

mod accept;
mod chains;
mod containers;
mod context;
mod control;
mod datagram;
mod exits;
mod header;
mod http;
mod limits;
pub(crate) mod metrics;
mod namespaces;
mod opener;
mod pipe;
mod pods;
mod port;
mod relay;
pub mod report;
mod scope;
mod sctp;
mod served;
mod sockets;
pub mod table;
mod tcp;
mod udp;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::daemon;
use crate::daemon::systemd::{self, Manager};
use crate::effects::enter::NamespaceId;
use crate::facts::{files, kubernetes};
use crate::model::manifests::Manifests;
use chains::Chains;
use containers::Containers;
use context::{Context, Scopes};
use control::Control;
use exits::Exits;
use limits::Descriptors;
use namespaces::Namespaces;
use opener::Opener;
use pipe::Pipes;
use pods::{Changed, Pods};
use workers::Workers;

/// What `egressd proxy` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests; `None` in a cluster.
    pub manifests: Option<PathBuf>,
    /// The cluster whose objects are served in pods of this node, instead of manifests.
    pub cluster: Option<ClusterOptions>,
    /// The state folder of the agent, which is asked for the exits of bindings.
    pub state: PathBuf,
    /// The file of options, which is no manifest.
    pub config: PathBuf,
    /// Docker's socket. It is asked once a manifest selects containers.
    pub docker: PathBuf,
    /// Where `/metrics`, `/status`, `/healthz` and `/readyz` are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How long open connections may go on after a SIGTERM.
    pub drain: Duration,
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// As a pod does when not given.
    pub kubeconfig: Option<PathBuf>,
    /// containerd's socket.
    pub containerd: PathBuf,
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
    #[error(transparent)]
    Cluster(#[from] kubernetes::Error),
}

/// Serves until it is told to stop (SIGTERM, SIGINT). Then it listens no more, and open connections may go on for a while.
pub async fn run(options: Options) -> Result<(), Error> {
    let descriptors = Descriptors::raise();
    let opener = Opener::start().map_err(Error::Opener)?;
    let home = NamespaceId::own().map_err(Error::Opener)?;
    let workers = Workers::start().map_err(Error::Workers)?;
    let mut namespaces = Namespaces::new().map_err(Error::Namespaces)?;
    let mut manifests = options.manifests.as_deref().map(|folder| manifests_of(folder, &options.config)).transpose()?;
    let mut pods = match &options.cluster {
        Some(cluster) => Pods::of(kubernetes::client(cluster.kubeconfig.as_deref()).await?, &cluster.containerd),
        None => Pods::default(),
    };
    let (ask, mut asked) = mpsc::channel(16);
    let (stop, mut stopped) = mpsc::channel(1);
    daemon::listen_to_signals(move || {
        let _ = stop.try_send(());
    });
    if let Some(address) = options.metrics {
        http::serve(address, ask.clone());
    }
    let (scopes, pipes, exits, chains) = (Scopes::default(), Pipes::default(), Exits::start(&options.state), Chains::default());
    let context = Context { opener, home, workers, scopes, descriptors, pipes, exits, chains };
    let mut control = Control::new(Arc::new(context));
    let mut containers = Containers::new(&options.docker);
    let mut manager = Manager::new();
    let mut end = None;
    info!(version = env!("CARGO_PKG_VERSION"), "egressd proxy runs");
    loop {
        let due = [control.due(), manager.due(), end.map(|end: Instant| end.min(Instant::now() + LOOK))].into_iter().flatten().min();
        tokio::select! {
            said = next(&mut manifests), if end.is_none() => {
                control.take(said);
                containers.want(control.in_containers());
                control.assign(&containers, &pods, &mut namespaces);
            }
            () = containers.changed() => control.assign(&containers, &pods, &mut namespaces),
            changed = pods.changed(), if end.is_none() => {
                if let Changed::Proxies(said) = changed {
                    control.take(said);
                }
                control.assign(&containers, &pods, &mut namespaces);
            }
            changed = namespaces.changed() => {
                if let Err(error) = changed {
                    warn!(%error, "failed to watch network namespaces; reading all of them");
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
                info!(open = control.open(), "egressd proxy stopped listening");
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
            warn!(open = control.open(), "egressd proxy stops and closes what is still open (see --drain-seconds)");
            return Ok(());
        }
    }
}

fn manifests_of(folder: &Path, config: &Path) -> Result<files::Source, Error> {
    files::Source::new(folder, config, None).map_err(|source| Error::Manifests { folder: folder.to_owned(), source })
}

async fn next(manifests: &mut Option<files::Source>) -> Manifests {
    match manifests {
        Some(manifests) => manifests.next().await,
        None => std::future::pending().await,
    }
}

/// Reads bytes as a header of the PROXY protocol, whatever they are (see [`crate::fuzzing`]).
pub fn read_any(bytes: &[u8]) {
    let _ = header::decode_v1(bytes);
    if let Some((fixed, body)) = bytes.split_first_chunk() {
        let _ = header::decode_v2(fixed, body);
    }
}
