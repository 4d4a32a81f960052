//! `egressd run`: sources tell one loop, the loop resolves, plans and carries out, and answers who asks.

mod addresses;
mod agent;
mod calls;
mod cluster;
pub mod control;
pub mod controller;
mod cutter;
mod drains;
mod fast_path;
mod full;
mod gates;
mod gateways;
mod holders;
pub(crate) mod http;
mod inbound;
mod ipvs;
mod keeper;
mod lock;
mod memo;
pub(crate) mod metrics;
mod nat;
pub mod question;
mod retry;
mod route_back;
mod sources;
mod spill;
mod started;
mod status_cache;
pub(crate) mod systemd;
mod tally;
mod threads;
mod transitions;
mod ui;
pub mod withdraw;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::api;
use crate::effects::kernel::{Failure, Kernel, OpenError};
use crate::effects::kubernetes::reporter::Reporter;
use crate::effects::nft::{EventsError, NftEvents, Notice};
use crate::facts::backoff::Backoff;
use crate::facts::{cloud, containerd, docker, files, kernel, kubernetes, programs};
use crate::model::cloud::AddressReports;
use crate::model::cluster::ClusterChange;
use crate::model::facts::{EngineChange, KernelChange, Mac};
use crate::model::health::{Check, Verdict};
use crate::model::listeners::Listeners;
use crate::model::managed::At;
use crate::model::manifests::Manifests;
use crate::model::pod::RuntimeChange;
use crate::model::port_use::Full;
use crate::model::programs::ProgramFacts;
use crate::model::route_back::RoutedBack;
use crate::model::services::LimitedServer;
use crate::plan::engine::EngineStep;
use agent::Agent;
pub(crate) use agent::sleep_until;
pub use lock::hold;
use question::{Question, Response};
use status_cache::StatusCache;

/// What `egressd run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests.
    pub manifests: Option<PathBuf>,
    /// State folder of `egressd-cloud`, for the pools among the manifests.
    pub cloud_state: PathBuf,
    /// The file of options, which is no manifest.
    pub config: PathBuf,
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
    /// Where the page and its API are served; `None`: nowhere.
    pub ui: Option<SocketAddr>,
    /// Forward open flows of bound workloads by a flowtable, where the kernel has them.
    pub fast_path: bool,
    /// Print the plan and change nothing.
    pub dry_run: bool,
}

/// How to run as an agent of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where the API server is and who we are; `None`: as in a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node.
    pub node: String,
    /// Namespace of the agents: of their ConfigMap and their DaemonSet.
    pub namespace: String,
    /// The DaemonSet whose end is the agents' end; `None`: what is programmed stays in any case.
    pub daemonset: Option<String>,
    /// Whether bindings may name exits themselves.
    pub raw_exits: bool,
}

