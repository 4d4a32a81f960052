//! The page that shows what the daemon knows, and the JSON API behind it: read only, on a loopback address, off unless it is asked for.
//!
//! A page of another site cannot read it: nothing here allows another origin (no CORS), the `Host` of a request has to be a loopback name, so
//! that a name which an attacker's DNS moves to 127.0.0.1 is refused, and no frame may show it.

mod api;
mod events;
mod openapi;
mod page;

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::http::{Served, serve_on};
use super::status_cache::StatusCache;
use super::{Event, EventSender};

const UI: Served = Served { what: "the page", option: "--ui-address" };

/// What every answer bears.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Serves until the process ends.
pub(super) fn serve(address: SocketAddr, tell: EventSender, cache: StatusCache) {
    serve_on(UI, address, router(cache), move |problem| drop(tell.send(Event::Unserved(UI.what, problem))));
}

fn router(cache: StatusCache) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/flows", get(api::flows))
        .route("/api/v1/changes", get(api::changes))
        .route("/api/v1/explain", get(api::explain))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/openapi.json", get(openapi::serve))
        .fallback(async || api::problem(StatusCode::NOT_FOUND, "no such path; see /api/v1/openapi.json for those there are"))
        .with_state(cache)
        .layer(from_fn(guard))
}

/// Answers who called by a loopback name, and adds what every answer bears.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_called_by_loopback(request.headers()) {
        next.run(request).await
    } else {
        let why = "the Host of the request has to be localhost or a loopback address; from elsewhere, use ssh -L";
        api::problem(StatusCode::MISDIRECTED_REQUEST, why).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether the one `Host` is `localhost` or a loopback address, whatever the port: `ssh -L` may have another one.
fn is_called_by_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = match host.rsplit_once(':') {
        // Else the colon is inside of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
        let called = |hosts: &[&'static str]| {
            let headers = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
            is_called_by_loopback(&headers.collect::<HeaderMap>())
        };
        for host in ["localhost", "LOCALHOST:9467", "127.0.0.1:9467", "127.0.0.53", "[::1]:80", "[::1]"] {
            assert!(called(&[host]), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9467", "172.31.0.8:9467", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]:1"]
        {
            assert!(!called(&[host]), "{host}");
        }
        assert!(!called(&[]), "HTTP/1.0 without a Host");
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!is_called_by_loopback(&two));
    }
}
