//! The JSON API. Its document, with the schema of each answer, is made in `openapi.rs`.

use std::net::IpAddr;

use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::daemon::question::{Question, Response, dropped};
use crate::daemon::status_cache::{FlowsError, StatusCache};
use crate::report::status::unknown;

/// Flows of one answer, at most.
const FLOWS: usize = 1_000;

/// Why a request is not answered, with the cure.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    pub error: String,
}

/// What happens to a packet of a workload, in words.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// As `egressd explain` prints it.
    pub text: String,
}

pub(super) type Answer = Result<HttpResponse, (StatusCode, HttpResponse)>;

/// An answer that tells what is wrong.
pub(super) fn problem(status: StatusCode, error: impl Into<String>) -> (StatusCode, HttpResponse) {
    (status, json(&Problem { error: error.into() }))
}

fn stopping() -> (StatusCode, HttpResponse) {
    problem(StatusCode::SERVICE_UNAVAILABLE, "egressd stops")
}

/// A body of JSON, made by one that is plain data.
pub(super) fn json(answer: &impl Serialize) -> HttpResponse {
    body(serde_json::to_vec(answer).expect("answers are plain data"))
}

fn body(json: impl IntoResponse) -> HttpResponse {
    let mut response = json.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What `egressd status -o json` prints.
pub(super) async fn status(State(cache): State<StatusCache>) -> Answer {
    Ok(body(cache.status().await.ok_or_else(stopping)?.body.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfWorkload {
    workload: Option<String>,
}

/// By exit, and the single flows of a workload when one is named.
pub(super) async fn flows(
    State(cache): State<StatusCache>,
    query: Result<Query<OfWorkload>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(OfWorkload { workload }) = query.map_err(|error| problem(StatusCode::BAD_REQUEST, error.body_text()))?;
    let Some(workload) = workload else { return Ok(json(&cache.flows().await.ok_or_else(stopping)?)) };
    match cache.flows_of(Some(workload), FLOWS).await.ok_or_else(stopping)? {
        Ok(flows) => Ok(json(&flows)),
        Err(error @ FlowsError::Unknown(_)) => Err(problem(StatusCode::NOT_FOUND, error.to_string())),
        Err(error) => Err(problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// The last changes, oldest first.
pub(super) async fn changes(State(cache): State<StatusCache>) -> Answer {
    match cache.put(Question::Changes).await {
        Some(Response::Changes(changes)) => Ok(json(&changes)),
        _ => Err(stopping()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FromTo {
    from: String,
    to: Option<String>,
}

/// What `egressd explain` prints.
pub(super) async fn explain(
    State(cache): State<StatusCache>,
    query: Result<Query<FromTo>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let bad = |why: String| problem(StatusCode::BAD_REQUEST, why);
    let Query(FromTo { from, to }) = query.map_err(|error| bad(error.body_text()))?;
    let destination: Option<IpAddr> = match to.filter(|to| !to.is_empty()) {
        Some(to) => {
            let address = to.parse();
            Some(address.map_err(|_| bad(format!("to: {to} is no address; `egressd explain {from} {to}` looks names up")))?)
        }
        None => None,
    };
    match cache.put(Question::Explain { workload: from, destination, drops: dropped().await }).await {
        Some(Response::Text(text)) => Ok(json(&Explanation { text })),
        Some(Response::Unknown(workload)) => Err(problem(StatusCode::NOT_FOUND, unknown(&workload))),
        _ => Err(stopping()),
    }
}
