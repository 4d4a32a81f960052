//! `egressd run`: sources tell one loop, the loop resolves, plans and carries out, and answers who asks.

mod agent;
mod calls;
mod cluster;
pub mod control;
mod cutter;
mod http;
mod metrics;
mod sources;
pub mod withdraw;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::api;
use crate::effects::kernel::{Kernel, OpenError};
use crate::effects::kubernetes::reporter::Reporter;
use crate::effects::nft::{NftEvents, Notice};
use crate::facts::{containerd, docker, files, kernel, kubernetes};
use crate::model::binding::Manifests;
use crate::model::cluster::ClusterChange;
use crate::model::facts::{EngineChange, KernelChange};
use crate::model::pod::RuntimeChange;
use crate::plan::engine::EngineStep;
use agent::Agent;
use control::{Question, Response};

/// What `egressd run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests.
    pub manifests: Option<PathBuf>,
    /// Docker's socket; `None`: no engine.
    pub docker: Option<PathBuf>,
    /// containerd's socket; `None`: no container runtime.
    pub containerd: Option<PathBuf>,
    /// The API server; `None`: no cluster.
    pub cluster: Option<ClusterOptions>,
    /// Subnets that are inside, besides what is discovered.
    pub inside: Vec<IpNet>,
    /// File that remembers what is guarded over a reboot; `None`: nothing is.
    pub boot_guard: Option<PathBuf>,
    /// Folder for the socket, the lock and what has to be remembered.
    pub state: PathBuf,
    /// Where settings are read and written: `/proc/sys`, or a mount of it.
    pub sysctls: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: Option<SocketAddr>,
    /// Print the plan and change nothing.
    pub dry_run: bool,
}

/// How to be an agent of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where the API server is and who we are; `None`: as in a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node.
    pub node: String,
    /// Name of the agent's pod, which tells it from the other agents.
    pub pod: String,
    /// Namespace of the agents: of their Lease, their ConfigMap and their DaemonSet.
    pub namespace: String,
    /// The DaemonSet whose end is the agents' end; `None`: what is programmed stays in any case.
    pub daemonset: Option<String>,
    /// Whether bindings may name exits themselves.
    pub raw_exits: bool,
}

/// What the loop is told.
pub(crate) enum Told {
    Kernel(Vec<KernelChange>),
    Engine(Vec<EngineChange>),
    Runtime(Vec<RuntimeChange>),
    Cluster(Vec<ClusterChange>),
    Files(Manifests),
    /// Somebody touched nftables.
    Nft(Notice),
    /// A call to the engine came back, and what it came to.
    Called {
        step: EngineStep,
        outcome: calls::Outcome,
    },
    /// Marks that flows carry.
    Carried(std::collections::BTreeSet<u32>),
    Question(Question, oneshot::Sender<Response>),
    Stop,
}

