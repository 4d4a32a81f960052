//! `/metrics`, `/healthz` and `/readyz`, on loopback.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;

use super::control::{Question, Response, put};
use super::{Error, Teller};

/// The content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the process ends.
pub(super) async fn serve(address: SocketAddr, tell: Teller) -> Result<(), Error> {
    let fault = |source| Error::Serve { what: format!("http://{address}/metrics (see --metrics-address)"), source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(fault)?;
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(tell);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "metrics are no longer served");
        }
    });
    Ok(())
}

async fn metrics(State(tell): State<Teller>) -> HttpResponse {
    match put(Question::Metrics, &tell).await {
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
