//! `/metrics`, `/healthz` and `/readyz`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use nix::errno::Errno;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::control::{Question, Response, counted, put};
use super::retry;
use super::{Teller, Told};
use crate::facts::backoff::Backoff;

/// The content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves what the loop answers, until the process ends.
pub(super) fn serve(address: SocketAddr, tell: Teller) {
    let told = tell.clone();
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(tell);
    serve_on(address, router, move |problem| drop(told.send(Told::Metrics(problem))));
}

/// Serves until the process ends. An address that cannot be used is tried again and again: metrics are no reason to leave workloads without an
/// exit. `told` is told why nothing is served, and once it is.
pub(crate) fn serve_on(address: SocketAddr, router: Router, told: impl Fn(Option<String>) + Send + 'static) {
    tokio::spawn(async move {
        let mut backoff = Backoff::new(retry::FIRST, retry::LONGEST);
        let mut refused = false;
        let listener = loop {
            match bind(address).await {
                Ok(listener) => break listener,
                Err(error) => {
                    let problem = format!("failed to serve metrics on {address}: {error}; it is tried again (see --metrics-address)");
                    if !std::mem::replace(&mut refused, true) {
                        warn!("{problem}");
                    }
                    told(Some(problem));
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        };
        if refused {
            info!(%address, "metrics are served now");
            told(None);
        }
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "metrics are no longer served");
        }
    });
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

async fn metrics(State(tell): State<Teller>) -> HttpResponse {
    match put(Question::Metrics(counted().await), &tell).await {
        Some(Response::Text(text)) => open_metrics(text),
        _ => probed(false).into_response(),
    }
}

/// The loop answers.
async fn healthy(State(tell): State<Teller>) -> StatusCode {
    probed(put(Question::Ready, &tell).await.is_some())
}

async fn ready(State(tell): State<Teller>) -> StatusCode {
    probed(matches!(put(Question::Ready, &tell).await, Some(Response::Ready(true))))
}