/// What the loop handles: changes of facts, results of work beside it, and questions.
pub(crate) enum Event {
    Kernel(Vec<KernelChange>),
    Engine(Vec<EngineChange>),
    Runtime(Vec<RuntimeChange>),
    Cluster(Vec<ClusterChange>),
    Files(Manifests),
    /// Users and control groups of the host's programs.
    Programs(ProgramFacts),
    /// Who listens on ports that bindings publish.
    Listeners(Listeners),
    /// What a server's answers have come to.
    Health(Check, Verdict),
    /// What became of the routes back of servers.
    RoutedBack(RoutedBack),
    /// Servers that were full, and are not any more.
    ServersFree(Vec<LimitedServer>),
    /// Somebody touched nftables.
    Nft(Notice),
    /// A call to the engine came back, and what it came to.
    Called {
        step: EngineStep,
        outcome: calls::CallResult,
    },
    /// Whether neighbours have addresses that are to be put on a NIC.
    Probed(addresses::Report),
    /// Another machine says that it has an address which egressd has put on a NIC.
    Conflict(At, Mac),
    /// Which exits run out of source ports.
    PortsFull(Full),
    /// What the cloud shows of addresses.
    Cloud(AddressReports),
    /// A gateway is dead, or back.
    Gateway(gateways::Report),
    /// What became of flows that were to end.
    Cut(cutter::Report),
    /// What the next boot is to close was written down, or not.
    Remembered(Result<(), Failure>),
    /// Why something is not served by HTTP; `None` once it is.
    Unserved(&'static str, Option<String>),
    Question(Question, oneshot::Sender<Response>),
    Stop,
}

pub(crate) type EventSender = mpsc::UnboundedSender<Event>;

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the state folder {path}")]
    State { path: PathBuf, source: io::Error },
    #[error("another egressd runs in this network namespace ({0}); stop it first: two of them would undo each other's work")]
    Running(String),
    #[error("an egressd of another network namespace uses the state folder {0}; give this one its own --state-dir")]
    StateInUse(PathBuf),
    #[error("failed to hold the abstract socket @egressd")]
    Lock(#[source] io::Error),
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

/// Runs until it is told to stop (SIGTERM, SIGINT), or with `dry_run` until the plan is printed. Stopping changes nothing in the kernel, unless
/// the DaemonSet that this is an agent of is over.
pub async fn run(options: Options) -> Result<(), Error> {
    if !options.dry_run {
        hold(&options.state)?.keep().map_err(Error::Lock)?;
    }
    let kernel = Kernel::open(&options.state, &options.sysctls)?;
    let (tell, mut told) = mpsc::unbounded_channel();
    listen_to_kernel(kernel::Source::open()?, tell.clone());
    listen_to_nft(NftEvents::open(kernel.port()), kernel.port(), tell.clone());
    if let Some(folder) = &options.manifests {
        let fault = |source| Error::Serve { what: format!("manifests of {}", folder.display()), source };
        let memory = (!options.dry_run).then(|| options.state.join("manifests"));
        listen_to_files(files::Source::new(folder, &options.config, memory).map_err(fault)?, tell.clone());
        listen_to_cloud(cloud::Source::new(&options.cloud_state), tell.clone());
    }
    let parse = |container: &crate::model::facts::Container| api::labels::parse(container).map(Arc::new);
    if let Some(socket) = &options.docker {
        listen_to_docker(docker::Source::new(socket, parse), tell.clone());
    }
    if let Some(socket) = &options.containerd {
        listen_to_containerd(containerd::Source::new(socket, parse), tell.clone());
    }
    let (wanted, asked) = watch::channel(None);
    listen_to_programs(programs::Source::new(asked), tell.clone());
    let client = match &options.cluster {
        Some(cluster) => Some(cluster::join(cluster, tell.clone()).await?),
        None => None,
    };
    let mut agent = Agent::new(&options, kernel, wanted, tell.clone());
    if options.dry_run {
        return agent.dry_run(&mut told).await;
    }
    if let Some(client) = client {
        agent.report_by(Reporter::start(client));
    }
    let stop = tell.clone();
    listen_to_signals(move || drop(stop.send(Event::Stop)));
    let cache = StatusCache::new(tell.clone(), agent.revisions());
    control::serve(&options.state, tell.clone(), cache.clone())?;
    if let Some(address) = options.metrics {
        http::serve(address, tell.clone(), cache.clone());
    }
    if let Some(address) = options.ui {
        ui::serve(address, tell.clone(), cache);
    }
    info!(version = env!("CARGO_PKG_VERSION"), "egressd runs");
    agent.run(&mut told).await;
    systemd::stopping();
    agent.finish();
    if agent.is_dismissed(&mut told).await {
        agent.withdraw(&options.state, options.boot_guard.as_deref())?;
        agent.take_leave().await;
    } else {
        info!("egressd stops; its rules stay in the kernel");
    }
    Ok(())
}

fn listen_to_kernel(mut source: kernel::Source, tell: EventSender) {
    tokio::spawn(async move {
        let mut backoff = listening_anew();
        loop {
            match source.next().await {
                Ok(changes) => {
                    backoff = listening_anew();
                    if tell.send(Event::Kernel(changes)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "lost the kernel's events; subscribing again");
                    tokio::time::sleep(backoff.wait()).await;
                    if let Ok(anew) = kernel::Source::open() {
                        source = anew;
                    }
                }
            }
        }
    });
}

/// `first` is listening already. What happens between two of them is not heard, so each later one begins with a loss.
fn listen_to_nft(first: Result<NftEvents, EventsError>, port: u32, tell: EventSender) {
    tokio::spawn(async move {
        let mut events = first;
        let mut backoff = listening_anew();
        loop {
            let error = match events {
                Ok(ref mut events) => match events.next().await {
                    Ok(notice) => {
                        backoff = listening_anew();
                        if tell.send(Event::Nft(notice)).is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            warn!(error = &error as &dyn std::error::Error, "lost the nftables events; subscribing again");
            tokio::time::sleep(backoff.wait()).await;
            events = NftEvents::open(port);
            if events.is_ok() {
                let _ = tell.send(Event::Nft(Notice { lost: true, ..Notice::default() }));
            }
        }
    });
}

fn listening_anew() -> Backoff {
    Backoff::new(Duration::from_millis(100), retry::LONGEST)
}

fn listen_to_files(mut source: files::Source, tell: EventSender) {
    tokio::spawn(async move { while tell.send(Event::Files(source.next().await)).is_ok() {} });
}

fn listen_to_cloud(mut source: cloud::Source, tell: EventSender) {
    tokio::spawn(async move { while tell.send(Event::Cloud(source.next().await)).is_ok() {} });
}

fn listen_to_programs(mut source: programs::Source, tell: EventSender) {
    tokio::spawn(async move {
        while let Some(facts) = source.next().await {
            if tell.send(Event::Programs(facts)).is_err() {
                return;
            }
        }
    });
}

fn listen_to_docker(mut source: docker::Source, tell: EventSender) {
    tokio::spawn(async move { while tell.send(Event::Engine(source.next().await)).is_ok() {} });
}

fn listen_to_containerd(mut source: containerd::Source, tell: EventSender) {
    tokio::spawn(async move { while tell.send(Event::Runtime(source.next().await)).is_ok() {} });
}

/// The first signal stops the process, which may wait for what is under way. The second ends the process at once, as if nobody listened to it.
pub fn listen_to_signals(stop: impl FnOnce() + Send + 'static) {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, interrupt, hangup) = (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
    let (mut terminated, mut interrupted, mut hung_up) = match (signal(terminate), signal(interrupt), signal(hangup)) {
        (Ok(terminated), Ok(interrupted), Ok(hung_up)) => (terminated, interrupted, hung_up),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return warn!(%error, "failed to handle signals"),
    };
    let by_hand = io::stderr().is_terminal();
    tokio::spawn(async move {
        let mut next = async || loop {
            tokio::select! {
                _ = terminated.recv() => break terminate,
                _ = interrupted.recv() => break interrupt,
                _ = hung_up.recv() => {}
            }
            // A terminal that went away, or a habit: nothing has to be read again, since all is watched.
            if by_hand {
                break hangup;
            }
            info!("SIGHUP: nothing to do, egressd watches its files");
        };
        next().await;
        stop();
        let second = next().await;
        std::process::exit(128 + second.as_raw_value());
    });
}
