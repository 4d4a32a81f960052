//! `/metrics`, `/healthz` and `/readyz`, and the server that all of the program's HTTP has: bounded in connections and in time.

mod connections;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::connections::Connections;
use super::question::{Question, Response};
use super::retry;
use super::status_cache::StatusCache;
use super::{Event, EventSender};
use crate::facts::backoff::Backoff;

/// The content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a client may take for the head of a request, and stay between two requests.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last, whatever it is used for: a client that does not read its answer ends with it.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// How long after a client that could not be taken the next is.
const PAUSE: Duration = Duration::from_millis(200);

/// What is served at an address, for the log and for status.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    /// As in "failed to serve ...".
    pub what: &'static str,
    /// The option that moves it.
    pub option: &'static str,
}

pub(crate) const METRICS: Served = Served { what: "metrics", option: "--metrics-address" };

/// Serves what the loop answers, until the process ends.
pub(super) fn serve(address: SocketAddr, told: EventSender, cache: StatusCache) {
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(cache);
    serve_on(METRICS, address, router, move |problem| drop(told.send(Event::Unserved(METRICS.what, problem))));
}

/// Serves until the process ends. An address that cannot be used is tried again and again: metrics are no reason to leave workloads without an
/// exit. `told` is told why nothing is served, and once it is.
pub(crate) fn serve_on(served: Served, address: SocketAddr, router: Router, told: impl Fn(Option<String>) + Send + 'static) {
    let Served { what, option } = served;
    tokio::spawn(async move {
        let mut backoff = Backoff::new(retry::FIRST, retry::LONGEST);
        let mut refused = false;
        let listener = loop {
            match bind(address).await {
                Ok(listener) => break listener,
                Err(error) => {
                    let problem = format!("failed to listen on {address} for {what}: {error}; retrying (change the address with {option})");
                    if !std::mem::replace(&mut refused, true) {
                        warn!("{problem}");
                    }
                    told(Some(problem));
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        };
        if refused {
            info!(%address, "serving {what}");
            told(None);
        }
        take(listener, router).await;
    });
}

/// Takes clients for ever, so many at once.
async fn take(listener: TcpListener, router: Router) {
    let mut connections = Connections::default();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // One that has gone again, or no descriptors.
            Err(error) => {
                debug!(%error, "failed to accept a client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        connections.free().await;
        let (answering, service) = connections::service(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let task = tokio::spawn(async move {
            // Both ends are a client that has gone or is late.
            let _ = timeout(LIFE, connection).await;
        });
        connections.take(task.abort_handle(), answering);
    }
}

/// The unspecified IPv6 address is every address, also where the kernel has no IPv6.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// What `/metrics` answers.
pub(crate) fn open_metrics(text: String) -> HttpResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

/// What a probe is answered.
pub(crate) fn probed(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(cache): State<StatusCache>) -> HttpResponse {
    match cache.put(Question::Metrics(cache.counters().await)).await {
        Some(Response::Text(text)) => open_metrics(text),
        _ => probed(false).into_response(),
    }
}

/// The loop answers.
async fn healthy(State(cache): State<StatusCache>) -> StatusCode {
    probed(cache.put(Question::Ready).await.is_some())
}

async fn ready(State(cache): State<StatusCache>) -> StatusCode {
    probed(matches!(cache.put(Question::Ready).await, Some(Response::Ready(true))))
}
