//! `egressd proxy`: its arguments, and the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{DOCKER, StateArgs, log, runtime, values};
use crate::proxy::{self, ClusterOptions, Options};

/// Where containerd's socket is unless told otherwise.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Folder of manifests (EgressProxy), watched for changes; other kinds in it are ignored
    #[arg(long, env = "EGRESSD_MANIFESTS", required_unless_present = "kubernetes", value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Serve the EgressProxy objects of a Kubernetes cluster in the pods of this node, instead of manifests
    #[arg(long, env = "EGRESSD_KUBERNETES", value_parser = BoolishValueParser::new(), conflicts_with = "manifests")]
    kubernetes: bool,
    /// Kubeconfig of the API server; the pod's own account when not given
    #[arg(long, env = "EGRESSD_KUBECONFIG", requires = "kubernetes", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// containerd's socket, which lists the pods of this node
    #[arg(long, env = "EGRESSD_CONTAINERD_SOCKET", default_value = CONTAINERD, value_name = "PATH")]
    containerd_socket: PathBuf,
    /// Docker's socket, for listen.containerSelector; it need not be there yet
    #[arg(long, env = "EGRESSD_DOCKER_SOCKET", default_value = DOCKER, value_name = "PATH")]
    docker_socket: PathBuf,
    /// Address for /metrics, /status, /healthz and /readyz
    #[arg(long, env = "EGRESSD_PROXY_METRICS_ADDRESS", value_parser = values::listens, default_value = "127.0.0.1:9466", value_name = "ADDRESS:PORT")]
    metrics_address: SocketAddr,
    /// Serve no metrics
    #[arg(long, env = "EGRESSD_NO_METRICS", value_parser = BoolishValueParser::new(), conflicts_with = "metrics_address")]
    no_metrics: bool,
    /// How long open connections may go on after SIGTERM; a second SIGTERM ends them at once
    #[arg(long, env = "EGRESSD_DRAIN_SECONDS", value_parser = values::seconds, default_value_t = 30, value_name = "SECONDS")]
    drain_seconds: u32,
    /// Log as JSON
    #[arg(long, env = "EGRESSD_LOG_JSON", value_parser = BoolishValueParser::new())]
    log_json: bool,
}

/// Runs the proxy.
pub(super) fn run(args: ProxyArgs, config: PathBuf) -> anyhow::Result<()> {
    log(args.log_json);
    let ProxyArgs { kubernetes, kubeconfig, containerd_socket: containerd, .. } = args;
    let options = Options {
        manifests: args.manifests.filter(|_| !kubernetes),
        cluster: kubernetes.then_some(ClusterOptions { kubeconfig, containerd }),
        state: args.state.state_dir,
        config,
        docker: args.docker_socket,
        metrics: (!args.no_metrics).then_some(args.metrics_address),
        drain: Duration::from_secs(args.drain_seconds.into()),
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(proxy::run(options));
    // Nobody is told any more, so nothing is waited for.
    runtime.shutdown_background();
    Ok(ended?)
}
