//! The command line: what each command takes. What it does is in a file of its own.

mod cleanup;
pub mod crd;
mod guard;
pub mod kubectl;
mod show;

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::daemon;

/// Gives every container its own way out: the NIC, the gateway and the public address that its binding says.
#[derive(Debug, Parser)]
#[command(name = "egressd", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Folder of the daemon's socket, lock and memory
    #[arg(long, global = true, env = "EGRESSD_STATE_DIR", default_value = "/run/egressd", value_name = "DIR")]
    state_dir: PathBuf,
    /// File that remembers what is guarded, for `egressd guard` at the next boot; on a disk
    #[arg(long, global = true, env = "EGRESSD_BOOT_GUARD", value_name = "FILE")]
    boot_guard: Option<PathBuf>,
    /// Folder of the kernel's settings: a mount of the host's, where /proc/sys is read-only as in a container
    #[arg(long, global = true, env = "EGRESSD_SYSCTL_ROOT", default_value = "/proc/sys", value_name = "DIR")]
    sysctl_root: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch containers and manifests, and keep the kernel as they say
    Run(Box<RunArgs>),
    /// Show every workload: its binding, exit, NIC, gateway and state
    Status {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show which way a workload's packets go, and why
    Explain {
        /// A container's name or id, an address, or netns/NAME
        workload: String,
        /// Where to; the outside at large when not given
        destination: Option<IpAddr>,
    },
    /// Look for what keeps egressd from working on this host, with the cure for each
    Check {
        /// Docker's socket
        #[arg(long, default_value = DOCKER, value_name = "PATH")]
        docker_socket: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// At boot, before any container runs: close what was guarded, until the daemon runs (see --boot-guard)
    Guard,
    /// Take everything of egressd out of the kernel (stop the daemon first)
    Cleanup,
    /// Print the CustomResourceDefinitions
    Crd,
    /// Print the reference of labels and manifests
    Reference,
}

/// Where Docker's socket is unless told otherwise.
const DOCKER: &str = "/var/run/docker.sock";

#[derive(Debug, Args)]
struct RunArgs {
    /// Folder of manifests (EgressBinding, EgressNetwork), watched
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Docker's socket; it need not be there yet
    #[arg(long, default_value = DOCKER, value_name = "PATH")]
    docker_socket: PathBuf,
    /// Use no Docker engine
    #[arg(long, conflicts_with = "docker_socket")]
    no_docker: bool,
    /// containerd's socket, for pods and for its containers with egress labels
    #[arg(long, value_name = "PATH")]
    containerd_socket: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A subnet that is inside, be the route to it by an uplink: it is reached the host's way; may be repeated
    #[arg(long, value_name = "CIDR")]
    inside: Vec<IpNet>,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:15600", value_name = "ADDRESS:PORT")]
    metrics_address: SocketAddr,
    /// Serve no metrics
    #[arg(long)]
    no_metrics: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Log as JSON
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Args)]
struct ClusterArgs {
    /// Be an agent of a Kubernetes cluster: take bindings and pools from its API server
    #[arg(long)]
    kubernetes: bool,
    /// How to reach the API server; as in a pod when not given
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node
    #[arg(long, env = "NODE_NAME", required_if_eq("kubernetes", "true"), value_name = "NAME")]
    node_name: Option<String>,
    /// Name of the agent's pod; the node's name when not given
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,
    /// Namespace of the agents' Lease, ConfigMap and DaemonSet
    #[arg(long, env = "POD_NAMESPACE", default_value = "egressd", value_name = "NAME")]
    namespace: String,
    /// The agents' DaemonSet: when it is deleted, or leaves this node, all is taken out of the kernel
    #[arg(long, env = "EGRESSD_DAEMONSET", value_name = "NAME")]
    daemonset: Option<String>,
    /// Let the cluster's bindings name exits themselves, without a pool
    #[arg(long)]
    allow_raw_exits: bool,
}

impl ClusterArgs {
    fn options(self) -> Option<daemon::ClusterOptions> {
        let node = self.node_name.filter(|_| self.kubernetes)?;
        Some(daemon::ClusterOptions {
            kubeconfig: self.kubeconfig,
            pod: self.pod_name.unwrap_or_else(|| node.clone()),
            node,
            namespace: self.namespace,
            daemonset: self.daemonset,
            raw_exits: self.allow_raw_exits,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(args) => run(*args, self.state_dir, self.sysctl_root, self.boot_guard),
            Command::Status { output } => show::status(&self.state_dir, output == Output::Json),
            Command::Explain { workload, destination } => show::explain(&self.state_dir, workload, destination),
            Command::Check { docker_socket, output } => {
                runtime()?.block_on(crate::check::run(&docker_socket, &self.state_dir, &self.sysctl_root, output == Output::Json))
            }
            Command::Guard => {
                let file = self.boot_guard.context("needs --boot-guard FILE, the one that `egressd run` was given")?;
                guard::guard(&file)
            }
            Command::Cleanup => runtime()?.block_on(cleanup::cleanup(&self.state_dir, &self.sysctl_root, self.boot_guard.as_deref())),
            Command::Crd => Ok(crd::crd(&mut std::io::stdout().lock())?),
            Command::Reference => Ok(crd::reference(&mut std::io::stdout().lock())?),
        }
    }
}

fn run(args: RunArgs, state: PathBuf, sysctls: PathBuf, boot_guard: Option<PathBuf>) -> anyhow::Result<()> {
    log(args.log_json);
    let options = daemon::Options {
        manifests: args.manifests,
        docker: (!args.no_docker).then_some(args.docker_socket),
        containerd: args.containerd_socket,
        cluster: args.cluster.options(),
        inside: args.inside,
        boot_guard,
        state,
        sysctls,
        metrics: (!args.no_metrics).then_some(args.metrics_address),
        dry_run: args.dry_run,
    };
    Ok(runtime()?.block_on(daemon::run(options))?)
}

/// One thread does all: the loop is the only place where anything is decided.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Logs go to stderr, coloured for people only; `RUST_LOG` says how much.
fn log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}
