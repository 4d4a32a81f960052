//! `/metrics`, `/status`, `/healthz` and `/readyz`.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot};

use super::metrics;
use super::report::Report;
use crate::daemon::http;

/// Asks the loop.
pub type Asker = mpsc::Sender<oneshot::Sender<Report>>;

/// Serves until the process ends.
pub fn serve(address: SocketAddr, ask: Asker) {
    let router = Router::new()
        .route("/metrics", get(async |ask| answer(ask, |report| http::open_metrics(metrics::text(&report))).await))
        .route("/status", get(async |ask| answer(ask, json).await))
        .route("/healthz", get(async |ask| answer(ask, |_| http::probed(true).into_response()).await))
        .route("/readyz", get(async |ask| answer(ask, ready).await))
        .with_state(ask);
    http::serve_on(http::METRICS, address, router, |_| ());
}

async fn answer(State(ask): State<Asker>, form: impl FnOnce(Report) -> Response) -> Response {
    let (tell, told) = oneshot::channel();
    // Both fail when the loop has ended.
    let _ = ask.send(tell).await;
    told.await.map_or_else(|_| http::probed(false).into_response(), form)
}

fn ready(report: Report) -> Response {
    http::probed(report.ready).into_response()
}

fn json(report: Report) -> Response {
    match serde_json::to_string(&report) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
