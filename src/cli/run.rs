//! `egressd run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::{DOCKER, StateArgs, SysctlArgs, log, runtime, values};
use crate::daemon;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    sysctl: SysctlArgs,
    /// File that remembers what is guarded, for `egressd guard` at the next boot; on a disk
    #[arg(long, env = "EGRESSD_BOOT_GUARD", value_name = "FILE")]
    boot_guard: Option<PathBuf>,
    /// Folder of manifests (EgressBinding, EgressNetwork, EgressPool), watched for changes
    #[arg(long, env = "EGRESSD_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// State folder of egressd-cloud: addresses of pools with `cloud` are used once it reports that the cloud shows them
    #[arg(long, env = "EGRESSD_CLOUD_STATE_DIR", default_value = "/run/egressd-cloud", value_name = "DIR")]
    cloud_state_dir: PathBuf,
    /// Docker's socket; it need not be there yet
    #[arg(long, env = "EGRESSD_DOCKER_SOCKET", default_value = DOCKER, value_name = "PATH")]
    docker_socket: PathBuf,
    /// Use no Docker engine
    #[arg(long, env = "EGRESSD_NO_DOCKER", value_parser = BoolishValueParser::new(), conflicts_with = "docker_socket")]
    no_docker: bool,
    /// containerd's socket, for pods and for its containers with egress labels
    #[arg(long, env = "EGRESSD_CONTAINERD_SOCKET", value_name = "PATH")]
    containerd_socket: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Treat this subnet as inside: traffic to it never uses an exit; may be repeated
    #[arg(long, env = "EGRESSD_INSIDE", value_parser = crate::api::subnet, value_delimiter = ',', value_name = "CIDR")]
    inside: Vec<IpNet>,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "EGRESSD_METRICS_ADDRESS", value_parser = values::listens, default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT")]
    metrics_address: SocketAddr,
    /// Serve no metrics
    #[arg(long, env = "EGRESSD_NO_METRICS", value_parser = BoolishValueParser::new(), conflicts_with = "metrics_address")]
    no_metrics: bool,
    /// Serve the status page and its API on this loopback address, for example 127.0.0.1:9467. Every user of this host can read it
    #[arg(long, env = "EGRESSD_UI_ADDRESS", value_parser = values::loopback, value_name = "ADDRESS:PORT")]
    ui_address: Option<SocketAddr>,
    /// Forward open flows of bound workloads through a flowtable of nftables, where the kernel has them: half the work for each packet, but no
    /// other program's chain sees them
    #[arg(long, env = "EGRESSD_FAST_PATH", value_enum, default_value_t, value_name = "WHEN")]
    fast_path: FastPath,
    /// Print the changes, and make none
    #[arg(long)]
    dry_run: bool,
    /// Log as JSON
    #[arg(long, env = "EGRESSD_LOG_JSON", value_parser = BoolishValueParser::new())]
    log_json: bool,
}

/// Whether flows are forwarded by a flowtable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FastPath {
    /// Where the kernel has them
    Auto,
    /// Never
    #[default]
    Off,
}

#[derive(Debug, Args)]
struct ClusterArgs {
    /// Run as an agent of a Kubernetes cluster: read bindings and pools from its API server
    #[arg(long, env = "EGRESSD_KUBERNETES", value_parser = BoolishValueParser::new())]
    kubernetes: bool,
    /// Kubeconfig of the API server; the pod's own account when not given
    #[arg(long, env = "EGRESSD_KUBECONFIG", requires = "kubernetes", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node
    #[arg(long, env = "NODE_NAME", required_if_eq("kubernetes", "true"), value_name = "NAME")]
    node_name: Option<String>,
    /// Namespace of the agents' ConfigMap and DaemonSet
    #[arg(long, env = "POD_NAMESPACE", default_value = "egressd", value_name = "NAME")]
    namespace: String,
    /// Name of the agents' DaemonSet: when it is deleted or no longer selects this node, remove all rules
    #[arg(long, env = "EGRESSD_DAEMONSET", requires = "kubernetes", value_name = "NAME")]
    daemonset: Option<String>,
    /// Let the cluster's bindings name exits themselves, without a pool
    #[arg(long, env = "EGRESSD_ALLOW_RAW_EXITS", value_parser = BoolishValueParser::new(), requires = "kubernetes")]
    allow_raw_exits: bool,
}

impl ClusterArgs {
    fn options(self) -> Option<daemon::ClusterOptions> {
        let node = self.node_name.filter(|_| self.kubernetes)?;
        Some(daemon::ClusterOptions {
            kubeconfig: self.kubeconfig,
            node,
            namespace: self.namespace,
            daemonset: self.daemonset,
            raw_exits: self.allow_raw_exits,
        })
    }
}

/// Runs the daemon. `config`: the file of options.
pub(super) fn run(args: RunArgs, config: PathBuf) -> anyhow::Result<()> {
    log(args.log_json);
    let options = daemon::Options {
        manifests: args.manifests,
        cloud_state: args.cloud_state_dir,
        config,
        docker: (!args.no_docker).then_some(args.docker_socket),
        containerd: args.containerd_socket,
        cluster: args.cluster.options(),
        inside: args.inside,
        boot_guard: args.boot_guard,
        state: args.state.state_dir,
        sysctls: args.sysctl.sysctl_root,
        metrics: (!args.no_metrics).then_some(args.metrics_address),
        ui: args.ui_address,
        fast_path: args.fast_path == FastPath::Auto,
        dry_run: args.dry_run,
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(options));
    // Nobody is told any more, so nothing is waited for.
    runtime.shutdown_background();
    Ok(ended?)
}
