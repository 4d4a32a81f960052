//! One request and its answer, by HTTPS, or by HTTP where an endpoint says so (the metadata service, emulators).

use std::time::Duration;

use egressd::facts::cause::with_causes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Bytes of an answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A client that keeps its connections.
#[derive(Clone)]
pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// Why there is no answer. Whether the request has arrived nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("{0}")]
    Request(String),
}

impl Http {
    /// # Errors
    /// When the machine has no certificates of authorities (the package ca-certificates).
    pub fn new() -> std::io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.build())))
    }

    /// Sends it, and reads the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>, within: Duration) -> Result<(StatusCode, String), Error> {
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| Error::Request(with_causes(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| Error::Request(error.to_string()))?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        tokio::time::timeout(within, exchange).await.unwrap_or(Err(Error::Late(within)))
    }
}
