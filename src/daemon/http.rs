//! `/metrics`, `/healthz` and `/readyz`, on loopback.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;

use tokio::net::TcpListener;
use tracing::{info, warn};

use super::control::{Question, Response, counted, put};
use super::retry;
use super::{Teller, Told};
use crate::facts::backoff::Backoff;

/// The content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the process ends. An address that cannot be used is tried again and again: metrics are no reason to leave workloads without an
/// exit.
pub(super) fn serve(address: SocketAddr, tell: Teller) {
    tokio::spawn(async move {
        let mut backoff = Backoff::new(retry::FIRST, retry::LONGEST);
        let mut refused = false;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => {
                    let problem = format!("failed to serve metrics on {address}: {error}; it is tried again (see --metrics-address)");
                    if !std::mem::replace(&mut refused, true) {
                        warn!("{problem}");
                    }
                    let _ = tell.send(Told::Metrics(Some(problem)));
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        };
        if refused {
            info!(%address, "metrics are served now");
            let _ = tell.send(Told::Metrics(None));
        }
        let router =
            Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(tell);
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "metrics are no longer served");
        }
    });
}

async fn metrics(State(tell): State<Teller>) -> HttpResponse {
    match put(Question::Metrics(counted().await), &tell).await {
        Some(Response::Text(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The loop answers.
async fn healthy(State(tell): State<Teller>) -> StatusCode {
    match put(Question::Ready, &tell).await {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn ready(State(tell): State<Teller>) -> StatusCode {
    match put(Question::Ready, &tell).await {
        Some(Response::Ready(true)) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