pub(crate) type Teller = mpsc::UnboundedSender<Told>;

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the state folder {path}")]
    State { path: PathBuf, source: io::Error },
    #[error("another egressd runs with the state folder {0}; stop it first, or give this one its own --state-dir")]
    Running(PathBuf),
    #[error(transparent)]
    Kernel(#[from] OpenError),
    #[error("failed to listen to the kernel")]
    Facts(#[from] kernel::Error),
    #[error(transparent)]
    Cluster(#[from] kubernetes::Error),
    #[error(transparent)]
    Withdraw(#[from] withdraw::Error),
    #[error("failed to serve {what}")]
    Serve { what: String, source: io::Error },
}

/// Holds the state folder for this process alone.
pub struct Held(#[expect(dead_code, reason = "the lock lives as long as this")] Flock<std::fs::File>);

/// Takes the state folder, making it if need be.
///
/// # Errors
/// [`Error::Running`] when another process has it.
pub fn hold(state: &std::path::Path) -> Result<Held, Error> {
    let fault = |source| Error::State { path: state.to_owned(), source };
    std::fs::create_dir_all(state).map_err(fault)?;
    let file = std::fs::File::create(state.join("lock")).map_err(fault)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Held).map_err(|_| Error::Running(state.to_owned()))
}

/// Runs until it is told to stop (SIGTERM, SIGINT), or with `dry_run` until the plan is printed. Stopping changes nothing in the kernel, unless
/// the DaemonSet that this is an agent of is over.
pub async fn run(options: Options) -> Result<(), Error> {
    let _held = if options.dry_run { None } else { Some(hold(&options.state)?) };
    let kernel = Kernel::open(&options.state, &options.sysctls)?;
    let (tell, mut told) = mpsc::unbounded_channel();
    listen_to_kernel(kernel::Source::open()?, tell.clone());
    listen_to_nft(kernel.port(), tell.clone());
    if let Some(folder) = &options.manifests {
        let fault = |source| Error::Serve { what: format!("manifests of {}", folder.display()), source };
        listen_to_files(files::Source::new(folder).map_err(fault)?, tell.clone());
    }
    let parse = |container: &crate::model::facts::Container| api::labels::parse(container).map(Arc::new);
    if let Some(socket) = &options.docker {
        listen_to_docker(docker::Source::new(socket, parse), tell.clone());
    }
    if let Some(socket) = &options.containerd {
        listen_to_containerd(containerd::Source::new(socket, parse), tell.clone());
    }
    let client = match &options.cluster {
        Some(cluster) => Some(cluster::join(cluster, tell.clone()).await?),
        None => None,
    };
    let mut agent = Agent::new(&options, kernel, tell.clone());
    if options.dry_run {
        return agent.dry_run(&mut told).await;
    }
    let mut leader = None;
    if let (Some(cluster), Some(client)) = (&options.cluster, client) {
        agent.report_by(Reporter::start(client.clone()));
        leader = Some(cluster::run_for_leader(cluster, client)?);
    }
    listen_to_signals(tell.clone());
    control::serve(&options.state, tell.clone())?;
    if let Some(address) = options.metrics {
        http::serve(address, tell.clone()).await?;
    }
    info!(version = env!("CARGO_PKG_VERSION"), "egressd runs");
    agent.run(&mut told).await;
    if let Some(leader) = leader {
        leader.stop().await;
    }
    if agent.is_dismissed(&mut told).await {
        agent.withdraw(options.boot_guard.as_deref())?;
        agent.take_leave().await;
    } else {
        info!("egressd stops; what it programmed stays");
    }
    Ok(())
}

fn listen_to_kernel(mut source: kernel::Source, tell: Teller) {
    tokio::spawn(async move {
        loop {
            match source.next().await {
                Ok(changes) => {
                    if tell.send(Told::Kernel(changes)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "lost the kernel's events; listening anew");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if let Ok(anew) = kernel::Source::open() {
                        source = anew;
                    }
                }
            }
        }
    });
}

fn listen_to_nft(port: u32, tell: Teller) {
    tokio::spawn(async move {
        loop {
            match NftEvents::open(port) {
                Ok(mut events) => {
                    while let Ok(notice) = events.next().await {
                        if tell.send(Told::Nft(notice)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => warn!(%error, "failed to listen to nftables"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

fn listen_to_files(mut source: files::Source, tell: Teller) {
    tokio::spawn(async move { while tell.send(Told::Files(source.next().await)).is_ok() {} });
}

fn listen_to_docker(mut source: docker::Source, tell: Teller) {
    tokio::spawn(async move { while tell.send(Told::Engine(source.next().await)).is_ok() {} });
}

fn listen_to_containerd(mut source: containerd::Source, tell: Teller) {
    tokio::spawn(async move { while tell.send(Told::Runtime(source.next().await)).is_ok() {} });
}

fn listen_to_signals(tell: Teller) {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let tell = tell.clone();
        match signal(kind) {
            Ok(mut stream) => drop(tokio::spawn(async move {
                stream.recv().await;
                let _ = tell.send(Told::Stop);
            })),
            Err(error) => warn!(%error, "failed to listen to signals"),
        }
    }
}
