//! `egressd controller`: decides for the whole cluster, from what its agents report. Of several one is the leader, by a Lease; the others wait.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tracing::info;

use super::{Error, http, listen_to_signals, metrics};
use crate::effects::kubernetes::Identity;
use crate::effects::kubernetes::leader;
use crate::effects::kubernetes::lease::Standing;
use crate::facts::kubernetes;

/// A controller that has not read or renewed the Lease for so long is not ready.
const DEAF: Duration = Duration::from_secs(30);

/// What `egressd controller` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server is and who we are; `None`: as in a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this controller's pod, which tells it from the others.
    pub pod: String,
    /// Namespace of the Lease, and of the agents' ConfigMap.
    pub namespace: String,
    /// Whether bindings may name exits themselves, as the agents have it.
    pub raw_exits: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: SocketAddr,
}

/// Runs until it is told to stop (SIGTERM, SIGINT), and lets go of the Lease then.
///
/// # Errors
/// When it is not told where the API server is, or no thread can be had.
pub async fn run(options: Options) -> Result<(), Error> {
    let client = kubernetes::client(options.kubeconfig.as_deref()).await?;
    let (stop, stopped) = oneshot::channel();
    listen_to_signals(move || stop.send(()).unwrap_or_default());
    let identity = Identity { namespace: options.namespace, pod: options.pod };
    let leader =
        leader::start(client, identity, options.raw_exits).map_err(|source| Error::Serve { what: "as a controller".to_owned(), source })?;
    http::serve_on(http::METRICS, options.metrics, router(leader.standing()), |_| ());
    info!(version = env!("CARGO_PKG_VERSION"), "egressd controller runs");
    // Nobody who could send has gone: the signals are listened to as long as the process lives.
    let _ = stopped.await;
    leader.stop().await;
    info!("egressd controller stops");
    Ok(())
}

type Now = State<watch::Receiver<Standing>>;

fn router(standing: watch::Receiver<Standing>) -> Router {
    let healthy = get(async |State(standing): Now| http::probed(standing.has_changed().is_ok()));
    let ready = get(async |State(standing): Now| http::probed(hears(&standing.borrow())));
    Router::new().route("/metrics", get(tell)).route("/healthz", healthy).route("/readyz", ready).with_state(standing)
}

/// The API server has answered lately.
fn hears(standing: &Standing) -> bool {
    standing.heard.is_some_and(|heard| heard.elapsed() < DEAF)
}

async fn tell(State(standing): Now) -> Response {
    let now = *standing.borrow();
    http::open_metrics(text(&now))
}

/// The text of OpenMetrics.
pub(super) fn text(now: &Standing) -> String {
    let mut registry = Registry::with_prefix("egressd");
    metrics::register_build(&mut registry);
    let gauge = |truth: bool| ConstGauge::new(i64::from(truth));
    registry.register("leader", "Whether this controller is the leader", gauge(now.leads));
    registry.register("controller_api_up", "Whether the API server has answered this controller lately", gauge(hears(now)));
    let failing = i64::try_from(now.failing).unwrap_or(i64::MAX);
    registry.register("controller_failing_writes", "Objects whose last write failed", ConstGauge::new(failing));
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}
