//! `egressd controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};

use super::{log, runtime, values};
use crate::daemon::controller::{self, Options};

#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    /// Kubeconfig of the API server; the pod's own account when not given
    #[arg(long, env = "EGRESSD_KUBECONFIG", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Name of the controller's pod, its identity among the replicas
    #[arg(long, env = "POD_NAME", value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pod_name: String,
    /// Namespace of the controllers' Lease and the agents' ConfigMap
    #[arg(long, env = "POD_NAMESPACE", default_value = "egressd", value_name = "NAME")]
    namespace: String,
    /// Let the cluster's bindings name exits themselves, without a pool; has to be the same as the agents'
    #[arg(long, env = "EGRESSD_ALLOW_RAW_EXITS", value_parser = BoolishValueParser::new())]
    allow_raw_exits: bool,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "EGRESSD_METRICS_ADDRESS", value_parser = values::listens, default_value = "127.0.0.1:9465", value_name = "ADDRESS:PORT")]
    metrics_address: SocketAddr,
    /// Log as JSON
    #[arg(long, env = "EGRESSD_LOG_JSON", value_parser = BoolishValueParser::new())]
    log_json: bool,
}

/// Runs a controller.
pub(super) fn control(args: ControllerArgs) -> anyhow::Result<()> {
    log(args.log_json);
    let options = Options {
        kubeconfig: args.kubeconfig,
        pod: args.pod_name,
        namespace: args.namespace,
        raw_exits: args.allow_raw_exits,
        metrics: args.metrics_address,
    };
    Ok(runtime()?.block_on(controller::run(options))?)
}
